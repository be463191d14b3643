"""One shared filesystem for several clients on a virtual clock: what one writes another sees late, link(2) is at once.

Carries out the operations of `pilot.multijob.node.files` and `pilot.multijob.operations`. Every name keeps its bindings
with their times, every file its appended pieces: a reader sees the newest binding and the pieces that have reached it.
Creating, linking and renaming are decided by the server, so they never disagree between clients.
"""

from __future__ import annotations

import errno
import os
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from pilot.multijob import operations
from pilot.multijob.node import files
from simulators.world.filefaults import FileFaults, Wrong

_FULL = (Wrong.DISK_FULL, Wrong.QUOTA)
_ALWAYS_S = -1e9

# The login node as a client of the shared filesystem.
EDGE = "edge"


@dataclass(frozen=True, slots=True)
class Piece:
    """What one client appended."""

    at_s: float
    writer: str
    content: bytes


@dataclass(slots=True, eq=False)
class Inode:
    """A file's pieces and its number of names, or a directory."""

    pieces: list[Piece] = field(default_factory=list)
    links: int = 0
    directory: bool = False

    @property
    def text(self) -> str:
        """Everything, as the server has it."""
        return b"".join(piece.content for piece in self.pieces).decode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class Binding:
    """What a name stands for since `at_s`; `inode` None: removed."""

    at_s: float
    writer: str
    inode: Inode | None


