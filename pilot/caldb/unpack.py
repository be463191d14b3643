"""A snapshot on its way into the node's memory: read once, front to end; summed from the copy while others go on."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import queue
import tarfile
import threading
from collections.abc import Callable

from pilot.caldb import plan as plans

# One large request per 4 MiB of the snapshot: few, sequential calls are what a parallel filesystem likes.
PIECE_BYTES = 4 * 1024 * 1024
# What is summed, and copied where the kernel cannot do it alone, goes through a buffer that stays in the cores' caches.
BUFFER_BYTES = 256 * 1024
# The sum is wanted soon, the server and the copy at once.
SUM_NICE = 10
# Errors of sendfile(2) between files of which one cannot be spliced.
_CANNOT_SPLICE = frozenset((errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP))


class KeeperFailed(Exception):
    """No calibration server; the text is the reason."""


class SnapshotSum:
    """The SHA-256 of a snapshot, made by a thread from what was unpacked, in the order of the file.

    Large members are read back from the copy: what is proved is what is served, and the snapshot is read once.
    """

    def __init__(self) -> None:
        self._sha = hashlib.sha256()
        self._parts: queue.SimpleQueue[bytes | str | None] = queue.SimpleQueue()
        self._on_end: Callable[[], None] | None = None
        self._lock = threading.Lock()
        self._digest: str | None = None
        self._error: OSError | None = None
        self._thread = threading.Thread(target=self._sum, daemon=True)
        self._thread.start()

    def add(self, part: bytes | str) -> None:
        """What comes next: these bytes, or the whole content of the file with this path."""
        self._parts.put(part)

    def close(self) -> None:
        """Nothing comes any more."""
        self._parts.put(None)

    def call_at_end(self, call: Callable[[], None]) -> None:
        """Call it once, in a thread, when the sum is known."""
        with self._lock:
            if self._digest is None:
                self._on_end = call
                return
        call()

    def known(self) -> str | None:
        """The digest, None while it is not known. Raises OSError: the copy could not be read."""
        if self._error is not None:
            raise self._error
        return self._digest

    def wait(self) -> str:
        """The digest. Raises OSError."""
        self._thread.join()
        digest = self.known()
        assert digest is not None
        return digest

    def _sum(self) -> None:
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), SUM_NICE)
        try:
            buffer = memoryview(bytearray(BUFFER_BYTES))
            while True:
                part = self._parts.get()
                if part is None:
                    break
                if isinstance(part, bytes):
                    self._sha.update(part)
                else:
                    self._add_file(part, buffer)
        except OSError as error:
            self._error = error
        with self._lock:
            self._digest = self._sha.hexdigest()
            call = self._on_end
        if call is not None:
            call()

    def _add_file(self, path: str, buffer: memoryview) -> None:
        with open(path, "rb", buffering=0) as file:
            count = file.readinto(buffer)
            while count:
                self._sha.update(buffer[:count])
                count = file.readinto(buffer)


class Source:
    """A snapshot that is read from front to end; `at` is where."""

    def __init__(self, path: str, fd: int) -> None:
        self._path, self._fd, self.at = path, fd, 0

    def read(self, size: int) -> bytes:
        """This many bytes. Raises KeeperFailed at an early end."""
        found = os.pread(self._fd, size, self.at)
        while len(found) < size:
            more = os.pread(self._fd, size - len(found), self.at + len(found))
            if not more:
                raise KeeperFailed(f"snapshot {self._path} is truncated")
            found += more
        self.at += size
        return found

    def rest(self) -> bytes:
        """Everything up to the end. Raises KeeperFailed: more than what fills up a tar."""
        left = os.fstat(self._fd).st_size - self.at
        if left > PIECE_BYTES:
            raise KeeperFailed(f"snapshot {self._path} is damaged: {left} bytes follow its end")
        return self.read(left)

    def copy(self, target: int, size: int) -> None:
        """This many bytes into an open file: by the kernel alone, which costs half of reading and writing them."""
        end = self.at + size
        while self.at < end:
            try:
                count = os.sendfile(target, self._fd, self.at, min(PIECE_BYTES, end - self.at))
            except OSError as error:
                if error.errno not in _CANNOT_SPLICE:
                    raise
                self._copy_by_hand(target, end)
                return
            if not count:
                raise KeeperFailed(f"snapshot {self._path} is truncated")
            self.at += count

    def _copy_by_hand(self, target: int, end: int) -> None:
        while self.at < end:
            _write(target, self.read(min(BUFFER_BYTES, end - self.at)))


def _write(fd: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(fd, view) :]


def unpack_snapshot(
    snapshot: str, target: str, system_is_there: Callable[[], None] = lambda: None
) -> SnapshotSum:
    """Unpack a tar into the new directory `target`; returns the sum of the tar, which may not be known yet.

    Raises KeeperFailed, OSError. A server inside it (`plan.OWN_SERVER`) is put beside `target`, which is its data
    directory.

    `system_is_there` is called once between the server's system tables and the calibrations, if they come in this
    order, as `pilot caldb build` packs them.

    A loop of its own over the headers: every byte is read once and forward, in pieces as large as the file has them,
    which `tarfile` does not do for a file that it may not seek in (0.2 to 0.4 s more for 300 MB).
    """
    os.mkdir(target, 0o700)
    total = SnapshotSum()
    fd = os.open(snapshot, os.O_RDONLY)
    try:
        source = Source(snapshot, fd)
        system = called = False
        while True:
            block = source.read(tarfile.BLOCKSIZE)
            total.add(block)
            if block == tarfile.NUL * tarfile.BLOCKSIZE:
                total.add(source.rest())
                return total
            try:
                member = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
            except tarfile.TarError as error:
                raise KeeperFailed(f"snapshot {snapshot} is damaged: {error}") from error
            top = member.name.partition("/")[0]
            system = system or top == "mysql"
            if system and top == plans.DATABASE and not called:
                called = True
                system_is_there()
            _unpack_member(source, total, member, target)
    finally:
        total.close()
        os.close(fd)


def _unpack_member(source: Source, total: SnapshotSum, member: tarfile.TarInfo, target: str) -> None:
    refused = plans.check_member(member.name, member.isreg(), member.isdir())
    if refused is not None:
        raise KeeperFailed(refused)
    top = member.name.partition("/")[0]
    path = os.path.join(os.path.dirname(target) if top == plans.OWN_SERVER else target, member.name)
    if member.isdir():
        os.makedirs(path, 0o700, exist_ok=True)
        return
    os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, member.mode & 0o700)
    try:
        if top in (plans.OWN_SERVER, plans.DATABASE):
            source.copy(fd, member.size)
            total.add(path)
        else:  # the server, which starts before these are summed, writes to some of them
            _copy_small(source, total, fd, member.size)
    finally:
        os.close(fd)
    total.add(source.read(-member.size % tarfile.BLOCKSIZE))


def _copy_small(source: Source, total: SnapshotSum, fd: int, size: int) -> None:
    end = source.at + size
    while source.at < end:
        piece = source.read(min(PIECE_BYTES, end - source.at))
        _write(fd, piece)
        total.add(piece)


def copy_snapshot(snapshot: str, target: str) -> SnapshotSum:
    """Copy a one-file snapshot to a new file; returns its sum, which may not be known yet. Raises OSError."""
    total = SnapshotSum()
    source_fd = os.open(snapshot, os.O_RDONLY)
    try:
        fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            Source(snapshot, source_fd).copy(fd, os.fstat(source_fd).st_size)
        finally:
            os.close(fd)
        total.add(target)
        return total
    finally:
        total.close()
        os.close(source_fd)


def probe_file(path: str, sql: str) -> str | None:
    """First value of a query on an SQLite snapshot, None without a row. Raises KeeperFailed."""
    try:
        import sqlite3  # only here: not every interpreter of a compute node was built with it
    except ImportError as error:
        raise KeeperFailed(f"this interpreter has no sqlite3: {error}") from error
    try:
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)) as database:
            row = database.execute(sql).fetchone()
    except sqlite3.Error as error:
        raise KeeperFailed(f"the probe failed: {error}") from error
    return None if row is None or row[0] is None else str(row[0])
