"""Ending whole process trees: everything below a process, also what has left its session or its parent.

A subreaper adopts what was orphaned below it, so the tree of a keeper is all that was ever started there. Every
process is signalled through a pidfd whose identity was checked: a number that was given away is never hit.
Standard library only, no heavy imports: keepers start with this.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import time

_PR_SET_CHILD_SUBREAPER = 36


class ProcessRow:
    """One line of the process table: what /proc/PID/stat says. `start` is its field 22."""

    __slots__ = ("parent", "pid", "session", "start", "state")

    def __init__(self, pid: int, parent: int, session: int, start: int, state: str) -> None:
        self.pid, self.parent, self.session, self.start, self.state = pid, parent, session, start, state


def become_subreaper() -> None:
    """Adopt every orphan below this process from now on."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def read_row(pid: int) -> ProcessRow | None:
    """The process table's line of one process; None when it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return ProcessRow(pid, int(fields[1]), int(fields[3]), int(fields[19]), fields[0].decode())


def descendants(root: int) -> list[ProcessRow]:
    """Every process below `root` that has not ended."""
    below: dict[int, list[ProcessRow]] = {}
    for name in os.listdir("/proc"):
        if name.isdecimal():
            row = read_row(int(name))
            if row is not None:
                below.setdefault(row.parent, []).append(row)
    found, parents = [], [root]
    while parents:
        for row in below.get(parents.pop(), ()):
            parents.append(row.pid)
            if row.state not in "ZX":
                found.append(row)
    return found


def signal_session(root: int, session: int, number: int) -> int:
    """Send a signal to every process of a session below `root`; returns to how many."""
    count = 0
    for row in descendants(root):
        if row.session == session:
            with _Handle(row) as handle:
                count += handle.send(number)
    return count


def sweep(root: int, include_root: bool = False, limit_s: float = 10.0) -> int:
    """SIGKILL to everything below `root` (and to `root`) at once; returns how many were ended.

    All are stopped first, until no new one turns up, so that none can start another or see a part of the others
    gone. Waits for their ends, at most `limit_s`: a process in an uninterruptible call is left to the kernel.
    The caller reaps its own children.
    """
    handles: dict[tuple[int, int], _Handle] = {}
    try:
        while True:
            rows = descendants(root)
            if include_root and (row := read_row(root)) is not None and row.state not in "ZX":
                rows.append(row)
            new = [row for row in rows if (row.pid, row.start) not in handles]
            if not new:
                break
            for row in new:
                handle = handles[row.pid, row.start] = _Handle(row)
                handle.send(signal.SIGSTOP)
        ended = sum(handle.send(signal.SIGKILL) for handle in handles.values())
        _wait([handle.fd for handle in handles.values() if handle.fd >= 0], limit_s)
        return ended
    finally:
        for handle in handles.values():
            handle.close()


def _wait(fds: list[int], limit_s: float) -> None:
    poll = select.poll()
    for fd in fds:
        poll.register(fd, select.POLLIN)
    left, end_s = set(fds), time.monotonic() + limit_s
    while left and (room_s := end_s - time.monotonic()) > 0:
        for fd, _ in poll.poll(room_s * 1000):
            poll.unregister(fd)
            left.discard(fd)


class _Handle:
    """A pidfd of exactly the process of a table line; without one when that process is gone."""

    def __init__(self, row: ProcessRow) -> None:
        self.fd = -1
        try:
            fd = os.pidfd_open(row.pid)
        except ProcessLookupError:
            return
        now = read_row(row.pid)
        if now is None or now.start != row.start:
            os.close(fd)
        else:
            self.fd = fd

    def send(self, number: int) -> bool:
        if self.fd < 0:
            return False
        try:
            signal.pidfd_send_signal(self.fd, number)
        except (ProcessLookupError, PermissionError):  # gone, or another user's (a set-user-id program)
            return False
        return True

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> _Handle:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
