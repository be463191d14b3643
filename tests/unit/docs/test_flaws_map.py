"""docs/flaws.md names each row of the originals' weaknesses once, with tests that exist or a reason."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[3]
ROWS = [
    line.split(" | ", 1)
    for line in (ROOT / "docs/flaws.md").read_text().splitlines()
    if line.startswith("| ")
][1:]
EXPECTED = {
    f"{letter}{n}" for letter, last in {"A": 15, "B": 10, "C": 22, "D": 6}.items() for n in range(1, last + 1)
}
CLAUSES = 31


def test_each_row_stands_once() -> None:
    names = Counter(name.removeprefix("| ") for name, _ in ROWS)
    assert [name for name, count in names.items() if count > 1] == []
    assert {name for name in names if not name.startswith("G ")} == EXPECTED
    assert sum(name.startswith("G ") for name in names) == CLAUSES


def test_each_named_test_exists() -> None:
    missing = []
    for _, text in ROWS:
        for path, name in re.findall(r"(tests/[\w/.]+\.py)::(\w+)", text):
            file = ROOT / path
            if not file.exists() or not re.search(rf"^def {name}\b", file.read_text(), re.MULTILINE):
                missing.append(f"{path}::{name}")
    assert missing == []


def test_a_row_without_tests_has_a_reason() -> None:
    for name, text in ROWS:
        assert "::" in text or len(text) > 30, name
