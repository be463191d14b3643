"""Whether a node can work at all: asked of one that failed before, ahead of its first payload."""

from __future__ import annotations

import os
import signal
import time
from typing import Callable, Mapping, Optional, Sequence

from pilot.multijob.node.files import write_all
from pilot.multijob.node.journal import escape
from pilot.multijob.node.spawn import spawn

# More than what a node's memory or disk takes into a buffer by chance, and written in no time.
PROBE_BYTES = 4 * 1024 * 1024
SAID_CHARACTERS = 200


def probe_node(
    directory: str,
    argv: Sequence[str],
    environment: Mapping[str, str],
    limit_s: float,
    wait: Callable[[float], bool],
) -> Optional[str]:
    """Write and read below `directory`, then run the command as a payload is run. Returns why the node is not fit.

    `wait` sleeps for at most so many seconds and ends when a child does; False: the command is not to go on.
    """
    path = os.path.join(directory, "probe")
    try:
        _write_and_read(path)
        return _run(path, argv, environment, directory, limit_s, wait) if argv else None
    except (OSError, ValueError) as error:
        return str(error)
    finally:
        try:
            os.unlink(path)
        except OSError:
            pass  # it goes with the directory


def _write_and_read(path: str) -> None:
    content = os.urandom(PROBE_BYTES)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        write_all(fd, content)
        os.fsync(fd)
        found = b""
        while len(found) < PROBE_BYTES:
            piece = os.pread(fd, PROBE_BYTES - len(found), len(found))
            if not piece:
                break
            found += piece
        if found != content:
            raise OSError("%s: what was written is not what is read" % path)
    finally:
        os.close(fd)


def _run(
    path: str,
    argv: Sequence[str],
    environment: Mapping[str, str],
    directory: str,
    limit_s: float,
    wait: Callable[[float], bool],
) -> Optional[str]:
    said = os.open(path, os.O_RDWR | os.O_TRUNC)
    try:
        pid = spawn(argv, environment, directory, said, said)
        status = _await_end(pid, time.monotonic() + limit_s, wait)
        if status is None:
            return "%s did not end in %.0f s" % (argv[0], limit_s)
        if status == 0:
            return None
        by_signal = os.WIFSIGNALED(status)
        how = "signal %d" % os.WTERMSIG(status) if by_signal else "exit code %d" % os.WEXITSTATUS(status)
        last = os.pread(said, SAID_CHARACTERS, max(0, os.fstat(said).st_size - SAID_CHARACTERS))
        return "%s ended with %s: %s" % (argv[0], how, escape(last.decode("utf-8", "replace")))
    finally:
        os.close(said)


def _await_end(pid: int, end: float, wait: Callable[[float], bool]) -> Optional[int]:
    """Its status; None: it was killed, with its process group."""
    while True:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found == pid:
            return status
        left_s = end - time.monotonic()
        if left_s <= 0 or not wait(left_s):
            os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return None
