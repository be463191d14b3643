"""Processes that this agent started, however they escaped: found through the subreaper, never by name.

A process is named by pid and start time together (field 22 of /proc/PID/stat): a number alone may be taken again.
"""

from __future__ import annotations

import os
import signal
import time
from typing import Callable, Dict, FrozenSet, Iterable, List, Mapping, NamedTuple, Optional, Set

# A swept tree is looked at again until it is empty. One that is not after so long holds a process that cannot be
# ended (a dead filesystem); it is counted as left behind.
SWEEP_S = 10.0
_SWEEP_PAUSE_S = 0.002
_PROC_BYTES = 65536

PAGE_MIB = os.sysconf("SC_PAGE_SIZE") / 1048576.0


class Seen(NamedTuple):
    """One process of a snapshot. `start` in clock ticks since boot; `state` "Z" and "X" are defunct."""

    pid: int
    ppid: int
    session: int
    start: int
    state: str
    rss_mib: float


class Name(NamedTuple):
    """Identity of a process."""

    pid: int
    start: int


def parse_stat(text: str) -> Optional[Seen]:
    """Text of /proc/PID/stat. The command name in it may hold blanks and parentheses."""
    head, _, rest = text.rpartition(")")
    fields = rest.split()
    if len(fields) < 22:
        return None
    return Seen(
        pid=int(head.split("(", 1)[0]),
        ppid=int(fields[1]),
        session=int(fields[3]),
        start=int(fields[19]),
        state=fields[0],
        rss_mib=int(fields[21]) * PAGE_MIB,
    )


def look_at(pid: int) -> Optional[Seen]:
    """The process now, None if there is none."""
    try:
        return parse_stat(_read_proc("/proc/%d/stat" % pid).decode("utf-8", "replace"))
    except (FileNotFoundError, ProcessLookupError):
        return None


def _read_proc(path: str) -> bytes:
    """All of a file whose size nobody knows: four calls, where `open` makes nine. Raises OSError."""
    fd = os.open(path, os.O_RDONLY)
    try:
        found = piece = os.read(fd, _PROC_BYTES)
        while piece:
            piece = os.read(fd, _PROC_BYTES)
            found += piece
        return found
    finally:
        os.close(fd)


def snapshot() -> Dict[int, Seen]:
    """All processes that /proc shows now."""
    seen = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            found = look_at(int(name))
            if found is not None:
                seen[found.pid] = found
    return seen


def descendants(seen: Mapping[int, Seen], roots: Iterable[int]) -> Set[int]:
    """Pids below the roots, without them. Pure."""
    children: Dict[int, List[int]] = {}
    for item in seen.values():
        children.setdefault(item.ppid, []).append(item.pid)
    below: Set[int] = set()
    waiting = list(roots)
    while waiting:
        for pid in children.get(waiting.pop(), ()):
            if pid not in below:
                below.add(pid)
                waiting.append(pid)
    return below


def members(
    seen: Mapping[int, Seen], leader: Name, known: FrozenSet[Name], mine: int, marked: Callable[[int], bool]
) -> FrozenSet[Name]:
    """Live processes of one payload: its first one, its session, its descendants, those known before, adopted ones.

    Only descendants of `mine` (the agent, a subreaper) are looked at; of its adopted children those belong to the
    payload for which `marked` (a look at the environment) is true. Pure but for `marked`.
    """
    own = descendants(seen, [mine])
    names = known | {leader}
    roots = {name.pid for name in names if name.pid in own and seen[name.pid].start == name.start}
    roots |= {pid for pid in own if seen[pid].session == leader.pid}
    roots |= {pid for pid in own if seen[pid].ppid == mine and pid not in roots and marked(pid)}
    found = roots | descendants(seen, roots)
    return frozenset(Name(pid, seen[pid].start) for pid in found if seen[pid].state not in "ZX")


def children() -> Optional[Set[int]]:
    """Pids of this process's children, defunct ones included; None if the kernel does not tell.

    Those of its first thread: it spawns all of them, and orphans go to the first living thread of a subreaper.
    """
    try:
        return {int(word) for word in _read_proc("/proc/self/task/%d/children" % os.getpid()).split()}
    except OSError:
        return None


def has_mark(pid: int, mark: bytes) -> bool:
    """True if `NAME=value` stands in the environment that the process was started with."""
    try:
        return mark in _read_proc("/proc/%d/environ" % pid).split(b"\0")
    except OSError:
        return False


def send(name: Name, number: int) -> None:
    """Signal exactly this process; one that is gone needs none."""
    found = look_at(name.pid)
    if found is None or found.start != name.start:
        return
    try:
        os.kill(name.pid, number)
    except ProcessLookupError:
        pass


def sweep(find: Callable[[], FrozenSet[Name]], reap: Callable[[], None], limit_s: float = SWEEP_S) -> int:
    """SIGSTOP, then SIGKILL what `find` sees, until it sees nothing. Returns how many are left after `limit_s`.

    Stopping first keeps a tree that forks all the time from outrunning the search.
    """
    end = time.monotonic() + limit_s
    stopped: Set[Name] = set()
    while True:
        found = find()
        if not found:
            return 0
        fresh = [name for name in found if name not in stopped]
        for name in fresh:
            send(name, signal.SIGSTOP)
        stopped.update(fresh)
        if not fresh or time.monotonic() > end:
            for name in found:
                send(name, signal.SIGKILL)
            reap()
            if time.monotonic() > end:
                return len(find())
            time.sleep(_SWEEP_PAUSE_S)


def owned_by(uid: int) -> Callable[[int], bool]:
    """Whether a process is this user's; one that is gone is nobody's."""

    def owned(pid: int) -> bool:
        try:
            return os.stat("/proc/%d" % pid).st_uid == uid
        except OSError:
            return False

    return owned


def foreign(seen: Mapping[int, Seen], mine: int, owned: Callable[[int], bool]) -> FrozenSet[Name]:
    """Live processes that began after process `mine`, are not below it, and are `owned`. Pure but for that look."""
    if mine not in seen:
        return frozenset()
    own = descendants(seen, [mine]) | {mine}
    late = (item for item in seen.values() if item.start > seen[mine].start and item.pid not in own)
    return frozenset(
        Name(item.pid, item.start) for item in late if item.state not in "ZX" and owned(item.pid)
    )


def without_trees(names: FrozenSet[Name], seen: Mapping[int, Seen], roots: Iterable[int]) -> FrozenSet[Name]:
    """Those that are neither one of `roots` nor below one. Pure."""
    tops = set(roots)
    spared = tops | descendants(seen, tops)
    return frozenset(name for name in names if name.pid not in spared)


def read_proc(pid: int, name: str) -> bytes:
    """Content of /proc/PID/NAME, empty for a process that is gone or another user's."""
    try:
        return _read_proc("/proc/%d/%s" % (pid, name))
    except OSError:
        return b""


def live_descendants(mine: int, spared: Optional[int] = None) -> FrozenSet[Name]:
    """Everything alive below process `mine`, without process `spared` and all below that."""
    seen = snapshot()
    below = descendants(seen, [mine])
    if spared is not None:
        below -= {spared} | descendants(seen, [spared])
    return frozenset(Name(pid, seen[pid].start) for pid in below if seen[pid].state not in "ZX")


def reap_all(note: Callable[[int, int, object], None]) -> None:
    """Collect every child that has ended: `note(pid, status, rusage)`, also for adopted ones."""
    while True:
        try:
            pid, status, usage = os.wait4(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        note(pid, status, usage)
