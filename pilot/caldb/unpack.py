"""A snapshot on its way into the node's memory: read once, in large pieces, summed while it is unpacked."""

from __future__ import annotations

import contextlib
import hashlib
import os
import queue
import tarfile
import threading
from collections.abc import Callable
from typing import IO

from pilot.caldb import plan as plans

# One large read per 4 MiB of the snapshot: few, sequential calls are what a parallel filesystem likes.
READ_BYTES = 4 * 1024 * 1024
# Blocks that are read and not summed yet: the copy may run ahead of the sum, not away from it.
BLOCKS_AHEAD = 8


class KeeperFailed(Exception):
    """No calibration server; the text is the reason."""


class SnapshotReader:
    """A file that is read once from front to end in large blocks, while a thread sums them."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._sha = file, hashlib.sha256()
        self._block, self._at = memoryview(b""), 0
        self._blocks: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._room = threading.Semaphore(BLOCKS_AHEAD)
        self._thread = threading.Thread(target=self._sum, daemon=True)
        self._thread.start()

    def _sum(self) -> None:
        for block in iter(self._blocks.get, b""):
            self._sha.update(block)
            self._room.release()

    def read(self, size: int = READ_BYTES) -> memoryview:
        """At most `size` bytes, fewer where a block ends; empty at the end."""
        if self._at == len(self._block):
            block = self._file.read(READ_BYTES)
            self._block, self._at = memoryview(block), 0
            if block:
                self._room.acquire()
                self._blocks.put(block)
        piece = self._block[self._at : self._at + size]
        self._at += len(piece)
        return piece

    def exactly(self, size: int) -> bytes:
        """This many bytes. Raises KeeperFailed at an early end."""
        found = b""
        while len(found) < size:
            piece = self.read(size - len(found))
            if not piece:
                raise KeeperFailed("snapshot is truncated")
            found += piece
        return found

    def finish(self) -> str:
        """Reads what is left and returns the SHA-256 of the whole file."""
        while self.read():
            pass
        self._blocks.put(b"")
        self._thread.join()
        return self._sha.hexdigest()


def unpack_snapshot(snapshot: str, target: str, system_is_there: Callable[[], None] = lambda: None) -> str:
    """Unpack a tar into the new directory `target`; returns the SHA-256 of the tar. Raises KeeperFailed, OSError.

    A server inside it (`plan.OWN_SERVER`) is put beside `target`, which is its data directory.

    `system_is_there` is called once between the server's system tables and the calibrations, if they come in this
    order, as `pilot caldb build` packs them.

    A loop of its own over the headers: every byte is read once and forward, in pieces as large as the file has them,
    which `tarfile` does not do for a file that it may not seek in (0.2 to 0.4 s more for 300 MB).
    """
    os.mkdir(target, 0o700)
    with open(snapshot, "rb", buffering=0) as file:
        reader = SnapshotReader(file)
        system = called = False
        while True:
            block = reader.exactly(tarfile.BLOCKSIZE)
            if block == tarfile.NUL * tarfile.BLOCKSIZE:
                return reader.finish()
            try:
                member = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
            except tarfile.TarError as error:
                raise KeeperFailed(f"snapshot {snapshot} is damaged: {error}") from error
            top = member.name.partition("/")[0]
            system = system or top == "mysql"
            if system and top == plans.DATABASE and not called:
                called = True
                system_is_there()
            _unpack_member(reader, member, target)


def _unpack_member(reader: SnapshotReader, member: tarfile.TarInfo, target: str) -> None:
    refused = plans.check_member(member.name, member.isreg(), member.isdir())
    if refused is not None:
        raise KeeperFailed(refused)
    below = os.path.dirname(target) if member.name.partition("/")[0] == plans.OWN_SERVER else target
    path = os.path.join(below, member.name)
    if member.isdir():
        os.makedirs(path, 0o700, exist_ok=True)
        return
    os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, member.mode & 0o700), "wb") as file:
        left = member.size
        while left:
            piece = reader.read(min(left, READ_BYTES))
            if not piece:
                raise KeeperFailed(f"snapshot is truncated in {member.name}")
            file.write(piece)
            left -= len(piece)
    reader.exactly(-member.size % tarfile.BLOCKSIZE)


def copy_snapshot(snapshot: str, target: str) -> str:
    """Copy a one-file snapshot; returns its SHA-256."""
    with open(snapshot, "rb", buffering=0) as file, open(target, "xb") as copy:
        reader = SnapshotReader(file)
        while True:
            piece = reader.read()
            if not piece:
                return reader.finish()
            copy.write(piece)


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
