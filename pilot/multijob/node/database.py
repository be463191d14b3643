"""The agent's side of the calibration server: start its keeper, hear what it says, let go of it."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from typing import Any, Dict, List, Sequence

# What a keeper says in one line (a reason and 2,000 characters of log) is far below this.
SAID_MAX_BYTES = 65536


class Database:
    """A keeper that was started for the node's payloads, with `directory` (made here, 0700) as its own.

    The shared lock on `users.lock` is what keeps the server: it is let go by `release`, or by the kernel when the
    agent dies.
    """

    def __init__(self, directory: str, argv: Sequence[str]) -> None:
        os.mkdir(directory, 0o700)
        self._lock = os.open(os.path.join(directory, "users.lock"), os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_SH)
        self.process = subprocess.Popen(
            list(argv), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True
        )
        assert self.process.stdout is not None
        self.fd = self.process.stdout.fileno()
        os.set_blocking(self.fd, False)
        self.open = True
        self.ended = False
        self._rest = b""

    def said(self) -> List[Dict[str, Any]]:
        """What it has said since the last call; a line that is no JSON object is left out."""
        said = []
        for piece in self._read() if self.open else ():
            try:
                found = json.loads(piece)
            except ValueError:
                continue
            if isinstance(found, dict):
                said.append(found)
        return said

    def _read(self) -> List[bytes]:
        while True:
            try:
                piece = os.read(self.fd, SAID_MAX_BYTES)
            except BlockingIOError:
                break
            if not piece:
                self.open = False
                break
            self._rest = (self._rest + piece)[-SAID_MAX_BYTES:]
        *lines, self._rest = self._rest.split(b"\n")
        return lines

    def release(self) -> None:
        """The server is not needed any more: its keeper stops it and ends."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def note_end(self, status: int) -> None:
        """Its keeper was reaped."""
        self.process.returncode = status
        self.ended = True


def keeper_argv(agent_file: str, bundle: str, directory: str) -> List[str]:
    """The command that starts a keeper with this interpreter."""
    return [sys.executable, "-I", "-S", agent_file, "keeper", "--bundle", bundle, "--directory", directory]
