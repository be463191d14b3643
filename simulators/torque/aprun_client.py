"""aprun on PATH: hands its outputs to the ranks, passes signals on, and waits for the end of the application.

Standard library only and few imports.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from simulators.torque.wire import Message, Peer, connect

# Signals that aprun passes on to the ranks (aprun manual).
_FORWARDED = ("HUP", "INT", "QUIT", "TERM", "ABRT", "USR1", "USR2", "URG", "WINCH")


def run_aprun(runtime: str) -> int:
    """Run one application; returns aprun's exit code."""
    try:
        server = connect(runtime)
    except OSError:
        sys.stderr.write("aprun: no connection to the application scheduler\n")
        return 1

    def forward(number: int, frame: Any) -> None:
        try:
            server.send({"verb": "forward", "signal": number})
        except OSError:
            pass

    try:
        server.send({**_request(), "files": 2}, _outputs())
        for name in _FORWARDED:
            signal.signal(getattr(signal, f"SIG{name}"), forward)
        answer = _wait(server)
    except OSError:
        answer = None
    if answer is None:
        sys.stderr.write("aprun: lost the connection to the application scheduler\n")
        return 1
    sys.stdout.write(answer["stdout"])
    sys.stdout.flush()
    sys.stderr.write(answer["stderr"])
    return int(answer["exit_code"])


def _request() -> Message:
    umask = os.umask(0o077)
    os.umask(umask)
    try:
        cwd = os.getcwd()
    except OSError:
        cwd = "/"
    return {
        "verb": "aprun",
        "words": sys.argv[1:],
        "cwd": cwd,
        "environment": dict(os.environ),
        "umask": umask,
    }


def _outputs() -> tuple[int, int]:
    """Copies of our stdout and stderr; /dev/null for one that is closed."""
    copies = []
    for fd in (1, 2):
        try:
            copies.append(os.dup(fd))
        except OSError:
            copies.append(os.open(os.devnull, os.O_WRONLY))
    return copies[0], copies[1]


def _wait(server: Peer) -> Message | None:
    while (messages := server.receive()) is not None:
        if messages:
            return messages[0][0]
    return None
