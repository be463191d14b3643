"""The commands on PATH: qsub, qstat, qdel and pbsnodes carry their words to the server and print its answer.

They know nothing by themselves. A qsub is to cost no more than the real one, so this imports nothing that is not
there when the interpreter has started: `_socket` and `_json` are the compiled halves of socket and json (10 ms
each). aprun, which stays, has a module of its own.
"""

from __future__ import annotations

import _json
import _socket
import os
import sys

# Words before the two texts of a plain answer: lengths of stdout and stderr, exit code, what is wanted (or -).
_HEAD_WORDS = 4


def main(verb: str, runtime: str, server_name: str) -> int:
    """Run one command; returns its exit code."""
    if verb == "aprun":
        from simulators.torque.aprun_client import run_aprun

        return run_aprun(runtime)
    server = _connect(runtime)
    if server is None:
        text, exit_code = server_down(verb, server_name)
        sys.stderr.write(text)
        return exit_code
    request = _render(verb)
    answer = _ask(server, request + "}\n")
    if answer is not None and answer[3] == "stdin":
        answer = _ask(server, f'{request},"stdin":{_text(sys.stdin.read())}}}\n')
    if answer is None:
        sys.stderr.write(f"{verb}: End of File\n")
        return 1 if verb == "pbsnodes" else 67
    stdout, stderr, exit_code, _ = answer
    _write(1, stdout)
    _write(2, stderr)
    return exit_code


def _connect(runtime: str) -> _socket.socket | None:
    """Through the directory's descriptor: a socket's path may have 107 characters, a directory's name more."""
    try:
        directory = os.open(runtime, os.O_PATH | os.O_DIRECTORY)
        server = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        server.connect(f"/proc/self/fd/{directory}/server.sock")
    except OSError:
        return None
    return server


def _render(verb: str) -> str:
    """The request as JSON, still open at its end."""
    words = ",".join(_text(word) for word in sys.argv[1:])
    environment = ",".join(f"{_text(name)}:{_text(value)}" for name, value in os.environ.items())
    try:
        cwd = os.getcwd()
    except OSError:
        cwd = "/"
    return f'{{"verb":{_text(verb)},"plain":true,"words":[{words}],"cwd":{_text(cwd)},"environment":{{{environment}}}'


def _text(value: str) -> str:
    return str(_json.encode_basestring_ascii(value))


def _ask(server: _socket.socket, request: str) -> tuple[bytes, bytes, int, str] | None:
    try:
        server.sendall(request.encode())
        head, _, texts = _receive(server, b"", b"\n").partition(b"\n")
        words = head.decode().split()
        if len(words) != _HEAD_WORDS:
            return None
        length = int(words[0])
        texts = _receive(server, texts, None, length + int(words[1]))
    except OSError:
        return None
    return texts[:length], texts[length:], int(words[2]), words[3]


def _receive(server: _socket.socket, have: bytes, end: bytes | None, length: int = 0) -> bytes:
    """Read until `end` is in it, or until it is `length` long, or until the server has closed."""
    while len(have) < length if end is None else end not in have:
        block = server.recv(262144)
        if not block:
            raise ConnectionError("closed")
        have += block
    return have


def _write(fd: int, text: bytes) -> None:
    while text:
        text = text[os.write(fd, text) :]


def server_down(verb: str, name: str) -> tuple[str, int]:
    """What the commands say and exit with when nobody listens (captured from Torque 6.1.3)."""
    once = (
        f"\nUnable to communicate with {name}(127.0.0.1)\nCannot connect to specified server host '{name}'.\n"
    )
    if verb == "pbsnodes":
        return f"{once}pbsnodes: cannot connect to server {name}, error=111 (Connection refused)\n", 1
    times = 3 if verb == "qstat" else 1
    text = f"{once * times}{verb}: cannot connect to server {name} (errno=111) Connection refused\n"
    return text + ("qstat: Error (111 - Connection refused) \n" if verb == "qstat" else ""), 111


def authority_down(verb: str) -> tuple[str, int]:
    """What they say when trqauthd, which vouches for users, is not there (captured)."""
    times = 3 if verb == "qstat" else 1
    reason = "could not connect to trqauthd"
    text = "socket_connect_unix failed: 15137\n" * times
    text += f"{verb}: cannot connect to server (null) (errno=15137) {reason}\n"
    return text + (f"qstat: Error (15137 - {reason}) \n" if verb == "qstat" else ""), 33
