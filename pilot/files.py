"""Files on the edge: durable before visible. Every function raises OSError; the caller turns it into a value."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def sync_directory(path: Path) -> None:
    """fsync a directory, so that names made or removed in it are durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_all(fd: int, content: bytes) -> None:
    """Write all of it, however often the kernel takes only a part."""
    view = memoryview(content)
    while view:
        view = view[os.write(fd, view) :]


def write_new(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Create `path` (it must not exist), write and fsync it."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        write_all(fd, content)
        os.fsync(fd)
    finally:
        os.close(fd)


def link_new(private: Path, path: Path) -> bool:
    """Make `path` by link(2) of the fsynced `private`; True for exactly one maker, durable on return.

    Decided by the own file, not by the error: an answer lost on a network filesystem shows as EEXIST although the
    link was made. The private file stays; the caller removes it.
    """
    with contextlib.suppress(FileExistsError):
        os.link(private, path)
    sync_directory(path.parent)
    return os.stat(private).st_nlink == 2 or os.path.samefile(private, path)


def read_bounded(path: Path, max_bytes: int) -> bytes:
    """The content of `path`, at most `max_bytes`; more raises OSError."""
    with open(path, "rb") as source:
        content = source.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise OSError(f"{path}: more than {max_bytes} bytes")
    return content
