"""Messages between server, keepers and commands: JSON objects, one a line, over unix sockets; files go along.

Standard library only, no heavy imports: keepers and apruns start with this.
"""

from __future__ import annotations

import json
import os
import socket
from typing import Any

# A qsub with its environment has some 10 kB, a listing of 300 jobs 0.5 MB; 16 MiB stops nonsense.
MESSAGE_MAX_BYTES = 16 * 1024 * 1024
_FILES_MAX = 8

Message = dict[str, Any]


class WireError(Exception):
    """The other side sent something that is no message."""


class Peer:
    """One end of a connection. `receive` gives whole messages, each with the files that came along with it."""

    def __init__(self, end: socket.socket) -> None:
        self.socket = end
        self._buffer = bytearray()
        self._files: list[int] = []

    def fileno(self) -> int:
        return self.socket.fileno()

    def send(self, message: Message, files: tuple[int, ...] = ()) -> None:
        """Send one message; `files` go along as copies. OSError when the other side is gone."""
        text = json.dumps(message).encode() + b"\n"
        if files:
            sent = socket.send_fds(self.socket, [text], list(files))
            text = text[sent:]
        self.socket.sendall(text)

    def receive(self) -> list[tuple[Message, list[int]]] | None:
        """Messages that have arrived, after one read; None when the other side has closed.

        A message says by `files` how many files belong to it. The receiver closes them.
        """
        try:
            block, files, _, _ = socket.recv_fds(self.socket, 262144, _FILES_MAX, socket.MSG_CMSG_CLOEXEC)
        except ConnectionError:
            return None
        self._files += files
        if not block:
            return None
        self._buffer += block
        if len(self._buffer) > MESSAGE_MAX_BYTES:
            raise WireError(f"a message of more than {MESSAGE_MAX_BYTES} bytes")
        *lines, rest = self._buffer.split(b"\n")
        self._buffer = bytearray(rest)
        return [self._message(bytes(line)) for line in lines]

    def close(self) -> None:
        """Close the connection and every file that was not taken."""
        for fd in self._files:
            os.close(fd)
        self._files.clear()
        self.socket.close()

    def _message(self, line: bytes) -> tuple[Message, list[int]]:
        try:
            message = json.loads(line)
        except ValueError as error:
            raise WireError(f"no JSON: {error}") from None
        if not isinstance(message, dict):
            raise WireError("no JSON object")
        count = int(message.get("files", 0))
        files, self._files = self._files[:count], self._files[count:]
        return message, files


# Where commands of users go (absent during an outage), and where applications and orders go.
SERVER, MACHINE = "server.sock", "machine.sock"


def socket_path(runtime: str, name: str) -> tuple[str, int]:
    """Path of a socket in `runtime`, short whatever the length of the directory's name.

    Returns the path and the file that keeps it valid; the caller closes that when it has bound or connected.
    """
    directory = os.open(runtime, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    return f"/proc/self/fd/{directory}/{name}", directory


def connect(runtime: str, timeout_s: float | None = None) -> Peer:
    """Connect to the machine of `runtime`, also while its batch server is away; OSError when there is none."""
    path, directory = socket_path(runtime, MACHINE)
    end = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        end.settimeout(timeout_s)
        end.connect(path)
    except OSError:
        end.close()
        raise
    finally:
        os.close(directory)
    return Peer(end)