@dataclass(slots=True)
class VirtualFiles:
    """The filesystem. `delay_s(client, path)`: how late this client sees what others do to this name.

    `before(client, operation)` may raise OSError instead of the operation, `after(client, operation, reply)` changes
    its reply or raises although it happened; both are the faults of a scenario, `faults` has those with rules.
    What is seen later than `bound_s` breaks the site's promise, and is counted apart. `local(client, path)` is the text
    of a file on a client's own disk: what is copied from there.
    """

    now: Callable[[], float]
    delay_s: Callable[[str, str], float]
    faults: FileFaults
    bound_s: float = 0.0
    before: Callable[[str, Any], None] = field(default=lambda client, operation: None)
    after: Callable[[str, Any, Any], Any] = field(default=lambda client, operation, reply: reply)
    local: Callable[[str, str], str] = field(default=lambda client, path: f"{client}:{path}")
    bindings: dict[str, list[Binding]] = field(default_factory=dict)
    # link(2) onto a name that another client has made does not fail: it takes the name
    weak_links: bool = False
    # every name that ever stood in a directory
    _names: dict[str, set[str]] = field(default_factory=dict)
    # the newest binding that a client was shown, by (client, path)
    _shown: dict[tuple[str, str], int] = field(default_factory=dict)
    # names of which a client was ever shown less than is there: torn, holes, lost
    holed: set[str] = field(default_factory=set)

    # --- the truth ------------------------------------------------------------------------------------------

    def root(self, path: str) -> None:
        """A directory that everybody has always seen."""
        self.bindings[path] = [Binding(_ALWAYS_S, "", Inode(directory=True))]

    def current(self, path: str) -> Inode | None:
        """The file or directory as the server has it."""
        bound = self.bindings.get(path)
        return bound[-1].inode if bound else None

    def text(self, path: str) -> str | None:
        """Its text as the server has it, None if it is not there."""
        inode = self.current(path)
        return None if inode is None else inode.text

    def paths(self, start: str) -> list[str]:
        """All names of files that begin with `start` and are there, sorted."""
        found = ((path, self.current(path)) for path in self.bindings if path.startswith(start))
        return sorted(path for path, inode in found if inode is not None and not inode.directory)

    def files_in(self, directory: str, start: str) -> list[str]:
        """Names of files directly in a directory that begin with `start` and are there, sorted."""
        names = sorted(self._names.get(directory, ()))
        paths = (f"{directory}/{name}" for name in names if name.startswith(start))
        return [path for path in paths if self.text(path) is not None]

    def contents(self, path: str) -> int:
        """How many different files ever stood under this name."""
        return len({id(bound.inode) for bound in self.bindings.get(path, ()) if bound.inode is not None})

    def lose(self, path: str, index: int = -1) -> str:
        """One appended piece is NUL bytes from now on, for everybody and for ever. Returns what it was."""
        inode = self.current(path)
        assert inode is not None
        lost = inode.pieces[index]
        inode.pieces[index] = Piece(lost.at_s, lost.writer, b"\0" * len(lost.content))
        self.holed.add(path)
        self.faults.fired(Wrong.LOST)
        return lost.content.decode()

    # --- one client -------------------------------------------------------------------------------------------

    def perform(self, client: str, operation: Any) -> Any:
        """Carry out one operation now. Raises OSError as a filesystem does. Outages are waited for by the caller."""
        self.before(client, operation)
        path = _name(operation)
        self._fail(client, path, Wrong.IO_ERROR)
        reply = _OPERATIONS[type(operation)](self, client, operation)
        try:
            self._fail(client, path, Wrong.REPLY_LOST)
        except OSError:
            if isinstance(operation, files.Link) and "/claim." in operation.target:
                self.faults.fired(Wrong.CLAIM_REPLY_LOST)
            raise
        return self.after(client, operation, reply)

    def seen(self, client: str, path: str) -> str | None:
        """The text as this client sees it, None if the name is not there for it."""
        inode = self._inode_seen(client, path)
        return None if inode is None else self._content(client, path, inode).decode("utf-8", "replace")

    def open_new(self, client: str, path: str) -> Inode:
        """Create a file exclusively, to append to. It stays open whatever becomes of its name."""
        self._fail(client, path, Wrong.IO_ERROR, *_FULL)
        return self._create(client, path, Inode())

    def append(self, client: str, path: str, inode: Inode, text: str) -> None:
        """Append durably to an open file. Raises OSError; where the disk is full a half was written."""
        self._fail(client, path, Wrong.IO_ERROR)
        content = text.encode()
        error = self.faults.error(_FULL, client, path)
        inode.pieces.append(Piece(self.now(), client, content if error is None else _half(content)))
        if error is not None:
            raise error

    # --- what is seen -----------------------------------------------------------------------------------------

    def _inode_seen(self, client: str, path: str) -> Inode | None:
        late_s, bindings = self.delay_s(client, path), self.bindings.get(path, ())
        for index in range(len(bindings) - 1, -1, -1):
            bound = bindings[index]
            if not self._reached(client, bound, late_s):
                continue
            fresh = self._shown.get((client, path), -1)
            self._shown[client, path] = max(fresh, index)
            older = fresh >= index and bound.writer != client
            if older and self.faults.strikes(Wrong.STALE, client, path, self.now()):
                return bindings[index - 1].inode if index else None
            return bound.inode
        return None

    def _content(self, client: str, path: str, inode: Inode) -> bytes:
        late_s, content = self.delay_s(client, path), b""
        last = len(inode.pieces) - 1
        for index, piece in enumerate(inode.pieces):
            if not self._reached(client, piece, late_s):
                continue
            if piece.writer == client:
                content += piece.content
            elif index == last and self._damaged(Wrong.TORN, client, path, index, piece):
                content += _half(piece.content)
            elif self._damaged(Wrong.HOLE, client, path, index, piece):
                content += b"\0" * len(piece.content)
            else:
                content += piece.content
        return content

    def _reached(self, client: str, what: Binding | Piece, late_s: float) -> bool:
        if what.writer == client:
            return True
        age_s = self.now() - what.at_s
        if age_s < late_s:
            self.faults.fired(Wrong.BEYOND if age_s > self.bound_s else Wrong.LATE)
            return False
        return True

    def _damaged(self, kind: Wrong, client: str, path: str, index: int, piece: Piece) -> bool:
        rule = self.faults.rule(kind, client, path, index)
        if rule is None or piece.at_s < rule.from_s:
            return False
        self.holed.add(path)
        self.faults.fired(kind)
        return True

    def _opened(self, client: str, path: str) -> Inode:
        inode = self._inode_seen(client, path)
        if inode is None:
            raise _no(errno.ENOENT, path)
        return inode

    # --- what is changed --------------------------------------------------------------------------------------

    def _fail(self, client: str, path: str, *kinds: Wrong) -> None:
        error = self.faults.error(kinds, client, path)
        if error is not None:
            raise error

    def _bind(self, client: str, path: str, inode: Inode | None) -> None:
        before = self.current(path)
        if before is not None:
            before.links -= 1
        if inode is not None:
            inode.links += 1
        self.bindings.setdefault(path, []).append(Binding(self.now(), client, inode))
        folder, _, name = path.rpartition("/")
        self._names.setdefault(folder, set()).add(name)

    def _create(self, client: str, path: str, inode: Inode) -> Inode:
        folder = self.current(path.rpartition("/")[0])
        if folder is None or not folder.directory:
            raise _no(errno.ENOENT, path)
        if self.current(path) is not None:
            raise _no(errno.EEXIST, path)
        self._bind(client, path, inode)
        return inode

    def _below(self, directory: str) -> Iterator[str]:
        """Everything below a directory that is there, a directory after what is in it."""
        for name in sorted(self._names.get(directory, ())):
            path = f"{directory}/{name}"
            inode = self.current(path)
            if inode is not None:
                yield from self._below(path) if inode.directory else ()
                yield path

    def _new_file(self, client: str, path: str, text: str) -> bytes:
        """A new file; where the disk is full a half of it is there, and the error is raised."""
        content = text.encode()
        error = self.faults.error(_FULL, client, path)
        self._create(
            client, path, Inode([Piece(self.now(), client, content if error is None else _half(content))])
        )
        if error is not None:
            raise error
        return content

    # --- operations -------------------------------------------------------------------------------------------

    def _put_new(self, client: str, operation: files.PutNew) -> None:
        self._new_file(client, operation.path, operation.text)

    def _put(self, client: str, operation: files.Put) -> None:
        self._fail(client, operation.path, *_FULL)
        if self.current(operation.path) is not None:
            self._bind(client, operation.path, Inode([Piece(self.now(), client, operation.text.encode())]))
        else:
            self._new_file(client, operation.path, operation.text)

    def _put_bytes(self, client: str, operation: operations.PutBytes) -> None:
        self._fail(client, operation.path, *_FULL)
        self._bind(client, operation.path, Inode([Piece(self.now(), client, operation.content)]))

    def _link(self, client: str, operation: files.Link) -> None:
        inode = self.current(operation.source)
        if inode is None:
            raise _no(errno.ENOENT, operation.source)
        there = self.bindings.get(operation.target)
        if self.weak_links and there and there[-1].writer != client:
            self._bind(client, operation.target, inode)
        else:
            self._create(client, operation.target, inode)

    def _copy_new(self, client: str, operation: files.CopyNew) -> files.Copied:
        text = self.local(client, operation.source)
        self._make_folders(client, operation.target.rpartition("/")[0])
        return _copied(self._new_file(client, operation.target, text))

    def _make_folders(self, client: str, directory: str) -> None:
        if self.current(directory) is None:
            self._make_folders(client, directory.rpartition("/")[0])
            self._create(client, directory, Inode(directory=True))

    def _make_directory(self, client: str, operation: operations.MakeDirectory) -> None:
        self._fail(client, operation.directory, *_FULL)
        there = self.current(operation.directory)
        if there is None or not there.directory or not operation.exist_ok:
            self._create(client, operation.directory, Inode(directory=True))

    def _rename(self, client: str, operation: files.Rename) -> None:
        if self.current(operation.path) is None:
            raise _no(errno.ENOENT, operation.path)
        paths = [operation.path, *reversed(list(self._below(operation.path)))]
        inodes = [self.current(path) for path in paths]
        if self.current(operation.target) is not None:
            raise _no(errno.ENOTEMPTY, operation.target)
        for path in reversed(paths):
            self._bind(client, path, None)
        for path, inode in zip(paths, inodes, strict=True):
            assert inode is not None
            self._create(client, operation.target + path[len(operation.path) :], inode)

    def _remove_tree(self, client: str, operation: operations.RemoveTree) -> bool:
        paths = list(self._below(operation.directory))
        for path in paths[: operation.at_most]:
            self._bind(client, path, None)
        if len(paths) > operation.at_most:
            return False
        if self.current(operation.directory) is not None:
            self._bind(client, operation.directory, None)
        return True

    def _unlink(self, client: str, operation: files.Unlink) -> None:
        if self.current(operation.path) is not None:
            self._bind(client, operation.path, None)

    def _exists(self, client: str, operation: files.Exists) -> bool:
        return self._inode_seen(client, operation.path) is not None

    def _names_in(self, client: str, operation: files.Names) -> list[str]:
        self._opened(client, operation.directory)
        names = sorted(self._names.get(operation.directory, ()))
        return [name for name in names if self._listed(client, f"{operation.directory}/{name}")]

    def _listed(self, client: str, path: str) -> bool:
        there = self._inode_seen(client, path) is not None
        return there and not self.faults.strikes(Wrong.UNLISTED, client, path)

    def _read(self, client: str, operation: files.Read) -> str:
        found = self._opened(client, operation.path)
        return self._content(client, operation.path, found).decode("utf-8", "replace")

    def _read_bytes(self, client: str, operation: operations.ReadBytes) -> bytes:
        found = self._content(client, operation.path, self._opened(client, operation.path))
        return found[operation.offset : operation.offset + operation.at_most]

    def _size(self, client: str, operation: operations.Size | files.Inspect) -> int:
        return len(self._content(client, operation.path, self._opened(client, operation.path)))

    def _free(self, client: str, operation: operations.Free) -> tuple[int, int | None]:
        """Disks of the world are never full: a write that fails is a fault of its own."""
        return 2**50, None

    def _sum(self, client: str, operation: files.Sum) -> files.Copied:
        return _copied(self._content(client, operation.path, self._opened(client, operation.path)))

    def _count_links(self, client: str, operation: files.CountLinks) -> int:
        self._opened(client, operation.path)
        inode = self.current(operation.path)
        return 0 if inode is None else inode.links

    def _same_file(self, client: str, operation: operations.SameFile) -> bool:
        self._opened(client, operation.path)
        return self.current(operation.path) is self.current(operation.other)

    def _nothing(self, client: str, operation: Any) -> None:
        """What is written is durable at once; a pause is the caller's."""


