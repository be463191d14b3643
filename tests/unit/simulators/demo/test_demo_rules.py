"""What the demo judges from evidence, and which database it takes."""

from __future__ import annotations

from typing import Any

import pytest

from pilot.caldb.unpack import KeeperFailed
from simulators.demo import run
from simulators.demo.summary import broken_conditions
from simulators.demo.watcher import Seen, left_behind

GOOD: dict[str, Any] = {
    "raw_files": 37,
    "zero_event_files_skipped": 1,
    "jobs_finished": 36,
    "jobs_failed": 0,
    "attempts_charged": 36,
    "events_raw": 100,
    "events_reconstructed": 100,
    "events_merged": 100,
    "crosscheck": "yes",
    "archived": True,
    "payloads_run_twice": 0,
    "leftovers": 0,
    "left_behind": [],
    "caldb_backend": "mariadb",
    "caldb_started": 5,
    "bundles": 5,
    "node_killed": {"node": "nid00001", "jobs_kept": 1, "jobs_returned": 1},
}


def broken(**changes: Any) -> list[str]:
    settings: dict[str, Any] = {
        "raw_files": 37,
        "jobs": 36,
        "bundles_min": 5,
        "node_fault": True,
        "backend": "mariadb",
    }
    return broken_conditions({**GOOD, **changes}, **settings)


def test_a_good_summary_breaks_nothing() -> None:
    assert broken() == []


@pytest.mark.parametrize(
    "change",
    [
        {"jobs_finished": 35},
        {"jobs_failed": 1},
        {"events_reconstructed": 99},
        {"events_merged": 99},
        {"events_raw": 0, "events_reconstructed": 0, "events_merged": 0},
        {"crosscheck": "no"},
        {"archived": False},
        {"payloads_run_twice": 1},
        {"leftovers": 1, "left_behind": ["file /tmp/x"]},
        {"caldb_backend": "sqlite"},
        {"caldb_started": 0},
        {"bundles": 4},
        {"node_killed": None},
        {"node_killed": {"node": "n", "jobs_kept": 0, "jobs_returned": 1}},
        {"attempts_charged": 37},
    ],
)
def test_each_condition_is_named_when_it_does_not_hold(change: dict[str, Any]) -> None:
    assert len(broken(**change)) == 1


def test_what_is_left_is_named() -> None:
    assert broken(leftovers=1, left_behind=["file /tmp/x"]) == ["left behind: file /tmp/x"]


def test_without_a_server_the_sqlite_snapshot_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(wanted: str | None) -> str:
        raise KeeperFailed("no calibration server")

    monkeypatch.setattr(run, "find_server", none)
    assert run._backend() == "sqlite"


def test_sockets_of_others_and_files_of_other_demos_are_not_this_runs() -> None:
    before = Seen(frozenset(), frozenset({1}), frozenset(), frozenset())
    files = frozenset({("/tmp/ep-other", 1), ("/tmp/ep-mine", 2), ("/tmp/strange", 3)})
    after = Seen(frozenset({7}), frozenset({1, 2, 3}), frozenset({"/mnt"}), files)
    lines = left_behind(before, after, frozenset({2}), "ep-mine", frozenset({"ep-"}))
    assert lines == [
        "process 7",
        "listening socket 2",
        "mount /mnt",
        "file /tmp/ep-mine",
        "file /tmp/strange",
    ]
