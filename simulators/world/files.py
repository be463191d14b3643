"""One shared filesystem for several clients on a virtual clock: what one writes another sees late, link(2) is at once.

Carries out the operations of `pilot.multijob.node.files`. Every name keeps its bindings with their times, every file
its appended pieces: a reader sees the newest binding and the pieces that have reached it. Creating, linking and
renaming are decided by the server, so they never disagree between clients.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pilot.multijob.node import files
from simulators.world.filefaults import FileFaults, Wrong

_FULL = (Wrong.DISK_FULL, Wrong.QUOTA)


@dataclass(frozen=True, slots=True)
class Piece:
    """Text that one client appended."""

    at_s: float
    writer: str
    text: str


@dataclass(slots=True)
class Inode:
    """A file's pieces and its number of names."""

    pieces: list[Piece]
    links: int = 0

    @property
    def text(self) -> str:
        """Everything, as the server has it."""
        return "".join(piece.text for piece in self.pieces)


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
    What is seen later than `bound_s` breaks the site's promise, and is counted apart.
    """

    now: Callable[[], float]
    delay_s: Callable[[str, str], float]
    faults: FileFaults
    bound_s: float = 0.0
    before: Callable[[str, Any], None] = field(default=lambda client, operation: None)
    after: Callable[[str, Any, Any], Any] = field(default=lambda client, operation, reply: reply)
    bindings: dict[str, list[Binding]] = field(default_factory=dict)
    # the newest binding that a client was shown, by (client, path)
    _shown: dict[tuple[str, str], int] = field(default_factory=dict)

    # --- the truth ------------------------------------------------------------------------------------------

    def current(self, path: str) -> Inode | None:
        """The file as the server has it."""
        bound = self.bindings.get(path)
        return bound[-1].inode if bound else None

    def text(self, path: str) -> str | None:
        """Its text as the server has it, None if it is not there."""
        inode = self.current(path)
        return None if inode is None else inode.text

    def paths(self, start: str) -> list[str]:
        """All names that begin with `start` and are there, sorted."""
        return sorted(path for path in self.bindings if path.startswith(start) and self.current(path))

    def contents(self, path: str) -> int:
        """How many different files ever stood under this name."""
        return len({id(bound.inode) for bound in self.bindings.get(path, ()) if bound.inode is not None})

    def lose(self, path: str, index: int = -1) -> str:
        """One appended piece is NUL bytes from now on, for everybody and for ever. Returns what it was."""
        inode = self.current(path)
        assert inode is not None
        lost = inode.pieces[index]
        inode.pieces[index] = Piece(lost.at_s, lost.writer, "\0" * len(lost.text))
        self.faults.fired(Wrong.LOST)
        return lost.text

    # --- one client -------------------------------------------------------------------------------------------

    def perform(self, client: str, operation: Any) -> Any:
        """Carry out one operation now. Raises OSError as a filesystem does. Outages are waited for by the caller."""
        self.before(client, operation)
        path = _name(operation)
        error = self.faults.error((Wrong.IO_ERROR,), client, path)
        if error is not None:
            raise error
        reply = self._perform(client, operation)
        error = self.faults.error((Wrong.REPLY_LOST,), client, path)
        if error is not None:
            raise error
        return self.after(client, operation, reply)

    def seen(self, client: str, path: str) -> str | None:
        """The text as this client sees it, None if the name is not there for it."""
        inode = self._inode_seen(client, path)
        if inode is None:
            return None
        late_s, text = self.delay_s(client, path), ""
        last = len(inode.pieces) - 1
        for index, piece in enumerate(inode.pieces):
            if not self._reached(client, piece, late_s):
                continue
            if piece.writer == client:
                text += piece.text
            elif index == last and self._damaged(Wrong.TORN, client, path, index, piece):
                text += piece.text[: len(piece.text) // 2]
            elif self._damaged(Wrong.HOLE, client, path, index, piece):
                text += "\0" * len(piece.text)
            else:
                text += piece.text
        return text

    def append(self, client: str, path: str, text: str) -> None:
        """Append durably to an existing or new file. Raises OSError; where the disk is full a half was written."""
        error = self.faults.error((Wrong.IO_ERROR,), client, path)
        if error is not None:
            raise error
        error = self.faults.error(_FULL, client, path)
        inode = self.current(path)
        piece = Piece(self.now(), client, text if error is None else text[: len(text) // 2])
        if inode is None:
            self._bind(client, path, Inode([piece]))
        else:
            inode.pieces.append(piece)
        if error is not None:
            raise error

    def rename_directory(self, client: str, source: str, target: str) -> None:
        """rename(2) of a directory with everything in it; FileNotFoundError if nothing is there."""
        paths = self.paths(source + "/")
        if not paths:
            raise FileNotFoundError(2, "No such file or directory", source)
        for path in paths:
            inode = self.current(path)
            self._bind(client, path, None)
            self._bind(client, target + path[len(source) :], inode)

    def _inode_seen(self, client: str, path: str) -> Inode | None:
        late_s, bindings = self.delay_s(client, path), self.bindings.get(path, ())
        for index in range(len(bindings) - 1, -1, -1):
            bound = bindings[index]
            if not self._reached(client, bound, late_s):
                continue
            fresh = self._shown.get((client, path), -1)
            self._shown[client, path] = max(fresh, index)
            older = index > 0 and fresh >= index and bound.writer != client
            if older and self.faults.strikes(Wrong.STALE, client, path, self.now()):
                return bindings[index - 1].inode
            return bound.inode
        return None

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
        self.faults.fired(kind)
        return True

    def _bind(self, client: str, path: str, inode: Inode | None) -> None:
        before = self.current(path)
        if before is not None:
            before.links -= 1
        if inode is not None:
            inode.links += 1
        self.bindings.setdefault(path, []).append(Binding(self.now(), client, inode))

    def _new(self, client: str, path: str, text: str) -> None:
        """A new file; where the disk is full a half of it is there, and the error is raised."""
        error = self.faults.error(_FULL, client, path)
        self._bind(
            client,
            path,
            Inode([Piece(self.now(), client, text if error is None else text[: len(text) // 2])]),
        )
        if error is not None:
            raise error

    def _perform(self, client: str, operation: Any) -> Any:
        match operation:
            case files.PutNew(path=path, text=text):
                if self.current(path) is not None:
                    raise FileExistsError(17, "File exists", path)
                self._new(client, path, text)
            case files.Put(path=path, text=text):
                error = self.faults.error(_FULL, client, path)
                if error is not None:
                    raise error
                self._bind(client, path, Inode([Piece(self.now(), client, text)]))
            case files.Link(source=source, target=target):
                self._link(client, source, target)
            case files.Exists(path=path):
                return self.seen(client, path) is not None
            case files.Names(directory=directory):
                start = directory + "/"
                return [
                    path[len(start) :]
                    for path in sorted(self.bindings)
                    if path.startswith(start) and self._listed(client, path)
                ]
            case files.Unlink(path=path):
                if self.current(path) is not None:
                    self._bind(client, path, None)
            case files.CopyNew(target=target):
                return self._copy(client, operation, target)
            case files.SyncDirectory() | files.Pause():
                pass
            case _:
                return self._ask(client, operation)
        return None

    def _listed(self, client: str, path: str) -> bool:
        there = self._inode_seen(client, path) is not None
        return there and not self.faults.strikes(Wrong.UNLISTED, client, path)

    def _ask(self, client: str, operation: Any) -> Any:
        """Questions about one file that must be there."""
        text = self.seen(client, operation.path)
        if text is None:
            raise FileNotFoundError(2, "No such file or directory", operation.path)
        match operation:
            case files.Read():
                return text
            case files.Sum():
                return _copied(text)
            case files.CountLinks():
                inode = self.current(operation.path)
                return 0 if inode is None else inode.links
        raise TypeError(f"no such operation here: {operation!r}")

    def _link(self, client: str, source: str, target: str) -> None:
        inode = self.current(source)
        if inode is None:
            raise FileNotFoundError(2, "No such file or directory", source)
        if self.current(target) is not None:
            raise FileExistsError(17, "File exists", target)
        self._bind(client, target, inode)

    def _copy(self, client: str, operation: files.CopyNew, target: str) -> files.Copied:
        """A copy of a node-local file: what it holds is named by its path, which says whose it is."""
        if self.current(target) is not None:
            raise FileExistsError(17, "File exists", target)
        self._new(client, target, operation.source)
        return _copied(operation.source)


def _name(operation: Any) -> str:
    """The name that an operation is about."""
    for field_name in ("path", "target", "directory"):
        found = getattr(operation, field_name, None)
        if found is not None:
            return str(found)
    return ""


def _copied(text: str) -> files.Copied:
    content = text.encode()
    return files.Copied(len(content), f"{zlib.adler32(content):08x}")
