"""The log: one line a record whatever text comes from outside."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilot.log import LineFormatter, escaped


@given(st.text(st.characters()))
def test_any_text_becomes_one_line_without_control_characters(text: str) -> None:
    shown = escaped(text)
    assert shown.isprintable()
    assert len(shown.splitlines()) <= 1


@pytest.mark.parametrize("text", ["a\nb", "\x1b[2J", "\u202eabc", "\x00", "\r\n", "\udc80", "\u2028"])
def test_what_could_forge_a_line_or_a_terminal_is_escaped(text: str) -> None:
    assert "\\" in escaped(text)


def test_long_text_is_cut_and_says_so() -> None:
    assert escaped("x" * 50, at_most=10) == "x" * 10 + "..."


def test_a_traceback_stays_on_its_line() -> None:
    try:
        raise ValueError("two\nlines")
    except ValueError as error:
        info = (ValueError, error, error.__traceback__)
    record = logging.LogRecord("pilot", logging.ERROR, __file__, 1, "failed: %s", ("x\ny",), info)
    text = LineFormatter("%(message)s").format(record)
    assert "\n" not in text
    assert text.startswith("failed: x\\ny\\nTraceback")
