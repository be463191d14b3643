"""File operations as values that only the edge needs, beside those of `node.files`; `perform` carries out both.

They are not with the node's because a node reads no more code at its start than it needs (docs/decisions/0101).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import Any, NamedTuple

from pilot.multijob.node import files

# Names that one `RemoveTree` takes away: a bundle of 512 jobs has fewer, and nobody waits long for one call.
REMOVED_AT_ONCE = 1000


class MakeDirectory(NamedTuple):
    """Make one directory, its parent is there. Replies None; FileExistsError unless `exist_ok`."""

    directory: str
    exist_ok: bool = False


class RemoveTree(NamedTuple):
    """Remove a directory and what is in it, at most so many names. Replies True when nothing is left."""

    directory: str
    at_most: int = REMOVED_AT_ONCE


class Size(NamedTuple):
    """Replies the size in bytes."""

    path: str


class Free(NamedTuple):
    """Replies the bytes that a user may still write on this path's filesystem, and inodes (None: it counts none)."""

    path: str


class ReadBytes(NamedTuple):
    """Replies at most `at_most` bytes from byte `offset` on."""

    path: str
    offset: int
    at_most: int


class PutBytes(NamedTuple):
    """As `Put`: by temp name, fsync, rename, fsync of the directory. Replies None; what a failure left is removed."""

    path: str
    content: bytes
    temp: str


class SameFile(NamedTuple):
    """Replies whether both names are of the same file."""

    path: str
    other: str


def _make_directory(operation: MakeDirectory) -> None:
    try:
        os.mkdir(operation.directory)
    except FileExistsError:
        if not operation.exist_ok or not os.path.isdir(operation.directory):
            raise


def _remove_tree(operation: RemoveTree) -> bool:
    """Bottom up, so that what a crash leaves is still a tree. Symbolic links are removed, never followed."""
    left = operation.at_most
    with contextlib.suppress(FileNotFoundError):
        for folder, folders, names in os.walk(operation.directory, topdown=False, onerror=_raise):
            for name in (*names, *folders):
                path = os.path.join(folder, name)
                if left == 0:
                    return False
                left -= 1
                if name in names or os.path.islink(path):
                    os.unlink(path)
                else:
                    os.rmdir(path)
        os.rmdir(operation.directory)
    return True


def _raise(error: OSError) -> None:
    raise error


def _size(operation: Size) -> int:
    return os.stat(operation.path).st_size


def _free(operation: Free) -> tuple[int, int | None]:
    found = os.statvfs(operation.path)
    return found.f_bavail * found.f_frsize, found.f_favail if found.f_files else None


def _read_bytes(operation: ReadBytes) -> bytes:
    with open(operation.path, "rb") as source:
        source.seek(operation.offset)
        return source.read(operation.at_most)


def _put_bytes(operation: PutBytes) -> None:
    fd = os.open(operation.temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        try:
            files.write_all(fd, operation.content)
            os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(operation.temp, operation.path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(operation.temp)
        raise
    files.perform(files.SyncDirectory(os.path.dirname(operation.path)))


def _same_file(operation: SameFile) -> bool:
    return os.path.samefile(operation.path, operation.other)


_OPERATIONS: dict[type, Callable[[Any], Any]] = {
    MakeDirectory: _make_directory,
    RemoveTree: _remove_tree,
    Size: _size,
    Free: _free,
    ReadBytes: _read_bytes,
    PutBytes: _put_bytes,
    SameFile: _same_file,
}


def perform(operation: Any) -> Any:
    """Carry out one operation of the edge or the node on the real filesystem. Raises OSError."""
    own = _OPERATIONS.get(type(operation))
    return files.perform(operation) if own is None else own(operation)
