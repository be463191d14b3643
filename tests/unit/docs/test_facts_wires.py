"""Every rule of docs/facts/panda.md and torque.md has its number and a test that exists where the page says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(("page", "least"), [("panda", 35), ("torque", 27)])
def test_each_rule_has_its_number_and_names_a_test_that_exists(page: str, least: int) -> None:
    text = (ROOT / "docs" / "facts" / f"{page}.md").read_text()
    rows = [line for line in text.splitlines() if re.match(r"\| \d", line)]
    assert [int(row.split(" | ")[0].lstrip("| ")) for row in rows] == list(range(1, len(rows) + 1))
    assert len(rows) >= least
    missing = []
    for row in rows:
        named = re.findall(r"`(tests/[\w/.]+\.py)::(test_\w+)`", row)
        assert named, row
        for path, name in named:
            file = ROOT / path
            if not file.exists() or not re.search(rf"^def {name}\b", file.read_text(), re.MULTILINE):
                missing.append(f"{path}::{name}")
    assert missing == []
