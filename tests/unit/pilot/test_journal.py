"""The journal: whole records or none, damage is reported, a failed append leaves nothing behind."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilot.journal import FileStore
from pilot.lease import Lease, LeaseRefused, highest_epoch, take_lease
from pilot.ports import Appended, Unavailable
from pilot.segments import JournalError, parse_record, read_segment, render_record


def make(state_dir: Path, count: int = 3) -> Path:
    store = FileStore(state_dir, 1)
    for number in range(count):
        assert isinstance(store.append(number, [{"e": "x", "n": number}]), Appended)
    store.close()
    return state_dir / "journal.1/segment.000001"


def numbers(state_dir: Path) -> list[int]:
    return [record["n"] for record in FileStore(state_dir, 2).load()]


def test_what_was_appended_is_loaded_in_order(tmp_path: Path) -> None:
    make(tmp_path)
    assert numbers(tmp_path) == [0, 1, 2]


@given(cut=st.integers(0, 400))
@settings(max_examples=60, deadline=None)
def test_a_torn_tail_loses_only_whole_records_from_the_end(
    cut: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    state_dir = tmp_path_factory.mktemp("journal")
    path = make(state_dir, 6)
    content = path.read_bytes()
    path.write_bytes(content[: max(0, len(content) - cut)])
    found = numbers(state_dir) if path.read_bytes().count(b"\n") else []
    assert found == list(range(len(found)))


@given(at=st.integers(0, 10**6), bit=st.integers(0, 7))
@settings(max_examples=80, deadline=None)
def test_a_flipped_bit_never_gives_a_wrong_record(
    at: int, bit: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    state_dir = tmp_path_factory.mktemp("journal")
    path = make(state_dir, 6)
    content = bytearray(path.read_bytes())
    content[at % len(content)] ^= 1 << bit
    path.write_bytes(bytes(content))
    try:
        found = numbers(state_dir)
    except JournalError:
        return
    assert found == list(range(len(found)))


def test_damage_in_the_middle_is_reported_with_file_and_line(tmp_path: Path) -> None:
    path = make(tmp_path)
    lines = path.read_bytes().splitlines(keepends=True)
    lines[2] = b"0" * 8 + lines[2][8:]
    path.write_bytes(b"".join(lines))
    with pytest.raises(JournalError, match=r"segment\.000001: line 3 is damaged"):
        numbers(tmp_path)


def test_damage_before_a_newer_segment_is_no_torn_tail(tmp_path: Path) -> None:
    store = FileStore(tmp_path, 1, segment_max_bytes=200)
    for number in range(20):
        store.append(number, [{"e": "x", "n": number}])
    first = tmp_path / "journal.1/segment.000001"
    first.write_bytes(first.read_bytes()[:-3])
    with pytest.raises(JournalError, match="newer segments exist"):
        numbers(tmp_path)


def test_a_newer_version_is_refused_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "segment.000001"
    path.write_bytes(render_record({"journal": 99, "epoch": 1, "segment": 1}))
    with pytest.raises(JournalError, match=r"version 99.*use the program that wrote it"):
        list(read_segment(path, last=True))


def test_a_failed_append_is_unavailable_and_leaves_no_half_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FileStore(tmp_path, 1)
    store.append(1, [{"e": "x", "n": 0}])
    real = os.write

    def half(fd: int, content: Any) -> int:
        real(fd, bytes(content)[:20])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", half)
    assert isinstance(store.append(2, [{"e": "x", "n": 1}]), Unavailable)
    monkeypatch.setattr(os, "write", real)
    assert isinstance(store.append(2, [{"e": "x", "n": 1}]), Appended)
    assert numbers(tmp_path) == [0, 1]


def test_the_lease_is_read_after_the_records_are_durable(tmp_path: Path) -> None:
    store = FileStore(tmp_path, 1)
    (tmp_path / "lease.1").touch()
    assert store.append(1, [{"e": "x", "n": 0}]) == Appended(1, 1)
    (tmp_path / "lease.2").touch()
    assert store.append(2, [{"e": "x", "n": 1}]) == Appended(2, 2)


def test_records_survive_their_own_text() -> None:
    record = {"e": "x", "text": "line\nbreak \x00 é !! ; '"}
    line = render_record(record)
    assert line.count(b"\n") == 1
    assert parse_record(line[:-1]) == record


def test_a_live_daemon_keeps_its_lease(tmp_path: Path) -> None:
    assert isinstance(take_lease(tmp_path), Lease)
    refused = take_lease(tmp_path)
    assert isinstance(refused, LeaseRefused)
    assert str(os.getpid()) in refused.reason


def test_a_gone_daemon_of_this_host_loses_its_lease_by_itself(tmp_path: Path) -> None:
    lease = take_lease(tmp_path)
    assert isinstance(lease, Lease)
    path = tmp_path / "lease.1"
    path.write_text(path.read_text().replace(f'"pid": {os.getpid()}', '"pid": 1'))
    assert isinstance(take_lease(tmp_path), Lease)
    assert highest_epoch(tmp_path) == 2


def test_a_lease_of_another_host_needs_take_over(tmp_path: Path) -> None:
    (tmp_path / "lease.1").write_text('{"host": "elsewhere", "boot_id": "b", "pid": 1, "start": 1}')
    assert isinstance(take_lease(tmp_path), LeaseRefused)
    assert isinstance(take_lease(tmp_path, take_over=True), Lease)


def test_what_an_older_daemon_commits_after_the_newer_one_has_read_never_counts(tmp_path: Path) -> None:
    old = FileStore(tmp_path, 1)
    old.append(1, [{"e": "x", "n": 1}])
    new = FileStore(tmp_path, 2)
    assert [record["n"] for record in new.load()] == [1]
    old.append(2, [{"e": "x", "n": 2}])
    new.append(3, [{"e": "x", "n": 3}])
    for store in (FileStore(tmp_path, 2), FileStore(tmp_path, 3)):
        assert [record["n"] for record in store.load()] == [1, 3]
    third = FileStore(tmp_path, 3)
    third.load()
    old.append(4, [{"e": "x", "n": 4}])
    new.append(5, [{"e": "x", "n": 5}])
    third.append(6, [{"e": "x", "n": 6}])
    assert [record["n"] for record in FileStore(tmp_path, 4).load()] == [1, 3, 6]


def test_an_epoch_that_begins_to_write_after_a_newer_one_never_counts(tmp_path: Path) -> None:
    slow, new = FileStore(tmp_path, 1), FileStore(tmp_path, 2)
    assert not list(slow.load()) and not list(new.load())
    new.append(1, [{"e": "x", "n": 1}])
    slow.append(1, [{"e": "x", "n": 2}])
    assert [record["n"] for record in FileStore(tmp_path, 3).load()] == [1]


def test_a_store_that_appends_before_it_has_read_loses_nothing_older(tmp_path: Path) -> None:
    old = FileStore(tmp_path, 1)
    old.append(1, [{"e": "x", "n": 1}])
    FileStore(tmp_path, 2).append(1, [{"e": "x", "n": 2}])
    assert [record["n"] for record in FileStore(tmp_path, 3).load()] == [1, 2]


def _damage_in_an_older_epoch(state_dir: Path) -> None:
    """Two commits of epoch 1, which epoch 2 has read; then the disk loses the page with the second one."""
    old, new = FileStore(state_dir, 1), FileStore(state_dir, 2)
    for number in (1, 2):
        old.append(number, [{"e": "x", "n": number}])
    assert [record["n"] for record in new.load()] == [1, 2]
    new.append(3, [{"e": "x", "n": 3}])
    path = state_dir / "journal.1/segment.000001"
    lines = path.read_bytes().splitlines(keepends=True)
    lines[3] = b"\0" * (len(lines[3]) - 1) + b"\n"
    path.write_bytes(b"".join(lines))


def test_damage_in_what_a_newer_epoch_has_read_is_no_crashs_tail(tmp_path: Path) -> None:
    _damage_in_an_older_epoch(tmp_path)
    with pytest.raises(JournalError, match="line 4 is damaged"):
        numbers(tmp_path)


def test_a_store_that_mends_goes_on_with_what_precedes_damage_and_says_so(tmp_path: Path) -> None:
    _damage_in_an_older_epoch(tmp_path)
    store = FileStore(tmp_path, 3, mends=True)
    assert [record["n"] for record in store.load()] == [1]
    assert "line 4 is damaged" in store.damage
    store.append(4, [{"e": "x", "n": 4}])
    again = FileStore(tmp_path, 4, mends=True)
    assert [record["n"] for record in again.load()] == [1, 4] and not again.damage
