"""One shared filesystem seen by several clients: link(2) is atomic for all, everything else is seen late by others.

Carries out the operations of `pilot.multijob.node.files` for one client at a virtual time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pilot.multijob.node import files


@dataclass(slots=True)
class Inode:
    """A file: its text, links, and who wrote it when."""

    text: str
    links: int
    writer: str
    at_s: float


@dataclass(slots=True)
class SharedFiles:
    """Names -> inodes. `delay_s(path, reader)`: how late a reader other than the writer sees a name."""

    names: dict[str, Inode] = field(default_factory=dict)
    delay_s: Callable[[str, str], float] = field(default=lambda path, reader: 0.0)
    now_s: float = 0.0
    lost_link_replies: int = 0

    def seen(self, path: str, client: str) -> Inode | None:
        """The file as this client sees it now."""
        inode = self.names.get(path)
        if inode is None:
            return None
        late = 0.0 if inode.writer == client else self.delay_s(path, client)
        return inode if self.now_s >= inode.at_s + late else None

    def perform(self, operation: Any, client: str) -> Any:
        """Carry out one operation. Raises FileExistsError and FileNotFoundError as a filesystem does."""
        match operation:
            case files.PutNew(path=path, text=text):
                if path in self.names:
                    raise FileExistsError(path)
                self.names[path] = Inode(text, 1, client, self.now_s)
            case files.Put(path=path, text=text):
                self.names[path] = Inode(text, 1, client, self.now_s)
            case files.Link(source=source, target=target):
                self._link(source, target)
            case files.CountLinks(path=path):
                return self._there(path, client).links
            case files.Read(path=path):
                return self._there(path, client).text
            case files.Exists(path=path):
                return self.seen(path, client) is not None
            case files.Names(directory=directory):
                start = directory + "/"
                return sorted(
                    name[len(start) :]
                    for name in self.names
                    if name.startswith(start) and self.seen(name, client)
                )
            case files.Unlink(path=path):
                gone = self.names.pop(path, None)
                if gone is not None:
                    gone.links -= 1
            case files.SyncDirectory() | files.Pause():
                pass
            case _:
                raise TypeError(f"no such operation here: {operation!r}")
        return None

    def _link(self, source: str, target: str) -> None:
        if target in self.names:
            raise FileExistsError(target)
        inode = self.names[source]
        inode.links += 1
        self.names[target] = inode
        if self.lost_link_replies:
            self.lost_link_replies -= 1
            inode.links -= 1  # attributes are seen late, too
            raise FileExistsError(target)

    def _there(self, path: str, client: str) -> Inode:
        inode = self.seen(path, client)
        if inode is None:
            raise FileNotFoundError(path)
        return inode
