"""The lease: one holder per epoch, and nobody takes it from a daemon that may live."""

from __future__ import annotations

import json
import os
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from pilot.lease import Lease, LeaseRefused, boot_id, highest_epoch, process_start, take_lease


def holder(state_dir: Path, **changes: Any) -> None:
    """A lease of this host and boot, of a process that is gone unless `changes` say otherwise."""
    content = {"host": socket.gethostname(), "boot_id": boot_id(), "pid": 2**22 + 1, "start": 5}
    (state_dir / "lease.1").write_text(json.dumps(content | changes))


def test_the_first_lease_is_epoch_1_and_has_no_holder_before_it(tmp_path: Path) -> None:
    assert take_lease(tmp_path) == Lease(1, socket.gethostname(), None)
    assert highest_epoch(tmp_path) == 1


def test_a_pid_that_was_given_to_another_process_is_not_the_holder(tmp_path: Path) -> None:
    start = process_start(os.getpid())
    assert start is not None
    holder(tmp_path, pid=os.getpid(), start=start - 1)
    assert isinstance(take_lease(tmp_path), Lease)


def test_a_holder_of_an_earlier_boot_is_gone(tmp_path: Path) -> None:
    holder(tmp_path, boot_id="before", pid=os.getpid(), start=process_start(os.getpid()))
    assert isinstance(take_lease(tmp_path), Lease)


def test_a_live_holder_is_named_and_keeps_its_lease_even_if_another_one_asks(tmp_path: Path) -> None:
    holder(tmp_path, pid=os.getpid(), start=process_start(os.getpid()))
    refused = take_lease(tmp_path)
    assert isinstance(refused, LeaseRefused)
    assert str(os.getpid()) in refused.reason
    assert highest_epoch(tmp_path) == 1


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "{}"])
def test_a_lease_that_cannot_be_read_is_not_the_lease_of_nobody(tmp_path: Path, content: str) -> None:
    (tmp_path / "lease.1").write_text(content)
    refused = take_lease(tmp_path)
    assert isinstance(refused, LeaseRefused)
    assert "--take-over" in refused.reason
    assert isinstance(take_lease(tmp_path, take_over=True), Lease)


def test_names_that_are_no_lease_are_not_counted(tmp_path: Path) -> None:
    for name in ("lease.2.tmp", "lease.x", ".lease.9", "xlease.7", "lease.-3"):
        (tmp_path / name).touch()
    assert highest_epoch(tmp_path) == 0


def test_epochs_are_numbers_not_words(tmp_path: Path) -> None:
    for epoch in (9, 10):
        (tmp_path / f"lease.{epoch}").touch()
    assert highest_epoch(tmp_path) == 10


def test_of_daemons_that_start_at_the_same_moment_one_gets_each_epoch(tmp_path: Path) -> None:
    holder(tmp_path)
    barrier, found = threading.Barrier(8), []

    def start() -> None:
        barrier.wait()
        found.append(take_lease(tmp_path))

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(isinstance(item, Lease) for item in found) == 1


def test_a_lease_without_a_start_time_of_a_process_that_is_gone_is_free(tmp_path: Path) -> None:
    holder(tmp_path, start=None)
    assert isinstance(take_lease(tmp_path), Lease)


def test_a_pid_of_another_container_says_nothing(tmp_path: Path) -> None:
    holder(tmp_path, pid_space="pid:[1]")
    refused = take_lease(tmp_path)
    assert isinstance(refused, LeaseRefused)
    assert "container" in refused.reason


def test_a_process_that_proc_hides_may_be_the_holder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def another_users(pid: int, number: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", another_users)
    holder(tmp_path)
    assert isinstance(take_lease(tmp_path), LeaseRefused)


def test_a_lease_is_whole_when_its_name_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int, content: Any) -> int:
        raise OSError("No space left on device")

    with monkeypatch.context() as faulty:
        faulty.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space left"):
            take_lease(tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert isinstance(take_lease(tmp_path), Lease)
