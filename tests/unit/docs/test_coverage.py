"""docs/coverage.md has a row for each requirement of the original's specification, with its tests or a reason."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/coverage.md").read_text()
ROWS = [line.strip("| \n").split(" | ", 2) for line in PAGE.splitlines() if re.match(r"\| \d", line)]
LISTED = [
    line.split(" | ")
    for line in (ROOT / "tests/data/prodsys/requirements.txt").read_text().splitlines()
    if not line.startswith("#")
]
# Rows of the specification's tables by section: what is counted there is counted here.
TABLES = {
    "1.1": 28,
    "1.2": 9,
    "1.3": 5,
    "2": 18,
    "3.1": 15,
    "3.3": 8,
    "3.8": 5,
    "3.9": 5,
    "4.0": 28,
    "5.1": 14,
    "11": 18,
}
REASONS = r"later part \(.{5,}|not taken over: .{5,}|not of prodsys: .{10,}|not a field: .{10,}"


def test_each_requirement_stands_once_in_order() -> None:
    assert [row[:2] for row in ROWS] == LISTED


def test_numbers_are_complete() -> None:
    numbers = [number for number, _ in LISTED]
    assert Counter(numbers).most_common(1)[0][1] == 1
    below: dict[str, set[int]] = {}
    for number in numbers:
        while number:
            section, _, last = number.rpartition(".")
            below.setdefault(section, set()).add(int(last))
            number = section
    assert below[""] == set(range(1, 12))
    for section, found in below.items():
        assert found == set(range(min(found), max(found) + 1)), section
    assert {section: len(below[section]) for section in TABLES} == TABLES


def test_each_named_test_exists_in_one_file() -> None:
    named = sorted({found for _, _, text in ROWS for found in re.findall(r"`(test_\w+)::(test_\w+)`", text)})
    assert len(named) > 80
    for module, name in named:
        (path,) = (ROOT / "tests").rglob(f"{module}.py")
        assert re.search(rf"^def {name}\b", path.read_text(), re.MULTILINE), f"{module}::{name}"


def test_a_requirement_without_tests_has_a_reason() -> None:
    for number, _, text in ROWS:
        assert "::" in text or re.fullmatch(REASONS, text), number
