"""Snapshots of the journal: a start with one is the start without one, and what is not sure of it is passed over."""

from __future__ import annotations

import os
from array import array
from pathlib import Path
from typing import Any

import pytest

from bench.fullsite import bundle_events
from pilot.journal import FileStore
from pilot.multijob.codec import UnreadableEvent, encode
from pilot.multijob.fold import fold
from pilot.multijob.model import Retired, State
from pilot.multijob.statecodec import SCHEMA, render_state
from pilot.ports import Appended, BundleId, Done, Unavailable
from pilot.rotation.snapshots import run_snapshot, take_snapshot
from simulators.world.scenarios import SCENARIOS

AT = "2026-11-26T00:00:00+00:00"
SMALL = 20_000


def write(store: FileStore, bundles: range) -> int:
    """Each bundle is one commit of twenty jobs, larger than a small segment; sealed segments so far."""
    sealed = 0
    for number in bundles:
        jobs = range(20 * number, 20 * (number + 1))
        records = [encode(event) for event in bundle_events(number, jobs, AT, runs=True)]
        appended = store.append(number, records)
        assert isinstance(appended, Appended)
        sealed = appended.sealed
    return sealed


def filled(state_dir: Path, bundles: int = 4) -> int:
    """A journal of epoch 1 with so many bundles; how many of its segments are sealed."""
    store = FileStore(state_dir, 1, SMALL)
    sealed = write(store, range(bundles))
    store.close()
    return sealed


def whole(state_dir: Path) -> State:
    return fold(FileStore(state_dir, 9).load())


def short(state_dir: Path) -> tuple[State, int]:
    """The state by way of the newest snapshot, and the bytes of segments that were read after it."""
    store = FileStore(state_dir, 9, schema=SCHEMA)
    return fold(store.load()), store.load_bytes


def snapshots(state_dir: Path) -> list[str]:
    return sorted(path.name for path in state_dir.iterdir() if "snapshot" in path.name)


def test_state_of_every_scenario_is_the_same_after_a_snapshot() -> None:
    states = [daemon.state for scenario in SCENARIOS.values() for daemon in scenario(1).daemons]
    states[0].retired[BundleId("b2345")] = Retired("long", array("q", [5, 7, 2**40]))
    for state in states:
        assert fold(render_state(state)) == state


def test_start_reads_a_snapshot_and_what_follows_it(tmp_path: Path) -> None:
    sealed = filled(tmp_path)
    expected, bytes_before = whole(tmp_path), short(tmp_path)[1]
    take_snapshot(tmp_path, 1, sealed)
    state, bytes_after = short(tmp_path)
    assert state == expected and len(state.jobs) == 80
    assert bytes_after < bytes_before / 2


def test_snapshot_is_made_of_the_one_before_it(tmp_path: Path) -> None:
    sealed = filled(tmp_path)
    take_snapshot(tmp_path, 1, 1)
    damaged = tmp_path / "journal.1/segment.000001"
    damaged.write_bytes(damaged.read_bytes().replace(b"JobFetched", b"JobXetched", 1))
    take_snapshot(tmp_path, 1, sealed)
    assert len(short(tmp_path)[0].jobs) == 80


def test_epoch_may_begin_with_a_snapshot_of_all_older_ones(tmp_path: Path) -> None:
    filled(tmp_path)
    second = FileStore(tmp_path, 2, SMALL)
    list(second.load())
    write(second, range(4, 5))
    expected = whole(tmp_path)
    take_snapshot(tmp_path, 2, 0)
    state, size = short(tmp_path)
    assert state == expected and len(state.jobs) == 100
    assert size == (tmp_path / "journal.2/segment.000001").stat().st_size


def test_equal_values_become_one_object(tmp_path: Path) -> None:
    filled(tmp_path, 2)
    state = fold(render_state(whole(tmp_path)))
    records = list(state.jobs.values())
    assert len({id(record.base) for record in records}) == 1
    bundled = {id(i) for bundle in state.bundles.values() for i in bundle.job_keys}
    assert bundled == {id(record.key) for record in records}


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def other_schema(path: Path) -> None:
    import pilot.segments as segments

    first, rest = path.read_bytes().split(b"\n", 1)
    header = segments.parse_record(first)
    assert header is not None
    header["snapshot"]["schema"] = "of another program"
    path.write_bytes(segments.render_record(header) + rest)


@pytest.mark.parametrize("spoil", [cut, flip, other_schema])
def test_snapshot_that_is_not_sure_is_passed_over(tmp_path: Path, spoil: Any) -> None:
    sealed = filled(tmp_path)
    expected = whole(tmp_path)
    take_snapshot(tmp_path, 1, sealed - 1)
    take_snapshot(tmp_path, 1, sealed)
    size = short(tmp_path)[1]
    spoil(tmp_path / f"snapshot.1.{sealed:06d}")
    state, size_with_the_older_one = short(tmp_path)
    assert state == expected and size_with_the_older_one > size


def test_snapshot_of_records_that_never_count_is_passed_over(tmp_path: Path) -> None:
    old = FileStore(tmp_path, 1, SMALL)
    write(old, range(1))
    new = FileStore(tmp_path, 2, SMALL)
    list(new.load())
    write(new, range(1, 2))
    # The older daemon goes on, seals the segment that the newer one has read, and takes a snapshot.
    sealed = write(old, range(2, 4))
    assert sealed >= 2
    take_snapshot(tmp_path, 1, sealed)
    assert short(tmp_path)[0] == whole(tmp_path)
    assert len(short(tmp_path)[0].jobs) == 40


def test_two_snapshots_are_kept_and_nothing_half_written(tmp_path: Path) -> None:
    sealed = filled(tmp_path, 6)
    assert sealed >= 3
    (tmp_path / ".snapshot.1.000001.99").write_text("of a process that was ended")
    for segment in range(sealed + 1):
        take_snapshot(tmp_path, 1, segment)
    assert snapshots(tmp_path) == [f"snapshot.1.{n:06d}" for n in (sealed - 1, sealed)]


def test_full_disk_leaves_no_part_of_a_snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(tmp_path)

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        take_snapshot(tmp_path, 1, 1)
    assert snapshots(tmp_path) == []


def test_process_of_its_own_takes_it_or_says_why_not(tmp_path: Path) -> None:
    sealed = filled(tmp_path)
    assert run_snapshot(str(tmp_path), 60.0, 1, sealed) == Done()
    assert short(tmp_path)[0] == whole(tmp_path)
    failed = run_snapshot(str(tmp_path), 60.0, 1, sealed + 5)
    assert isinstance(failed, Unavailable) and "segment" in failed.reason


def test_snapshot_record_that_is_none_is_an_error_of_one_line() -> None:
    with pytest.raises(UnreadableEvent, match="snapshot: 'jobs'"):
        fold([{"s": "jobs", "k": 1, "v": [1]}])
