"""What the demo judges from evidence, and which database it takes."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pilot.caldb.unpack import KeeperFailed
from simulators.demo import run
from simulators.demo.parts import Interrupts, Stopped
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


@pytest.fixture(autouse=True)
def signal_handlers() -> Iterator[None]:
    """The demo takes signals; a test gives them back."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


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


def test_a_directory_that_no_demo_made_is_never_removed(tmp_path: Path) -> None:
    foreign = tmp_path / "thesis"
    foreign.mkdir()
    (foreign / "a.txt").write_text("years of work")
    problem = run.clean(tmp_path, foreign)
    assert problem is not None
    assert "was not made by a demo" in problem
    assert (foreign / "a.txt").read_text() == "years of work"
    assert run.demo(tmp_path, foreign, "none", "sqlite") == 1
    assert (foreign / "a.txt").exists()


def test_a_directory_of_a_demo_is_removed(tmp_path: Path) -> None:
    out = tmp_path / "demo-out"
    out.mkdir()
    assert run.clean(tmp_path, out) is None
    out.mkdir()
    (out / run.OWN_MARK).touch()
    (out / "summary.json").touch()
    assert run.clean(tmp_path, out) is None
    assert not out.exists()


def test_a_signal_in_a_held_part_that_fails_is_not_lost() -> None:
    interrupts = Interrupts()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        with pytest.raises(Stopped) as caught, interrupts.held():
            interrupts._arrived(signal.SIGTERM, None)
            raise ValueError("a part failed")
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert caught.value.number == signal.SIGTERM


@pytest.mark.parametrize("place", ["clean", "watcher.reap", "_judge"])
def test_a_signal_outside_the_chain_ends_the_demo_with_its_number(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*arguments: Any) -> None:
        raise Stopped(signal.SIGTERM)

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    monkeypatch.setattr(run, "_run", lambda *arguments: (None, None))
    monkeypatch.setattr(run.watcher, "become_watcher", lambda: None)
    monkeypatch.setattr(run.watcher, "reap", lambda: None)
    monkeypatch.setattr(f"simulators.demo.run.{place}", stop)
    try:
        assert run.demo(tmp_path, tmp_path / "demo-out", "none", "sqlite") == 128 + signal.SIGTERM
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
