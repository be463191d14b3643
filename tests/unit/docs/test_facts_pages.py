"""docs/facts/{compass,journal}.md: each named test exists, and the words are those of the data they describe."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest
import yaml

from pilot.journal import SEGMENT_MAX_BYTES

ROOT = Path(__file__).parents[3]
COMPASS = (ROOT / "docs/facts/compass.md").read_text()
WORDS = yaml.safe_load((ROOT / "pilot/experiments/compass.yaml").read_text())


@cache
def known_tests() -> frozenset[str]:
    texts = (path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    return frozenset(name for text in texts for name in re.findall(r"^def (test_\w+)", text, re.MULTILINE))


@pytest.mark.parametrize("page", ["compass", "journal"])
def test_each_test_named_on_the_page_exists(page: str) -> None:
    named = set(re.findall(r"`(test_\w+)`", (ROOT / f"docs/facts/{page}.md").read_text()))
    assert named
    assert named - known_tests() == set()


def test_each_rule_of_compass_has_its_number_and_test() -> None:
    rules = re.findall(r"^\| (\d+) \|.*\| `(test_\w+)` \|$", COMPASS, re.MULTILINE)
    assert [int(number) for number, _ in rules] == list(range(1, len(rules) + 1))
    assert len(rules) == len(re.findall(r"^\| \d{1,2} \| ", COMPASS, re.MULTILINE))


def test_texts_of_compass_are_those_of_its_data() -> None:
    rows = set(re.findall(r"^\| `([\w-]+)` \| (\w+) \| `(.+)` \| (\d+) \|$", COMPASS, re.MULTILINE))
    numbers = {name: str(item["number"]) for name, item in WORDS["codes"].items()}
    expected = {(n, p["where"], p["text"], numbers[p["code"]]) for n, p in WORDS["patterns"].items()}
    assert rows == expected
    for kind in WORDS["kinds"].values():
        assert f"`{kind['end_marker']['text']}`" in COMPASS


def test_each_code_of_compass_has_its_source() -> None:
    table = COMPASS.partition("| codes | from |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| ([\d, ]+) \|", table, re.MULTILINE)
    listed = [int(number) for row in rows for number in row.split(", ")]
    assert sorted(listed) == sorted(item["number"] for item in WORDS["codes"].values())


def test_size_of_a_segment_is_that_of_the_code() -> None:
    page = (ROOT / "docs/facts/journal.md").read_text()
    assert f"a segment has {SEGMENT_MAX_BYTES // 2**20} MiB" in page
