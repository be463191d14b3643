"""File operations as values, so that what decides (gate, placement, a job's steps) never touches a disk itself.

A decision is a generator: it yields operations and is sent their replies; an `OSError` of an operation is thrown
into it. The node carries them out with `perform`; the virtual world with simulated files and the same generators.
"""

from __future__ import annotations

import errno
import os
import stat
import time
import zlib
from typing import Any, Callable, Dict, Generator, List, NamedTuple, Optional, TypeVar

T = TypeVar("T")
Steps = Generator[Any, Any, T]

# Reads and writes of a copy: fewer, larger calls are what a parallel filesystem likes.
COPY_BYTES = 4 * 1024 * 1024
# claims, doors and commands are below 1 MiB; a runaway file must not fill the node's memory.
TEXT_MAX_BYTES = 64 * 1024 * 1024


class PutNew(NamedTuple):
    """Create the file exclusively, write the text, fsync it. Replies None."""

    path: str
    text: str
    mode: int = 0o644


class Put(NamedTuple):
    """Write by temp name (`temp`, in the same directory), fsync, rename, fsync of the directory. Replies None."""

    path: str
    text: str
    temp: str
    mode: int = 0o644


class Link(NamedTuple):
    """link(2). Replies None; FileExistsError if the target is there."""

    source: str
    target: str


class CountLinks(NamedTuple):
    """Replies st_nlink."""

    path: str


class Read(NamedTuple):
    """Replies the text (UTF-8, undecodable bytes replaced)."""

    path: str


class Exists(NamedTuple):
    """Replies True or False; any error but "no such file" is thrown: unknown is not absent."""

    path: str


class Names(NamedTuple):
    """Replies the sorted names in a directory."""

    directory: str


class Unlink(NamedTuple):
    """Replies None, also if it was not there."""

    path: str


class SyncDirectory(NamedTuple):
    """fsync of a directory. Replies None."""

    directory: str


class Inspect(NamedTuple):
    """Replies the size of a regular file that can be opened for reading; never waits for a pipe or device."""

    path: str


class Rename(NamedTuple):
    """rename(2); a directory only to a name that is free. Replies None."""

    path: str
    target: str


class CopyNew(NamedTuple):
    """Copy to a new file, fsync it unless `sync` is false, make missing directories. Replies `Copied`.

    `limit_s`: TimeoutError if it has not ended by then, as far as the filesystem answers at all.
    """

    source: str
    target: str
    sync: bool = True
    limit_s: Optional[float] = None
    mode: int = 0o644


class Sum(NamedTuple):
    """Replies `Copied` of a file as it is."""

    path: str


class Pause(NamedTuple):
    """Let time pass. Replies None."""

    seconds: float


class Copied(NamedTuple):
    """Size in bytes and adler32 as 8 hex digits."""

    size: int
    adler32: str


def run_steps(steps: Steps[T], perform: Callable[[Any], Any]) -> T:
    """Carry out all operations of `steps` one after the other and return its value."""
    try:
        operation = next(steps)
        while True:
            try:
                reply = perform(operation)
            except Exception as error:  # also what is no OSError: the steps may have something to undo
                operation = steps.throw(error)
            else:
                operation = steps.send(reply)
    except StopIteration as stop:
        value: T = stop.value
        return value


def write_all(fd: int, content: bytes) -> None:
    """Write all of it, however often the kernel takes only a part."""
    view = memoryview(content)
    while view:
        view = view[os.write(fd, view) :]


def _put_new(operation: PutNew) -> None:
    fd = os.open(operation.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, operation.mode)
    try:
        write_all(fd, operation.text.encode())
        os.fsync(fd)
    finally:
        os.close(fd)


def _put(operation: Put) -> None:
    _put_new(PutNew(operation.temp, operation.text, operation.mode))
    os.rename(operation.temp, operation.path)
    _sync_directory(SyncDirectory(os.path.dirname(operation.path)))


def _link(operation: Link) -> None:
    os.link(operation.source, operation.target)


def _count_links(operation: CountLinks) -> int:
    return os.stat(operation.path).st_nlink


def _read(operation: Read) -> str:
    with open(operation.path, "rb") as file:
        return file.read(TEXT_MAX_BYTES).decode("utf-8", "replace")


def _exists(operation: Exists) -> bool:
    try:
        os.stat(operation.path)
    except FileNotFoundError:
        return False
    return True


def _names(operation: Names) -> List[str]:
    return sorted(os.listdir(operation.directory))


def _unlink(operation: Unlink) -> None:
    try:
        os.unlink(operation.path)
    except FileNotFoundError:
        pass


def _sync_directory(operation: SyncDirectory) -> None:
    fd = os.open(operation.directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _rename(operation: Rename) -> None:
    os.rename(operation.path, operation.target)


def _inspect(operation: Inspect) -> int:
    fd = os.open(operation.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    try:
        found = os.fstat(fd)
    finally:
        os.close(fd)
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "no regular file", operation.path)
    return found.st_size


def _copy_new(operation: CopyNew) -> Copied:
    try:
        fd = os.open(operation.target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, operation.mode)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(operation.target), exist_ok=True)
        fd = os.open(operation.target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, operation.mode)
    try:
        copied = _checksum(operation.source, lambda chunk: write_all(fd, chunk), operation.limit_s)
        if operation.sync:
            os.fsync(fd)
    finally:
        os.close(fd)
    return copied


def _sum(operation: Sum) -> Copied:
    return _checksum(operation.path, lambda chunk: None)


def _checksum(path: str, take: Callable[[bytes], None], limit_s: Optional[float] = None) -> Copied:
    size, value, begun = 0, 1, time.monotonic()
    with open(path, "rb", buffering=0) as file:
        while True:
            chunk = file.read(COPY_BYTES)
            if not chunk:
                return Copied(size, "%08x" % (value & 0xFFFFFFFF))
            take(chunk)
            size += len(chunk)
            value = zlib.adler32(chunk, value)
            if limit_s is not None and time.monotonic() - begun > limit_s:
                raise TimeoutError(errno.ETIMEDOUT, "not read in %.0f s" % limit_s, path)


def _pause(operation: Pause) -> None:
    time.sleep(operation.seconds)


_OPERATIONS: Dict[type, Callable[[Any], Any]] = {
    PutNew: _put_new,
    Put: _put,
    Link: _link,
    CountLinks: _count_links,
    Read: _read,
    Exists: _exists,
    Names: _names,
    Unlink: _unlink,
    SyncDirectory: _sync_directory,
    CopyNew: _copy_new,
    Inspect: _inspect,
    Rename: _rename,
    Sum: _sum,
    Pause: _pause,
}


def perform(operation: Any) -> Any:
    """Carry out one operation on the real filesystem. Raises OSError."""
    return _OPERATIONS[type(operation)](operation)
