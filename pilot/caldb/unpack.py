"""A snapshot on its way into the node's memory: read once, in large pieces, summed while it is unpacked."""

from __future__ import annotations

import contextlib
import hashlib
import os
import queue
import shutil
import tarfile
import threading
from typing import IO

from pilot.caldb import plan as plans

# One large read per 4 MiB of the snapshot: few, sequential calls are what a parallel filesystem likes.
READ_BYTES = 4 * 1024 * 1024


class KeeperFailed(Exception):
    """No calibration server; the text is the reason."""


class SnapshotReader:
    """A file that is read once from front to end, while a thread sums what was read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._sha = file, hashlib.sha256()
        self._pieces: queue.Queue[bytes] = queue.Queue(maxsize=8)
        self._thread = threading.Thread(target=self._sum, daemon=True)
        self._thread.start()

    def _sum(self) -> None:
        for piece in iter(self._pieces.get, b""):
            self._sha.update(piece)

    def read(self, size: int = READ_BYTES) -> bytes:
        """At most `size` bytes; b"" at the end."""
        piece = self._file.read(size)
        if piece:
            self._pieces.put(piece)
        return piece

    def finish(self) -> str:
        """Reads what is left and returns the SHA-256 of the whole file."""
        while self.read():
            pass
        self._pieces.put(b"")
        self._thread.join()
        return self._sha.hexdigest()


def unpack_snapshot(snapshot: str, target: str) -> str:
    """Unpack a tar into the new directory `target`; returns the SHA-256 of the tar. Raises KeeperFailed, OSError."""
    os.mkdir(target, 0o700)
    with open(snapshot, "rb", buffering=READ_BYTES) as file:
        reader = SnapshotReader(file)
        try:
            with tarfile.open(fileobj=reader, mode="r|", bufsize=READ_BYTES) as tar:  # type: ignore[call-overload]
                for member in tar:
                    _unpack_member(tar, member, target)
        except (tarfile.TarError, EOFError) as error:
            raise KeeperFailed(f"snapshot {snapshot} is damaged: {error}") from error
        return reader.finish()


def _unpack_member(tar: tarfile.TarFile, member: tarfile.TarInfo, target: str) -> None:
    refused = plans.check_member(member.name, member.isreg(), member.isdir())
    if refused is not None:
        raise KeeperFailed(refused)
    path = os.path.join(target, member.name)
    if member.isdir():
        os.makedirs(path, 0o700, exist_ok=True)
        return
    os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
    source = tar.extractfile(member)
    assert source is not None
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb", buffering=0) as file:
        shutil.copyfileobj(source, file, READ_BYTES)
        if file.tell() != member.size:
            raise KeeperFailed(f"snapshot is truncated in {member.name}")


def copy_snapshot(snapshot: str, target: str) -> str:
    """Copy a one-file snapshot; returns its SHA-256."""
    with open(snapshot, "rb", buffering=0) as file, open(target, "xb", buffering=0) as copy:
        reader = SnapshotReader(file)
        for piece in iter(reader.read, b""):
            copy.write(piece)
        return reader.finish()


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
