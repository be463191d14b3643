"""The agent's side of the calibration server: start its keeper, hear what it says, let go of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any, Dict, List, Sequence

from pilot.caldb import sharing

# What a keeper says in one line (a reason and 2,000 characters of log) is far below this.
SAID_MAX_BYTES = 65536


class Database:
    """A keeper that was started for the node's payloads, in `directory`, which agents of the same batch job share.

    The shared lock on `users.lock` is what keeps the server: it is let go by `release`, or by the kernel when the
    agent dies. `follows`: another agent's keeper has the server, this one only tells of it.
    """

    def __init__(self, directory: str, argv: Sequence[str]) -> None:
        self._lock = sharing.join(directory)
        self.follows = False
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
                self.follows = bool(found.get("shared", found.get("kind") == "following"))
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
        """The server is not needed here any more: its keeper stops it and ends with the last one that let go."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1
            if self.follows and not self.ended:
                self.process.terminate()

    def note_end(self, status: int) -> None:
        """Its keeper was reaped."""
        self.process.returncode = status
        self.ended = True


def keeper_argv(agent_file: str, bundle: str, directory: str, node: int) -> List[str]:
    """The command that starts a keeper with this interpreter; `node` says whose turn at the snapshot's copies it is."""
    words = [sys.executable, "-I", "-S", agent_file, "keeper", "--bundle", bundle]
    return [*words, "--directory", directory, "--node", str(node)]
