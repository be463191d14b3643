"""The shared filesystem as many nodes see it that are played by one process: real files, node-local ones pretended.

Stands in the place of `simulators.world.files.VirtualFiles` for agents that run on the real clock. Nothing is fsynced:
the disks that real nodes would wait for are not this machine's, and a reader sees the same without.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from typing import Any

from pilot.multijob.node import files


class NoFaults:
    """This filesystem is never away."""

    def up_at(self) -> float:
        """Since ever."""
        return 0.0

    def stopped_s(self, start_s: float, end_s: float) -> float:
        """No time at all."""
        return 0.0


class RealFiles:
    """Carries out operations of agents. `local(client, path)`: text of a file on a node's own disk, else OSError."""

    def __init__(self, local: Callable[[str, str], str]) -> None:
        self._local = local
        self.faults = NoFaults()

    def text(self, path: str) -> str | None:
        """A file's text, None if it is not there."""
        try:
            return str(files.perform(files.Read(path)))
        except FileNotFoundError:
            return None

    def open_new(self, client: str, path: str) -> str:
        """A new node journal. No file stays open: there is one for each of some hundred nodes."""
        _write(path, "", 0o644)
        return path

    def append(self, client: str, path: str, file: str, text: str) -> None:
        """One line of it."""
        fd = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        try:
            files.write_all(fd, text.encode())
        finally:
            os.close(fd)

    def perform(self, client: str, operation: Any) -> Any:
        """One file operation. Raises OSError."""
        match operation:
            case files.Pause() | files.SyncDirectory():
                return None  # the caller let the time pass
            case files.PutNew(path, text, mode):
                return _write(path, text, mode)
            case files.Put(path, text, temp, mode):
                _write(temp, text, mode)
                return os.rename(temp, path)
            case files.CopyNew(source, target):
                return self._copy(client, source, target)
        return files.perform(operation)

    def _copy(self, client: str, source: str, target: str) -> files.Copied:
        text = self._local(client, source)
        try:
            _write(target, text, 0o644)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(target), exist_ok=True)
            _write(target, text, 0o644)
        content = text.encode()
        return files.Copied(len(content), f"{zlib.adler32(content):08x}")


def _write(path: str, text: str, mode: int) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        files.write_all(fd, text.encode())
    finally:
        os.close(fd)
