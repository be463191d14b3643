"""docs/coverage.md names each section of the original's specification once, with tests that exist or a reason."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
ROWS = [line.split(" | ") for line in (ROOT / "docs/coverage.md").read_text().splitlines()[6:]]
SUBSECTIONS = {"1": 3, "3": 9, "4": 8, "5": 3, "6": 6}
WHOLE = {"2", "4", "7", "8", "9", "10", "11"}


def test_each_section_stands_once() -> None:
    wanted = WHOLE | {f"{name}.{n}" for name, last in SUBSECTIONS.items() for n in range(1, last + 1)}
    assert sorted(row[0].removeprefix("| ") for row in ROWS) == sorted(wanted)


def test_each_named_test_exists() -> None:
    named = {found for row in ROWS for found in re.findall(r"(tests/[\w/.]+\.py)::(\w+)", row[2])}
    assert len(named) > 50
    missing = [
        f"{path}::{name}"
        for path, name in sorted(named)
        if not re.search(rf"^def {name}\b", (ROOT / path).read_text(), re.MULTILINE)
    ]
    assert missing == []


def test_a_section_without_tests_has_a_reason() -> None:
    for section, _, text in ROWS:
        assert "::" in text or len(text) > 30, section
