"""The keeper of a node's calibration server: unpack the snapshot, start the server, prove it, keep it, remove it.

A process of its own below the agent. It serves all that hold `users.lock` in its directory (`sharing`); when the last
one has let go, however it ended, it stops the server, removes the directory and exits. It says what happens on its
standard output, one JSON object a line: `ready`, `restarted`, `failed`. `ready` is said again, then `proved`, when the
checksum of the snapshot is known to be right: it is made while the first payloads start. A second keeper in the same
directory says `following`, then what the first one says, and takes over when that one is gone.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import socket
import sys
import threading
import time
from typing import IO, Any, Callable, Optional

from pilot.caldb import plan as plans
from pilot.caldb import sharing
from pilot.caldb.plan import Address, KeeperPlan
from pilot.caldb.prctl import die_with_parent
from pilot.caldb.server import Server, available_bytes, log_tail
from pilot.caldb.unpack import KeeperFailed, SnapshotSum, copy_snapshot, probe_file, unpack_snapshot

Say = Callable[..., None]
# Between a keeper's lock and its socket, or between its death and the next look: microseconds on a live node.
ASK_AGAIN_S = 0.005
NO_SIGNAL = 0


class Wake:
    """What ends a wait early: a child's end, SIGTERM, the last user that let go of the lock, a call."""

    def __init__(self, users_lock: str) -> None:
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self.stopping = self.unused = False
        signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._stop)
        self._users = os.open(users_lock, os.O_RDWR)
        threading.Thread(target=self._await_users, daemon=True).start()

    def _stop(self, *_: object) -> None:
        self.stopping = True

    def _await_users(self) -> None:
        fcntl.flock(self._users, fcntl.LOCK_EX)
        self.stopping = self.unused = True
        self.call()

    def call(self) -> None:
        """From any thread: end the wait."""
        with contextlib.suppress(OSError):
            self._writer.send(b"c")

    def wait(self, timeout_s: Optional[float], *others: Any) -> list[Any]:
        """Sleep until something happens or the time is over; returns those of `others` that can be read."""
        if self.stopping:
            return []
        ready, _, _ = select.select([self._reader, *others], [], [], timeout_s)
        with contextlib.suppress(BlockingIOError):
            while self._reader.recv(4096):
                pass
        return [item for item in ready if item is not self._reader]


def keep(plan: KeeperPlan, out: IO[str] = sys.stdout) -> int:
    """The keeper's whole life. Exit code: 0 after an orderly end, 1 without a server."""

    def say(kind: str, **body: Any) -> None:
        with contextlib.suppress(OSError, ValueError):
            out.write(json.dumps({"kind": kind, **body}) + "\n")
            out.flush()

    deaths = 0
    try:
        # From here a socket's name is short, however long the directory's path is.
        os.chdir(plan.directory)
    except FileNotFoundError:  # all have let go, and it is removed
        return 0
    while sharing.in_use(plan.directory):
        if sharing.take(plan.directory) is not None:
            die_with_parent(NO_SIGNAL)
            return _keep(plan, say, deaths)
        if deaths == 0:
            say("following")
            # Who only follows has nothing that others need: it goes with its agent.
            die_with_parent(signal.SIGTERM)
        last = _follow(say)
        if last is None:
            time.sleep(ASK_AGAIN_S)
        elif last == "failed":
            return 1
        else:
            deaths += 1
    return 0


def _follow(say: Say) -> Optional[str]:
    """Say what the keeper says until it ends: the last kind of it, "" if it said nothing, None: not heard at all."""
    last = ""
    try:
        for line in sharing.hear():
            said = json.loads(line)
            last = said.pop("kind")
            say(last, **said, shared=True)
    except (OSError, ValueError):
        return last or None
    return last


def _keep(plan: KeeperPlan, say: Say, deaths: int) -> int:
    """Keep it, `deaths` other keepers having died before."""
    sharing.clear(plan.directory)
    try:
        told = sharing.Told()
        wake = Wake(os.path.join(plan.directory, sharing.USERS))
    except OSError as error:
        say("failed", reason=str(error), log="")
        return 1

    def tell(kind: str, **body: Any) -> None:
        say(kind, **body)
        told.say(json.dumps({"kind": kind, **body}).encode() + b"\n")

    started = time.monotonic()
    try:
        if deaths:
            if not plans.may_restart(deaths, plan.restarts):
                raise KeeperFailed("the keeper of another agent ended")
            tell("restarted", count=deaths, reason="the keeper of another agent ended")
        _make_room(plan)
        if plan.backend == "sqlite":
            _keep_file(plan, wake, tell, started)
        else:
            _keep_server(plan, wake, tell, started)
        return 0
    except (KeeperFailed, OSError) as error:
        tell("failed", reason=str(error), log=log_tail(plan.directory))
        return 1
    finally:
        if wake.unused:
            shutil.rmtree(plan.directory, ignore_errors=True)
        else:
            sharing.clear(plan.directory)


