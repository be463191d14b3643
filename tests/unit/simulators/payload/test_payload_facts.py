"""docs/facts/payload.md and `--help` say what the code does."""

from __future__ import annotations

from pathlib import Path

import pytest

from simulators.payload.__main__ import main
from simulators.payload.exits import REASONS, Exit

FACTS = (Path(__file__).resolve().parents[4] / "docs" / "facts" / "payload.md").read_text()


def test_exit_codes_of_the_page_are_those_of_the_code() -> None:
    rows = [line for line in FACTS.splitlines() if line.startswith("| ") and line.split()[1].isdecimal()]
    assert rows == [f"| {int(code)} | {code.name} | {REASONS[code]} |" for code in Exit]


def test_help_and_page_name_the_same_verbs(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["--help"])
    text = capsys.readouterr().out
    verbs = [
        line.split("`")[1]
        for line in FACTS.splitlines()
        if line.startswith("| `") and line.endswith((" yes |", " no |"))
    ]
    assert left.value.code == 0
    assert len(verbs) == 6
    assert all(f"    {verb}" in text for verb in verbs)
    assert all(reason in text for reason in REASONS.values())


def test_every_code_has_a_reason() -> None:
    assert set(REASONS) == set(Exit)
