"""The commands on PATH: qsub, qstat, qdel, pbsnodes and aprun carry their words to the server and print its answer.

They know nothing by themselves. Standard library only and few imports: a qsub must not take long.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from simulators.torque.wire import Message, Peer, connect

# Signals that aprun passes on to the ranks (aprun manual).
_FORWARDED = ("HUP", "INT", "QUIT", "TERM", "ABRT", "USR1", "USR2", "URG", "WINCH")


def main(verb: str, runtime: str, server_name: str) -> int:
    """Run one command; returns its exit code."""
    try:
        server = connect(runtime)
    except OSError:
        return _server_down(verb, server_name)
    message: Message = {
        "verb": verb,
        "words": sys.argv[1:],
        "cwd": _working_directory(),
        "environment": dict(os.environ),
        "umask": _umask(),
    }
    if verb == "aprun":
        return _aprun(server, message)
    answer = _ask(server, message)
    if answer is not None and answer.get("want") == "stdin":
        answer = _ask(server, {**message, "stdin": sys.stdin.read()})
    if answer is None:
        sys.stderr.write(f"{verb}: End of File\n")
        return 67 if verb != "pbsnodes" else 1
    return _print(answer)


def _ask(server: Peer, message: Message) -> Message | None:
    try:
        server.send(message)
        return _answer(server)
    except OSError:
        return None


def _answer(server: Peer) -> Message | None:
    while (messages := server.receive()) is not None:
        if messages:
            return messages[0][0]
    return None


def _print(answer: Message) -> int:
    sys.stdout.write(answer["stdout"])
    sys.stdout.flush()
    sys.stderr.write(answer["stderr"])
    return int(answer["exit_code"])


def _aprun(server: Peer, message: Message) -> int:
    """Hand our stdout and stderr to the ranks, pass signals on, and wait for the end of the application."""

    def forward(number: int, frame: Any) -> None:
        try:
            server.send({"verb": "forward", "signal": number})
        except OSError:
            pass

    for name in _FORWARDED:
        signal.signal(getattr(signal, f"SIG{name}"), forward)
    outputs = []
    for fd in (1, 2):
        try:
            outputs.append(os.dup(fd))
        except OSError:
            outputs.append(os.open(os.devnull, os.O_WRONLY))
    try:
        server.send({**message, "files": 2}, tuple(outputs))
        answer = _answer(server)
    except OSError:
        answer = None
    if answer is None:
        sys.stderr.write("aprun: lost the connection to the application scheduler\n")
        return 1
    return _print(answer)


def _working_directory() -> str:
    try:
        return os.getcwd()
    except OSError:
        return "/"


def _umask() -> int:
    now = os.umask(0o077)
    os.umask(now)
    return now


def _server_down(verb: str, name: str) -> int:
    """What the commands say when nobody listens (captured from Torque 6.1.3)."""
    once = (
        f"\nUnable to communicate with {name}(127.0.0.1)\nCannot connect to specified server host '{name}'.\n"
    )
    match verb:
        case "aprun":
            sys.stderr.write("aprun: no connection to the application scheduler\n")
            return 1
        case "pbsnodes":
            sys.stderr.write(
                f"{once}pbsnodes: cannot connect to server {name}, error=111 (Connection refused)\n"
            )
            return 1
    times = 3 if verb == "qstat" else 1
    sys.stderr.write(
        f"{once * times}{verb}: cannot connect to server {name} (errno=111) Connection refused\n"
    )
    if verb == "qstat":
        sys.stderr.write("qstat: Error (111 - Connection refused) \n")
    return 111
