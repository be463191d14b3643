"""Every rule of docs/facts/torque.md is held by a test that exists."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_each_rule_names_a_test_that_exists():
    text = (ROOT / "docs" / "facts" / "torque.md").read_text()
    named = set(re.findall(r"`(test_\w+)`", text))
    places = [*(ROOT / "tests").rglob("test_*.py")]
    known = {
        name for path in places for name in re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE)
    }
    assert named - known == set()
    assert len(re.findall(r"^\| \d+ \|", text, re.MULTILINE)) >= 27
