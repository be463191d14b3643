"""The agent's side of the calibration server: start its keeper, hear what it says, let go of it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from typing import IO, Any, Callable, Dict, List

from pilot.caldb import sharing
from pilot.caldb.plan import KeeperPlan, copy_path
from pilot.caldb.prctl import set_name
from pilot.multijob.node.manifest import BadManifest, Manifest
from pilot.multijob.node.wake import ASKS

# What a keeper says in one line (a reason and 2,000 characters of log) is far below this.
SAID_MAX_BYTES = 65536


class Database:
    """A keeper that was started for the node's payloads, in `directory`, which agents of the same batch job share.

    The shared lock on `users.lock` is what keeps the server: it is let go by `release`, or by the kernel when the
    agent dies. `follows`: another agent's keeper has the server, this one only tells of it.
    """

    def __init__(self, directory: str, keep: Callable[[IO[str]], int]) -> None:
        """`keep` is called in the keeper's process: its whole life. Raises OSError."""
        self._lock = sharing.join(directory)
        self.follows = False
        self.fd, said = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            _be_keeper(keep, said)
        os.close(said)
        os.set_blocking(self.fd, False)
        self.open = True
        self.ended = False
        self._rest = b""

    def said(self) -> List[Dict[str, Any]]:
        """What it has said since the last call; a line that is no JSON object is left out."""
        said = []
        for piece in self._read() if self.open else ():
            try:
                found = json.loads(piece)
            except ValueError:
                continue
            if isinstance(found, dict):
                self.follows = bool(found.get("shared", found.get("kind") == "following"))
                said.append(found)
        return said

    def _read(self) -> List[bytes]:
        while True:
            try:
                piece = os.read(self.fd, SAID_MAX_BYTES)
            except BlockingIOError:
                break
            if not piece:
                self.open = False
                break
            self._rest = (self._rest + piece)[-SAID_MAX_BYTES:]
        *lines, self._rest = self._rest.split(b"\n")
        return lines

    def release(self) -> None:
        """The server is not needed here any more: its keeper stops it and ends with the last one that let go."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1
            if self.follows:
                self._send(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL to its keeper."""
        self._send(signal.SIGKILL)

    def _send(self, number: int) -> None:
        if not self.ended:  # until it is reaped its number is nobody else's
            os.kill(self.pid, number)

    def note_end(self) -> None:
        """Its keeper was reaped."""
        self.ended = True


def keeper_plan(manifest: Manifest, directory: str, node: int) -> KeeperPlan:
    """What a keeper of this bundle does; `node` says whose turn at the snapshot's copies it is. Raises BadManifest."""
    caldb = manifest.caldb
    if caldb is None:
        raise BadManifest("caldb: the bundle has none")
    asked = (job.run for job in manifest.jobs.get(node, ()) if job.kind.needs_caldb)
    return KeeperPlan(
        backend=caldb.backend,
        snapshot=copy_path(caldb.snapshot, node % caldb.copies),
        sha256=caldb.sha256,
        probe_sql=caldb.probe_sql,
        probe_expect=caldb.probe_expect,
        access=caldb.access,
        server=caldb.server,
        directory=directory,
        ready_s=manifest.limits.caldb_ready_s,
        restarts=manifest.limits.caldb_restarts,
        own_server=caldb.own_server,
        runs=len({run for run in asked if run is not None}),
        slots=manifest.slots,
    )


def _close_all_but_streams() -> None:
    """The shared lock above all: kept open here it would outlive the agent."""
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the listing's own
            if int(name) > 2:
                os.close(int(name))


def _be_keeper(keep: Callable[[IO[str]], int], said: int) -> None:
    """In the child: a session of its own, nothing of the agent's but what it is told. An interpreter of its own would
    cost half as much time as the copy of 300 MB."""
    code = 1
    try:
        set_name("keeper")
        os.setsid()
        signal.set_wakeup_fd(-1)
        for number in (*ASKS, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(said, 1)
        _close_all_but_streams()
        with open(1, "w", encoding="utf-8") as out:
            code = keep(out)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(code)
