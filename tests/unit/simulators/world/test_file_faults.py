"""Faults of the virtual filesystem change what is asked for, are counted only then, and end."""

from __future__ import annotations

import errno
from collections import Counter

import pytest

from pilot.multijob.node import files
from simulators.world.filefaults import FileFaults, Rule, Wrong
from simulators.world.files import VirtualFiles

DOOR, JOURNAL = "/b/door", "/b/node.0.n.journal"


class Site:
    """A filesystem with a clock that is set by hand."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.late_s = 0.0
        self.fired: Counter[str] = Counter()
        self.faults = FileFaults(lambda: self.now_s, 1, lambda kind: self.fired.update([kind]))
        self.files = VirtualFiles(lambda: self.now_s, lambda client, path: self.late_s, self.faults, 10.0)
        self.files.root("/b")
        self.journal = self.files.open_new("nid", JOURNAL)

    def rule(self, kind: Wrong, part: str, to_s: float = 100.0, share: float = 1.0) -> None:
        self.faults.rules.append(Rule(kind, "edge", part, self.now_s, to_s, share))

    def put(self, path: str, text: str) -> None:
        self.files.perform("nid", files.Put(path, text, f"{path}.temp"))


@pytest.fixture
def site() -> Site:
    made = Site()
    made.put(DOOR, "1")
    return made


def test_a_name_that_is_not_listed_opens(site: Site) -> None:
    site.rule(Wrong.UNLISTED, "door")
    assert site.files.perform("edge", files.Names("/b")) == ["node.0.n.journal"]
    assert site.files.perform("edge", files.Read(DOOR)) == "1"
    assert site.files.perform("nid", files.Names("/b")) == ["door", "node.0.n.journal"]
    site.now_s = 100.0
    assert site.files.perform("edge", files.Names("/b")) == ["door", "node.0.n.journal"]
    assert site.fired == {Wrong.UNLISTED: 1}


def test_the_older_file_is_shown_only_after_the_newer_one(site: Site) -> None:
    site.rule(Wrong.STALE, "door")
    site.put(DOOR, "2")
    assert not site.fired
    assert [site.files.seen("edge", DOOR) for _ in range(2)] == ["2", "1"]
    assert site.fired == {Wrong.STALE: 1}


def test_torn_lines_and_holes_are_of_what_was_appended_since_and_heal(site: Site) -> None:
    site.files.append("nid", JOURNAL, site.journal, "first\n")
    site.now_s = 1.0
    site.rule(Wrong.HOLE, "journal", 50.0)
    site.files.append("nid", JOURNAL, site.journal, "second\n")
    site.files.append("nid", JOURNAL, site.journal, "third\n")
    assert site.files.seen("edge", JOURNAL) == "first\n" + "\0" * 13
    assert site.files.seen("nid", JOURNAL) == "first\nsecond\nthird\n"
    site.rule(Wrong.TORN, "journal", 50.0)
    assert site.files.seen("edge", JOURNAL) == "first\n" + "\0" * 7 + "thi"
    site.now_s = 50.0
    assert site.files.seen("edge", JOURNAL) == "first\nsecond\nthird\n"


def test_what_is_lost_does_not_come_back(site: Site) -> None:
    site.files.append("nid", JOURNAL, site.journal, "first\n")
    assert site.files.lose(JOURNAL) == "first\n"
    site.now_s = 1e9
    assert site.files.seen("nid", JOURNAL) == "\0" * 6


def test_a_full_disk_leaves_a_half_of_a_line(site: Site) -> None:
    site.faults.rules.append(Rule(Wrong.QUOTA, "nid", "journal", to_s=5.0))
    with pytest.raises(OSError, match="quota") as raised:
        site.files.append("nid", JOURNAL, site.journal, "four")
    assert raised.value.errno == errno.EDQUOT
    assert site.files.text(JOURNAL) == "fo"
    site.now_s = 5.0
    site.files.append("nid", JOURNAL, site.journal, "!")
    assert site.fired == {Wrong.QUOTA: 1}


def test_a_lost_reply_is_an_error_and_the_effect_is_there(site: Site) -> None:
    site.rule(Wrong.REPLY_LOST, "door.2")
    with pytest.raises(OSError, match="Input/output error"):
        site.files.perform("edge", files.Link(DOOR, f"{DOOR}.2"))
    assert site.files.text(f"{DOOR}.2") == "1"


def test_only_a_share_of_the_cases_goes_wrong_the_same_ones_each_time(site: Site) -> None:
    for number in range(100):
        site.put(f"/b/f{number}", "")
    site.rule(Wrong.UNLISTED, "/f", share=0.3)
    found = [site.files.perform("edge", files.Names("/b")) for _ in range(2)]
    assert found[0] == found[1]
    assert 50 < len(found[0]) < 90


def test_late_and_beyond_the_bound_are_counted_apart(site: Site) -> None:
    site.late_s = 30.0
    site.now_s = 40.0
    site.put(DOOR, "2")
    site.now_s = 45.0
    assert site.files.seen("edge", DOOR) == "1"
    assert site.fired == {Wrong.LATE: 1}
    site.now_s = 60.0
    assert site.files.seen("edge", DOOR) == "1"
    assert site.fired[Wrong.BEYOND] == 1


def test_an_outage_ends_for_all_at_once_and_overlaps_count_once(site: Site) -> None:
    site.faults.outage(10.0, 20.0)
    site.faults.outage(15.0, 30.0)
    site.now_s = 12.0
    assert site.faults.up_at() == 30.0
    assert site.faults.stopped_s(0.0, 25.0) == 15.0
    site.now_s = 30.0
    assert site.faults.up_at() == 30.0