def _make_room(plan: KeeperPlan) -> None:
    size = os.stat(plan.snapshot).st_size
    space = os.statvfs(plan.directory)
    in_memory = _filesystem_type(plan.directory) in ("tmpfs", "ramfs")
    reason = plans.check_space(
        size, space.f_bavail * space.f_frsize, available_bytes() if in_memory else None
    )
    if reason is not None:
        raise KeeperFailed(reason)


def _filesystem_type(directory: str) -> str:
    """Type of the mount that holds the directory, "" if it is not known."""
    device = os.stat(directory).st_dev
    with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as file:
        for line in file:
            front, _, back = line.partition(" - ")
            if front.split()[2] == "%d:%d" % (os.major(device), os.minor(device)):
                return back.split()[0]
    return ""


class WrongSnapshot(KeeperFailed):
    """It is not the snapshot that the bundle names: to start again helps nothing."""


class Ready:
    """Says that the calibrations can be asked for, then once more when it is known that they are the right ones."""

    def __init__(self, plan: KeeperPlan, say: Say, total: SnapshotSum, wake: Wake) -> None:
        self._plan, self._say, self._total = plan, say, total
        self._proved = False
        self._body: dict[str, Any] = {}
        total.call_at_end(wake.call)

    def say(self, pid: Optional[int], address: Address, started: float) -> None:
        """They can be asked for. Raises WrongSnapshot, OSError."""
        plan = self._plan
        self._proved = self._is_right()
        environment = plans.payload_environment(plan.backend, plan.directory, address)
        ready_s = round(time.monotonic() - started, 3)
        self._body = {"pid": pid, "ready_s": ready_s, "environment": environment}
        self._say("ready", **self._body, proved=self._proved)

    def look(self) -> None:
        """Whether the checksum is known by now. Raises WrongSnapshot, OSError."""
        if not self._proved and self._is_right():
            self._proved = True
            self._say("ready", **self._body, proved=True)

    def _is_right(self) -> bool:
        plan, found = self._plan, self._total.known()
        if found is not None and found != plan.sha256:
            raise WrongSnapshot(
                "snapshot %s has checksum %s, expected %s" % (plan.snapshot, found[:12], plan.sha256[:12])
            )
        return found is not None


def _keep_file(plan: KeeperPlan, wake: Wake, say: Say, started: float) -> None:
    path = plans.sqlite_path(plan.directory)
    ready = Ready(plan, say, copy_snapshot(plan.snapshot, path), wake)
    os.chmod(path, 0o444)
    reason = plans.check_probe(probe_file(path, plan.probe_sql), plan.probe_expect)
    if reason is not None:
        raise KeeperFailed(reason)
    ready.say(None, Address(""), started)
    while not wake.stopping:
        wake.wait(None)
        ready.look()


def _keep_server(plan: KeeperPlan, wake: Wake, say: Say, started: float) -> None:
    server = Server(plan, wake)
    deaths, answered = 0, False
    try:
        # It starts while the calibrations are still on their way.
        data = os.path.join(plan.directory, "dd")
        total = unpack_snapshot(plan.snapshot, data, lambda: server.spawn(new_port=True))
        ready = Ready(plan, say, total, wake)
        while not wake.stopping:
            try:
                if server.process is None or deaths:
                    server.spawn(new_port=not answered)
                server.await_answer()
                assert server.process is not None
                ready.say(server.process.pid, server.address, started)
                answered = True
                while server.runs() and not wake.stopping:
                    wake.wait(None)
                    ready.look()
                if wake.stopping:
                    return
                reason = "the calibration server ended with %s" % server.process.returncode
            except WrongSnapshot:
                raise
            except KeeperFailed as error:
                reason = str(error)
            server.stop()
            deaths += 1
            if wake.stopping:
                return
            if not plans.may_restart(deaths, plan.restarts):
                raise KeeperFailed(reason)
            started = time.monotonic()
            say("restarted", count=deaths, reason=reason)
    finally:
        server.stop()
