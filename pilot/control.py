"""The control socket: `status` works while the loop is stuck, because it is answered from the last published text.

A unix socket of mode 0600 in the state directory; one JSON line asked, one JSON line answered.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NAME = "control.sock"
LINE_MAX = 16 * 1024 * 1024


class ControlError(Exception):
    """The daemon could not be asked; the text says why."""


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    published = b"{}"


class _Request(socketserver.StreamRequestHandler):
    timeout = 5.0

    def handle(self) -> None:
        line = self.rfile.readline(65536)
        try:
            verb = json.loads(line).get("verb")
        except (ValueError, AttributeError):
            verb = None
        server = self.server
        known = verb == "status" and isinstance(server, _Server)
        answer = server.published if known else b'{"error": "unknown request"}'  # type: ignore[attr-defined]
        with contextlib.suppress(OSError):
            self.wfile.write(answer + b"\n")


@contextlib.contextmanager
def _short_path(state_dir: Path) -> Iterator[str]:
    """A path below the length limit of unix sockets for any state directory."""
    fd = os.open(state_dir, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{fd}/{NAME}"
    finally:
        os.close(fd)


class ControlSocket:
    """Serves requests in a thread of its own. Only the holder of the lease opens it."""

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / NAME
        self._path.unlink(missing_ok=True)
        with _short_path(state_dir) as path:
            self._server = _Server(path, _Request, bind_and_activate=False)
            try:
                # Linux gives the name the mode of the socket; a umask would be that of all threads.
                os.fchmod(self._server.fileno(), 0o600)
                self._server.server_bind()
                self._server.server_activate()
            except OSError:
                self._server.server_close()
                raise
        self._own = _identity(self._path)
        self._thread = threading.Thread(target=self._server.serve_forever, name="control", daemon=True)
        self._thread.start()

    def publish(self, document: dict[str, Any]) -> None:
        """What `status` answers from now on."""
        self._server.published = json.dumps(document).encode()

    def close(self) -> None:
        """Stop serving and remove the socket, unless a newer daemon has put its own in place."""
        self._server.shutdown()
        self._server.server_close()
        with contextlib.suppress(OSError):
            if _identity(self._path) == self._own:
                self._path.unlink()


def _identity(path: Path) -> tuple[int, int]:
    found = os.lstat(path)
    return found.st_dev, found.st_ino


def ask_daemon(state_dir: Path, verb: str, timeout_s: float = 10.0) -> dict[str, Any]:
    """The daemon's answer to one request; raises ControlError."""
    try:
        with socket.socket(socket.AF_UNIX) as connection, _short_path(state_dir) as path:
            connection.settimeout(timeout_s)
            connection.connect(path)
            connection.sendall(json.dumps({"verb": verb}).encode() + b"\n")
            with connection.makefile("rb") as source:
                answer = json.loads(source.readline(LINE_MAX))
    except FileNotFoundError as error:
        raise ControlError(f"no daemon runs on {state_dir}: {NAME} is not there") from error
    except ConnectionRefusedError as error:
        raise ControlError(f"no daemon runs on {state_dir}: nobody answers at {NAME}") from error
    except PermissionError as error:
        raise ControlError(f"{state_dir}/{NAME}: only the user that started the daemon may ask it") from error
    except TimeoutError as error:
        raise ControlError(f"daemon on {state_dir} gave no answer within {timeout_s:.0f} s") from error
    except (OSError, ValueError) as error:
        raise ControlError(f"daemon on {state_dir} gave no answer: {error}") from error
    if not isinstance(answer, dict) or "error" in answer:
        raise ControlError(f"daemon on {state_dir}: {answer}")
    return answer
