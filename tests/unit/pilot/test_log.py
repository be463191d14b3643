"""The log: one line a record whatever text comes from outside."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import pilot.log
from pilot.log import LineFormatter, LineQueue, escaped


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


class Hung(logging.Handler):
    """A log that takes the first line and nothing more until it is released."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.goes_on = threading.Event(), threading.Event()
        self.written: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.begun.set()
        self.goes_on.wait(30)
        self.written.append(record.getMessage())


def line(text: str) -> logging.LogRecord:
    return logging.LogRecord("pilot", logging.INFO, __file__, 1, "%s", (text,), None)


def test_a_log_that_hangs_holds_nobody_up_and_what_is_missing_is_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pilot.log, "WAITING_MAX", 3)
    hung = Hung()
    lines = LineQueue(hung)
    lines.handle(line("first"))
    hung.begun.wait(10)
    for number in range(10):
        lines.handle(line(str(number)))
    hung.goes_on.set()
    lines.close()
    assert hung.written == ["first", "7 lines are missing: the log could not be written", "0", "1", "2"]


def test_the_directory_of_the_log_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`pilot init` writes a log_file below a directory that the first run makes."""
    root = logging.getLogger("pilot")
    monkeypatch.setattr(root, "handlers", [])
    path = tmp_path / "state/edge-pilot/pilot.log"
    pilot.log.set_up_log(str(path))
    logging.getLogger("pilot").info("begun")
    for handler in root.handlers:
        handler.close()
    assert "begun" in path.read_text()
    root.propagate = True
