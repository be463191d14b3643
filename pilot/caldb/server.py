"""A calibration server of a node as a process: found, started, proved by a query, stopped."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import time
from typing import Any, Optional, Protocol, Sequence

from pilot.caldb import plan as plans
from pilot.caldb.plan import Address, KeeperPlan
from pilot.caldb.prctl import die_with_parent
from pilot.caldb.query import QueryFailed, first_value
from pilot.caldb.unpack import KeeperFailed

# SIGTERM to exit took 8 to 132 ms; after this it gets SIGKILL. The data are a copy.
STOP_S = 5.0
SERVER_PLACES = ("/usr/sbin", "/usr/libexec", "/usr/local/sbin", "/usr/local/libexec", "/usr/local/mysql/bin")


def find_server(wanted: Optional[str]) -> str:
    """Path of the server's executable. Raises KeeperFailed."""
    if wanted is not None:
        if not os.access(wanted, os.X_OK):
            raise KeeperFailed("no calibration server: %s is not an executable" % wanted)
        return wanted
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), *SERVER_PLACES))
    found = shutil.which("mariadbd", path=path)
    if found is None:
        raise KeeperFailed(
            "no calibration server: mariadbd is neither on PATH nor in %s" % ", ".join(SERVER_PLACES)
        )
    return found


def find_share(executable: str) -> Optional[str]:
    """Directory of messages and character sets beside the executable, None if the server has to know it."""
    prefix = os.path.dirname(os.path.dirname(os.path.realpath(executable)))
    for name in ("mysql", "mariadb"):
        share = os.path.join(prefix, "share", name)
        if os.path.exists(os.path.join(share, "charsets", "Index.xml")):
            return share
    return None


def user_for(directory: str) -> Optional[str]:
    """`--user` of a server that is to work in this directory (plan.server_user)."""
    try:
        nobody: Optional[int] = pwd.getpwnam("nobody").pw_uid
    except KeyError:
        nobody = None
    parents, above = [], os.path.dirname(os.path.realpath(directory))
    while True:
        found = os.stat(above)
        parents.append((stat.S_IMODE(found.st_mode), found.st_uid))
        if above == os.path.dirname(above):
            break
        above = os.path.dirname(above)
    return plans.server_user(os.geteuid(), parents, nobody)


def give_to(user: Optional[str], directory: str) -> None:
    """The directory and everything in it belong to this user (None or root: nothing to do)."""
    if user is None or user == "root":
        return
    entry = pwd.getpwnam(user)
    for above, _, names in os.walk(directory):
        for path in (above, *(os.path.join(above, name) for name in names)):
            os.lchown(path, entry.pw_uid, entry.pw_gid)


def available_bytes() -> Optional[int]:
    """Memory that is free or can be freed, None where the kernel does not tell."""
    with contextlib.suppress(OSError), open("/proc/meminfo", "rb") as file:
        for line in file:
            if line.startswith(b"MemAvailable:"):
                return int(line.split()[1]) * 1024
    return None


def log_tail(directory: str) -> str:
    """The server's last words."""
    try:
        with open(os.path.join(directory, "mariadbd.log"), "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 4 * plans.LOG_CHARACTERS))
            return file.read().decode("utf-8", "replace")[-plans.LOG_CHARACTERS :]
    except OSError:
        return ""


def die_with_keeper() -> None:
    """In the server's process, before it becomes the server."""
    die_with_parent(signal.SIGKILL)


class Waiting(Protocol):
    """How a wait for a server can be ended early. `stopping`: it is not wanted any more."""

    stopping: bool

    def wait(self, timeout_s: Optional[float], *others: Any) -> list[Any]:
        """Sleep until something happens or the time is over; returns those of `others` that can be read."""


class Server:
    """One calibration server process at a time, in the directory of a plan."""

    def __init__(self, plan: KeeperPlan, wake: Waiting) -> None:
        self._plan, self._wake = plan, wake
        if plan.own_server:
            self._words: Sequence[str] = plans.own_server_words(plan.directory)
            self._share: Optional[str] = os.path.join(plan.directory, plans.OWN_SERVER, "share")
        else:
            self._words = (find_server(plan.server),)
            self._share = find_share(self._words[0])
        self._user = user_for(plan.directory)
        self.address = Address(os.path.join(plan.directory, "s.sock"))
        self.process: Optional[subprocess.Popen[bytes]] = None
        self._listener: Optional[socket.socket] = None
        self._ready = False
        reason = plans.check_socket_path(self.address.socket)
        if reason is not None:
            raise KeeperFailed(reason)

    def start(self, new_port: bool) -> None:
        """Start it and wait until it answers the probe rightly. Raises KeeperFailed."""
        self.spawn(new_port)
        self.await_answer()

    def spawn(self, new_port: bool) -> None:
        """Start it; of its data only the system tables need be there."""
        plan = self._plan
        if plan.access == "tcp" and (new_port or self.address.port is None):
            self.address = Address(self.address.socket, _free_port())
        _write_new(os.path.join(plan.directory, "client.cnf"), plans.option_file(self.address))
        notify = os.path.join(plan.directory, "notify")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(notify)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._listener.bind(notify)
        self._ready = False
        give_to(self._user, plan.directory)
        cache, port = plans.query_cache_mib(available_bytes(), plan.runs), self.address.port
        argv = plans.server_argv(
            self._words, self._share, plan.directory, port, self._user, cache, plan.slots
        )
        self.process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=plan.directory,
            env={"NOTIFY_SOCKET": notify, "PATH": os.defpath, "LANG": "C"},
            preexec_fn=die_with_keeper,
        )

    def await_answer(self) -> None:
        """All data are there: wait until it answers the probe rightly. Raises KeeperFailed."""
        assert self._listener is not None
        with contextlib.closing(self._listener) as listener:
            self._listener = None
            give_to(self._user, os.path.join(self._plan.directory, "dd"))
            self._await_ready(listener)
        self._probe()

    def _await_ready(self, listener: socket.socket) -> None:
        end = time.monotonic() + self._plan.ready_s
        while not self._wake.stopping:
            if not self.runs():
                raise KeeperFailed("the calibration server ended while it started")
            left = end - time.monotonic()
            if left <= 0:
                raise KeeperFailed("the calibration server was not ready in %.0f s" % self._plan.ready_s)
            if listener in self._wake.wait(left, listener) and b"READY=1" in listener.recv(4096):
                self._ready = True
                return
        raise KeeperFailed("stopped while the calibration server started")

    def _probe(self) -> None:
        plan = self._plan
        try:
            answer = first_value(self.address, plans.ACCOUNT, plans.DATABASE, plan.probe_sql)
        except (OSError, QueryFailed) as error:
            raise KeeperFailed("the probe failed: %s" % error) from error
        reason = plans.check_probe(answer, plan.probe_expect)
        if reason is not None:
            raise KeeperFailed(reason)

    def runs(self) -> bool:
        """Whether the process is there."""
        return self.process is not None and self.process.poll() is None

    def stop(self) -> None:
        """SIGTERM, then SIGKILL; returns when it is gone. One that is not ready may lose a SIGTERM: none is sent."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        if self.process is None or self.process.poll() is not None:
            return
        if self._ready:
            self.process.terminate()
        else:
            self.process.kill()
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def _free_port() -> int:
    with contextlib.closing(socket.socket(socket.AF_INET)) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _write_new(path: str, text: str) -> None:
    temp = path + ".tmp"
    with open(os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    os.rename(temp, path)