_OPERATIONS: dict[type, Callable[[VirtualFiles, str, Any], Any]] = {
    files.PutNew: VirtualFiles._put_new,
    files.Put: VirtualFiles._put,
    files.Link: VirtualFiles._link,
    files.CountLinks: VirtualFiles._count_links,
    files.Read: VirtualFiles._read,
    files.Exists: VirtualFiles._exists,
    files.Names: VirtualFiles._names_in,
    files.Unlink: VirtualFiles._unlink,
    files.SyncDirectory: VirtualFiles._nothing,
    files.CopyNew: VirtualFiles._copy_new,
    files.Sum: VirtualFiles._sum,
    files.Pause: VirtualFiles._nothing,
    operations.MakeDirectory: VirtualFiles._make_directory,
    files.Rename: VirtualFiles._rename,
    operations.RemoveTree: VirtualFiles._remove_tree,
    operations.PutBytes: VirtualFiles._put_bytes,
    operations.Size: VirtualFiles._size,
    files.Inspect: VirtualFiles._size,
    operations.Free: VirtualFiles._free,
    operations.ReadBytes: VirtualFiles._read_bytes,
    operations.SameFile: VirtualFiles._same_file,
}


def _name(operation: Any) -> str:
    """The name that an operation is about."""
    for field_name in ("target", "path", "directory"):
        found = getattr(operation, field_name, None)
        if found is not None:
            return str(found)
    return ""


def _half(content: bytes) -> bytes:
    return content[: len(content) // 2]


def _no(number: int, path: str) -> OSError:
    return OSError(number, os.strerror(number), path)


def _copied(content: bytes) -> files.Copied:
    return files.Copied(len(content), f"{zlib.adler32(content):08x}")
