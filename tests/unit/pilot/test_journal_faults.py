"""The journal among faults of the disk and a second daemon: nothing counts that was not answered `Appended`."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import pilot.journal
from pilot.journal import FileStore
from pilot.ports import Appended, Unavailable
from pilot.segments import JournalError, render_record


def record(number: int) -> dict[str, object]:
    return {"e": "x", "n": number}


def test_a_lease_made_while_the_records_become_durable_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lease.1").touch()
    store = FileStore(tmp_path, 1)
    real = os.fdatasync

    def overtaken(fd: int) -> None:
        real(fd)
        (tmp_path / "lease.2").touch()

    monkeypatch.setattr(os, "fdatasync", overtaken)
    assert store.append(1, [record(0)]) == Appended(1, 2)


def numbers(state_dir: Path) -> list[int]:
    return [found["n"] for found in FileStore(state_dir, 2).load()]


def failing(error: int) -> Callable[..., Any]:
    def fails(*args: Any) -> Any:
        raise OSError(error, os.strerror(error))

    return fails


def half(fd: int, content: Any, real: Callable[[int, bytes], int] = os.write) -> int:
    real(fd, bytes(content)[:10])
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


FAULTS: dict[str, list[tuple[Any, str, Callable[..., Any]]]] = {
    "fsync fails": [(os, "fdatasync", failing(errno.EIO))],
    "half a record, the disk is full": [(os, "write", half)],
    "half a record and no cutting back": [(os, "write", half), (os, "ftruncate", failing(errno.EIO))],
    "whole records, no fsync, no cutting back": [
        (os, "fdatasync", failing(errno.EIO)),
        (os, "ftruncate", failing(errno.EIO)),
    ],
    "the lease cannot be read": [(pilot.journal, "highest_epoch", failing(errno.EIO))],
}


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("tries", [1, 3])
def test_what_failed_and_was_appended_again_counts_once(
    name: str, tries: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FileStore(tmp_path, 1)
    assert isinstance(store.append(1, [record(0)]), Appended)
    with monkeypatch.context() as faulty:
        for target, attribute, fault in FAULTS[name]:
            faulty.setattr(target, attribute, fault)
        for _ in range(tries):
            assert isinstance(store.append(2, [record(1)]), Unavailable)
    assert isinstance(store.append(2, [record(1)]), Appended)
    assert isinstance(store.append(3, [record(2)]), Appended)
    assert numbers(tmp_path) == [0, 1, 2]


@pytest.mark.parametrize("fault", ["write", "rename", "fsync"])
def test_a_segment_that_could_not_be_begun_harms_nothing(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FileStore(tmp_path, 1, segment_max_bytes=100)
    assert isinstance(store.append(1, [record(0)]), Appended)
    with monkeypatch.context() as faulty:
        faulty.setattr(os, fault, failing(errno.ENOSPC))
        for _ in range(3):
            assert isinstance(store.append(2, [record(1)]), Unavailable)
    assert isinstance(store.append(2, [record(1)]), Appended)
    assert numbers(tmp_path) == [0, 1]


def test_a_full_disk_gathers_no_segments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = FileStore(tmp_path, 1)
    store.append(1, [record(0)])
    with monkeypatch.context() as faulty:
        faulty.setattr(os, "fdatasync", failing(errno.ENOSPC))
        for _ in range(50):
            store.append(2, [record(1)])
    assert len(list((tmp_path / "journal.1").iterdir())) <= 2
    store.append(2, [record(1)])
    assert numbers(tmp_path) == [0, 1]


def two_commits(state_dir: Path) -> tuple[FileStore, Path]:
    """A small commit and one of several pages, in one segment."""
    store = FileStore(state_dir, 1)
    store.append(1, [record(0)])
    store.append(2, [{**record(n), "text": "y" * 3000} for n in range(1, 11)])
    return store, state_dir / "journal.1/segment.000001"


def lose_page(path: Path) -> None:
    """What a crash leaves where a page was not brought to the disk and later ones were."""
    content = bytearray(path.read_bytes())
    content[4096:8192] = bytes(4096)
    path.write_bytes(bytes(content))


def test_pages_of_the_last_commit_that_a_crash_lost_take_all_of_it(tmp_path: Path) -> None:
    lose_page(two_commits(tmp_path)[1])
    assert numbers(tmp_path) == [0]


def test_lost_pages_before_the_last_commit_are_damage(tmp_path: Path) -> None:
    store, path = two_commits(tmp_path)
    store.append(3, [record(11)])
    lose_page(path)
    with pytest.raises(JournalError, match=r"line \d+ is damaged \(crc\) and whole records follow it"):
        numbers(tmp_path)


def test_a_commit_counts_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    path = two_commits(tmp_path)[1]
    path.write_bytes(path.read_bytes()[:-20])
    assert numbers(tmp_path) == [0]


def test_a_missing_segment_is_reported(tmp_path: Path) -> None:
    store = FileStore(tmp_path, 1, segment_max_bytes=100)
    for number in range(3):
        store.append(number, [record(number)])
    (tmp_path / "journal.1/segment.000002").unlink()
    with pytest.raises(JournalError, match=r"segment\.000002 is missing"):
        numbers(tmp_path)


def test_a_journal_without_ends_of_commits_is_refused_not_left_out(tmp_path: Path) -> None:
    (tmp_path / "journal.1").mkdir()
    lines = [render_record({"journal": 1, "epoch": 1, "segment": 1}), render_record(record(0))]
    (tmp_path / "journal.1/segment.000001").write_bytes(b"".join(lines))
    with pytest.raises(JournalError, match="journal version 1"):
        numbers(tmp_path)
