"""The control socket: `status` works while the loop is stuck, because it is answered from the last published text.

A unix socket of mode 0600 in the state directory; one JSON line asked, one JSON line answered. Every other request
is a command: it waits on the desk until the loop takes it, and is answered when its orders are durable. After its
answer a command's connection stays open until the client closes it: its end tells a client that the daemon is gone.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from pilot.ports import Done

NAME = "control.sock"
LINE_MAX = 16 * 1024 * 1024


class ControlError(Exception):
    """The daemon could not be asked; the text says why."""


# The loop takes commands each tick; their orders are durable after one commit, which a full disk can hold up.
ANSWER_WAIT_S = 60.0
# Commands that wait at once: nobody has so many hands, and each holds a thread.
COMMANDS_MAX = 64


class Desk:
    """Between the threads that serve connections and the loop: requests go in, answers come back by serial.

    `parse(serial, request)` makes the command that `take` gives; what it raises is the answer.
    """

    def __init__(self, parse: Callable[[int, Mapping[str, Any]], Any]) -> None:
        self._parse = parse
        # called when a command lies on the desk
        self.wake: Callable[[], None] = lambda: None
        self._lock = threading.Condition()
        self._serial = 0
        self._waiting: list[Any] = []
        self._open: set[int] = set()
        self._answers: dict[int, dict[str, Any]] = {}

    def ask(self, request: Mapping[str, Any], timeout_s: float = ANSWER_WAIT_S) -> dict[str, Any]:
        """Put one request on the desk and wait for its answer."""
        with self._lock:
            if len(self._open) >= COMMANDS_MAX:
                return {"error": f"{COMMANDS_MAX} commands wait already"}
            self._serial += 1
            serial = self._serial
            self._open.add(serial)
        # Without the lock: it may read files, and the loop takes commands under it.
        try:
            command = self._parse(serial, request)
        except ValueError as error:
            with self._lock:
                self._open.discard(serial)
            return {"error": str(error)}
        with self._lock:
            self._waiting.append(command)
        self.wake()
        with self._lock:
            self._lock.wait_for(lambda: serial in self._answers, timeout_s)
            self._open.discard(serial)
            late = {
                "error": f"not durable after {timeout_s:.0f} s; it may still be done: look at pilot status"
            }
            return self._answers.pop(serial, late)

    def take(self) -> tuple[Any, ...]:
        """The commands that came since the last call."""
        with self._lock:
            taken, self._waiting = tuple(self._waiting), []
            return taken

    def tell(self, serial: int, done: bool, lines: tuple[str, ...]) -> Done:
        """The answer to one command."""
        with self._lock:
            if serial in self._open:
                self._answers[serial] = {"done": done, "lines": list(lines)}
                self._lock.notify_all()
        return Done()


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    published = b"{}"
    desk: Desk | None = None


class _Request(socketserver.StreamRequestHandler):
    timeout = 5.0

    def handle(self) -> None:
        line = self.rfile.readline(65536)
        try:
            request = json.loads(line)
        except ValueError:
            request = None
        if not isinstance(request, dict) or not isinstance(self.server, _Server):
            request = {}
        server = cast(_Server, self.server)
        command = request.get("verb") != "status"
        if not command:
            answer = server.published
        elif server.desk is None or not request:
            answer = b'{"error": "unknown request"}'
        else:
            answer = json.dumps(server.desk.ask(request)).encode()
        with contextlib.suppress(OSError):
            self.wfile.write(answer + b"\n")
            self.wfile.flush()
            if command and b'"done"' in answer:
                self.connection.settimeout(None)
                self.rfile.read(1)


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

    def __init__(self, state_dir: Path, desk: Desk | None = None) -> None:
        self._path = state_dir / NAME
        self._path.unlink(missing_ok=True)
        with _short_path(state_dir) as path:
            self._server = _Server(path, _Request, bind_and_activate=False)
            self._server.desk = desk
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
    """The daemon's answer to one question; raises ControlError."""
    return _exchange(state_dir, {"verb": verb}, timeout_s)


def order_daemon(
    state_dir: Path, request: Mapping[str, Any], *, gone_within_s: float | None = None
) -> dict[str, Any]:
    """The daemon's answer {"done", "lines"} to a command; raises ControlError.

    `gone_within_s`: then wait so long until the daemon's process is gone; "gone" says whether it is.
    """
    return _exchange(state_dir, request, ANSWER_WAIT_S + 10.0, gone_within_s)


def _exchange(
    state_dir: Path, request: Mapping[str, Any], timeout_s: float, gone_within_s: float | None = None
) -> dict[str, Any]:
    try:
        with socket.socket(socket.AF_UNIX) as connection, _short_path(state_dir) as path:
            connection.settimeout(timeout_s)
            connection.connect(path)
            connection.sendall(json.dumps(request).encode() + b"\n")
            with connection.makefile("rb") as source:
                answer = json.loads(source.readline(LINE_MAX))
            if gone_within_s is not None and isinstance(answer, dict) and "error" not in answer:
                answer["gone"] = _ends_within(connection, gone_within_s)
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
        reason = answer.get("error") if isinstance(answer, dict) else answer
        raise ControlError(f"daemon on {state_dir}: {reason}")
    return answer


def _ends_within(connection: socket.socket, timeout_s: float) -> bool:
    """Whether the other side is gone within this time: the kernel closes its connections with its process."""
    connection.settimeout(timeout_s)
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False
