"""What is left behind: processes, listening sockets, mounts, files in /tmp and /dev/shm, before and after.

Made by a child subreaper: whatever escapes its parent becomes a child of this process and is found. Everything
counted was caused by this run: a descendant, a socket that a descendant holds, a mount or file that appeared.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pilot.caldb.prctl import become_subreaper

WATCHED = (Path("/tmp"), Path("/dev/shm"))
_LISTEN = "0A"


@dataclass(frozen=True, slots=True)
class Seen:
    """One look. `files`: entries of the watched directories with inode; `sockets`: inodes of listening sockets."""

    descendants: frozenset[int]
    sockets: frozenset[int]
    mounts: frozenset[str]
    files: frozenset[tuple[str, int]]


def become_watcher() -> None:
    """Take over orphans of all descendants from now on."""
    become_subreaper()


def look() -> Seen:
    """Look at the machine now."""
    children = descendants(os.getpid())
    return Seen(frozenset(children), listening(), mounts(), entries(WATCHED))


def reap() -> None:
    """Collect ended orphans that were taken over, so that a defunct process is not counted."""
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return


def descendants(root: int) -> set[int]:
    """All live processes below `root`, defunct ones not counted."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            fields = _stat(int(name))
            if fields is not None and fields[0] != "Z":
                children.setdefault(int(fields[1]), []).append(int(name))
    found: set[int] = set()
    waiting = [root]
    while waiting:
        for child in children.get(waiting.pop(), ()):
            if child not in found:
                found.add(child)
                waiting.append(child)
    return found


def _stat(pid: int) -> list[str] | None:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


def listening() -> frozenset[int]:
    """Inodes of listening TCP and unix sockets."""
    found: set[int] = set()
    for name in ("tcp", "tcp6"):
        for line in _lines(f"/proc/net/{name}"):
            fields = line.split()
            if len(fields) > 9 and fields[3] == _LISTEN:
                found.add(int(fields[9]))
    for line in _lines("/proc/net/unix"):
        fields = line.split()
        if len(fields) > 6 and int(fields[3], 16) & 0x10000:
            found.add(int(fields[6]))
    return frozenset(found)


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()[1:]
    except OSError:
        return []


def mounts() -> frozenset[str]:
    """Mount points of this process' namespace."""
    return frozenset(line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines())


def entries(directories: Iterable[Path]) -> frozenset[tuple[str, int]]:
    """Names and inodes in the watched directories, of this user and of the account that servers are dropped to."""
    owners = {os.geteuid(), 65534}
    found: set[tuple[str, int]] = set()
    for directory in directories:
        with os.scandir(directory) as scan:
            for item in scan:
                try:
                    if item.stat(follow_symlinks=False).st_uid in owners:
                        found.add((item.path, item.inode()))
                except OSError:
                    continue  # gone meanwhile
    return frozenset(found)


def held_sockets(pids: Iterable[int]) -> frozenset[int]:
    """Inodes of sockets that these processes hold."""
    found: set[int] = set()
    for pid in pids:
        try:
            links = [os.readlink(f"/proc/{pid}/fd/{name}") for name in os.listdir(f"/proc/{pid}/fd")]
        except OSError:
            continue
        found.update(int(link[8:-1]) for link in links if link.startswith("socket:["))
    return frozenset(found)


def left_behind(
    before: Seen, after: Seen, held: frozenset[int], mine: str, ours: frozenset[str]
) -> list[str]:
    """What this run left, one line each. Pure.

    `held`: sockets of the processes left. `mine`: prefix of this clone's names; entries of other demos and of
    running test sessions (`ours` lists their prefixes) are not this run's.
    """
    lines = [f"process {pid}" for pid in sorted(after.descendants - before.descendants)]
    lines += [f"listening socket {inode}" for inode in sorted((after.sockets - before.sockets) & held)]
    lines += [f"mount {path}" for path in sorted(after.mounts - before.mounts)]
    for path, _ in sorted(after.files - before.files):
        name = path.rpartition("/")[2]
        if name.startswith(mine) or not any(name.startswith(prefix) for prefix in ours):
            lines.append(f"file {path}")
    return lines
