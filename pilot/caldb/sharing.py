"""One directory, one calibration server, any number of users: who may remove it, and how all hear of the server.

Users are the agents of one batch job on a node, mostly one. Each holds a shared lock on `users.lock`, which the kernel
takes back however a user ends. The keeper holds `keeper.lock` and tells on `k.sock` what it says to its own agent.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import shutil
import socket
import stat
import threading
from collections.abc import Iterator
from typing import List, Optional

USERS, KEEPER, TOLD = "users.lock", "keeper.lock", "k.sock"
_LOCKS = (USERS, KEEPER)


def join(directory: str) -> int:
    """Become a user: the descriptor that holds the shared lock; the directory (0700) is made if it is not there.

    Raises OSError, also if what is there is another user's or open to others.
    """
    while True:
        with contextlib.suppress(FileExistsError):
            os.mkdir(directory, 0o700)
        _check_own(directory)
        path = os.path.join(directory, USERS)
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        except FileNotFoundError:
            continue  # the last user was just removing it
        fcntl.flock(fd, fcntl.LOCK_SH)
        if _is_at(fd, path):
            return fd
        os.close(fd)


def _check_own(directory: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        found = os.lstat(directory)
        if not stat.S_ISDIR(found.st_mode) or found.st_uid not in _owners() or found.st_mode & 0o077:
            raise OSError("%s is not a directory of this user alone" % directory)


def _owners() -> Iterator[int]:
    """Who may own it: this user; of root's (the demo) also whom the server runs as."""
    yield os.geteuid()
    if os.geteuid() == 0:
        with contextlib.suppress(KeyError):
            yield pwd.getpwnam("nobody").pw_uid


def _is_at(fd: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False


def in_use(directory: str) -> bool:
    """Whether somebody holds the shared lock. A keeper that removes the directory holds the exclusive one."""
    with _opened(directory) as fd:
        return fd is not None and not _locks(fd, fcntl.LOCK_EX) and _locks(fd, fcntl.LOCK_SH)


def remove_unused(directory: str) -> None:
    """Remove the directory unless it is in use. Raises nothing."""
    with contextlib.suppress(OSError), _opened(directory) as fd:
        if fd is None or _locks(fd, fcntl.LOCK_EX):
            shutil.rmtree(directory, ignore_errors=True)


def await_unused(directory: str) -> None:
    """Returns when nobody holds the shared lock."""
    with _opened(directory) as fd:
        if fd is not None:
            fcntl.flock(fd, fcntl.LOCK_EX)


@contextlib.contextmanager
def _opened(directory: str) -> Iterator[Optional[int]]:
    try:
        fd = os.open(os.path.join(directory, USERS), os.O_RDWR)
    except FileNotFoundError:
        yield None
        return
    try:
        yield fd
    finally:
        os.close(fd)


def _locks(fd: int, kind: int) -> bool:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def take(directory: str) -> Optional[int]:
    """Become the keeper: the descriptor that holds the lock, None if there is one."""
    fd = os.open(os.path.join(directory, KEEPER), os.O_RDWR | os.O_CREAT, 0o600)
    if not _locks(fd, fcntl.LOCK_EX):
        os.close(fd)
        return None
    os.ftruncate(fd, 0)
    os.write(fd, b"%d\n" % os.getpid())
    return fd


def keeper_pid(directory: str) -> Optional[int]:
    """The living keeper of a directory that is in use, None without."""
    if not in_use(directory):
        return None
    try:
        fd = os.open(os.path.join(directory, KEEPER), os.O_RDWR)
    except FileNotFoundError:
        return None
    try:
        text = os.read(fd, 32).strip()
        return int(text) if text.isdigit() and not _locks(fd, fcntl.LOCK_EX) else None
    finally:
        os.close(fd)


def clear(directory: str) -> None:
    """Remove everything in it but the locks: of a former keeper, or of one that gave up while others hold theirs."""
    with contextlib.suppress(OSError):
        for entry in os.scandir(directory):
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)
            elif entry.name not in _LOCKS:
                with contextlib.suppress(OSError):
                    os.unlink(entry.path)


class Told:
    """The keeper's side of `k.sock`: whoever connects gets the last line, then every further one.

    It and `hear` are called in the directory.
    """

    def __init__(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(TOLD)
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(TOLD)
        self._socket.listen()
        self._lock = threading.Lock()
        self._last = b""
        self._heard: List[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            follower = self._socket.accept()[0]
            follower.setblocking(False)
            with self._lock:
                self._heard.append(follower)
                self._send(follower, self._last)

    def say(self, line: bytes) -> None:
        """To all followers, those of later included."""
        with self._lock:
            self._last = line
            for follower in self._heard[:]:
                self._send(follower, line)

    def _send(self, follower: socket.socket, line: bytes) -> None:
        try:
            follower.sendall(line)
        except OSError:  # it ended; one that does not read its few lines is no better
            self._heard.remove(follower)
            follower.close()


def hear() -> Iterator[bytes]:
    """The lines of the keeper until it ends. Raises OSError: there is none, or it has only just begun."""
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as told:
        told.connect(TOLD)
        with told.makefile("rb") as lines:
            yield from lines
