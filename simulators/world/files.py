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
    its reply or raises although it happened; both are the faults of a scenario.
    """

    now: Callable[[], float]
    delay_s: Callable[[str, str], float]
    before: Callable[[str, Any], None] = field(default=lambda client, operation: None)
    after: Callable[[str, Any, Any], Any] = field(default=lambda client, operation, reply: reply)
    bindings: dict[str, list[Binding]] = field(default_factory=dict)

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

    # --- one client -------------------------------------------------------------------------------------------

    def perform(self, client: str, operation: Any) -> Any:
        """Carry out one operation now. Raises OSError as a filesystem does."""
        self.before(client, operation)
        return self.after(client, operation, self._perform(client, operation))

    def seen(self, client: str, path: str) -> str | None:
        """The text as this client sees it, None if the name is not there for it."""
        late_s = self.delay_s(client, path)
        for bound in reversed(self.bindings.get(path, ())):
            if self._reached(client, bound, late_s):
                if bound.inode is None:
                    return None
                return "".join(p.text for p in bound.inode.pieces if self._reached(client, p, late_s))
        return None

    def append(self, client: str, path: str, text: str) -> None:
        """Append durably to an existing or new file."""
        inode = self.current(path)
        piece = Piece(self.now(), client, text)
        if inode is None:
            self._bind(client, path, Inode([piece]))
        else:
            inode.pieces.append(piece)

    def rename_directory(self, client: str, source: str, target: str) -> None:
        """rename(2) of a directory with everything in it; FileNotFoundError if nothing is there."""
        paths = self.paths(source + "/")
        if not paths:
            raise FileNotFoundError(2, "No such file or directory", source)
        for path in paths:
            inode = self.current(path)
            self._bind(client, path, None)
            self._bind(client, target + path[len(source) :], inode)

    def _reached(self, client: str, what: Binding | Piece, late_s: float) -> bool:
        return what.writer == client or what.at_s + late_s <= self.now()

    def _bind(self, client: str, path: str, inode: Inode | None) -> None:
        before = self.current(path)
        if before is not None:
            before.links -= 1
        if inode is not None:
            inode.links += 1
        self.bindings.setdefault(path, []).append(Binding(self.now(), client, inode))

    def _new(self, client: str, path: str, text: str) -> None:
        self._bind(client, path, Inode([Piece(self.now(), client, text)]))

    def _perform(self, client: str, operation: Any) -> Any:
        match operation:
            case files.PutNew(path=path, text=text):
                if self.current(path) is not None:
                    raise FileExistsError(17, "File exists", path)
                self._new(client, path, text)
            case files.Put(path=path, text=text):
                self._new(client, path, text)
            case files.Link(source=source, target=target):
                self._link(client, source, target)
            case files.Exists(path=path):
                return self.seen(client, path) is not None
            case files.Names(directory=directory):
                start = directory + "/"
                return [
                    path[len(start) :]
                    for path in sorted(self.bindings)
                    if path.startswith(start) and self.seen(client, path) is not None
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


def _copied(text: str) -> files.Copied:
    content = text.encode()
    return files.Copied(len(content), f"{zlib.adler32(content):08x}")
