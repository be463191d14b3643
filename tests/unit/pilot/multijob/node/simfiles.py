"""A filesystem in memory that carries out the operations of `pilot.multijob.node.files`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pilot.multijob.node import files
from pilot.multijob.node.files import Copied


class SimFiles:
    """Names -> [content, links]. `before` is called with each operation and may raise or change anything."""

    def __init__(self, **content: str) -> None:
        self.inodes: dict[str, list[Any]] = {name: [text, 1] for name, text in content.items()}
        self.log: list[Any] = []
        self.slept_s = 0.0
        self.before: Callable[[Any], None] = lambda operation: None
        self.after: Callable[[Any], None] = lambda operation: None

    def put(self, path: str, text: str) -> None:
        self.inodes[path] = [text, 1]

    def text(self, path: str) -> str:
        return self.inodes[path][0]

    def perform(self, operation: Any) -> Any:
        self.log.append(operation)
        self.before(operation)
        reply = getattr(self, f"_{type(operation).__name__}")(operation)
        self.after(operation)
        return reply

    def run(self, steps: Any) -> Any:
        return files.run_steps(steps, self.perform)

    def _PutNew(self, operation):
        if operation.path in self.inodes:
            raise FileExistsError(operation.path)
        self.put(operation.path, operation.text)

    def _Put(self, operation):
        self.put(operation.path, operation.text)

    def _Link(self, operation):
        if operation.target in self.inodes:
            raise FileExistsError(operation.target)
        inode = self._inode(operation.source)
        inode[1] += 1
        self.inodes[operation.target] = inode

    def _inode(self, path):
        if path not in self.inodes:
            raise FileNotFoundError(path)
        return self.inodes[path]

    def _CountLinks(self, operation):
        return self._inode(operation.path)[1]

    def _Read(self, operation):
        return self._inode(operation.path)[0]

    def _Exists(self, operation):
        return operation.path in self.inodes

    def _Names(self, operation):
        start = operation.directory + "/"
        return sorted(name[len(start) :] for name in self.inodes if name.startswith(start))

    def _Unlink(self, operation):
        inode = self.inodes.pop(operation.path, None)
        if inode is not None:
            inode[1] -= 1

    def _SyncDirectory(self, operation):
        return None

    def _CopyNew(self, operation):
        self._PutNew(files.PutNew(operation.target, self._inode(operation.source)[0]))
        return self._Sum(files.Sum(operation.target))

    def _Sum(self, operation):
        text = self._inode(operation.path)[0]
        return Copied(len(text), f"sum of {text}")

    def _Pause(self, operation):
        self.slept_s += operation.seconds
