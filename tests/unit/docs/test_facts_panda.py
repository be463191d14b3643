"""Every rule of docs/facts/panda.md is held by a test that exists."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_each_panda_rule_names_a_test_that_exists() -> None:
    text = (ROOT / "docs" / "facts" / "panda.md").read_text()
    lines = re.findall(r"^\| (\d+) \|.*\| `(test_\w+)` \|$", text, re.MULTILINE)
    known = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE)
    }
    assert [int(number) for number, _ in lines] == list(range(1, len(lines) + 1))
    assert {name for _, name in lines} - known == set()
    assert len(lines) == len(re.findall(r"^\| \d", text, re.MULTILINE))
