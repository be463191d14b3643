"""The one place where the pilot starts a command: an argv list, a time-out, an explicit environment, no shell.

`run_command` decides nothing: it returns what happened as a value. A command that hangs (a stopped pbs_server
never answers) is ended with its whole process group, so nothing that it started keeps a pipe or a socket open.
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO

# A listing of 300 batch jobs is 0.5 MB (1.3 to 1.7 kB a job); 64 MiB is room for 40,000 and stops a runaway.
OUTPUT_MAX_BYTES = 64 * 1024 * 1024

_CHUNK = 65536


@dataclass(frozen=True, slots=True)
class Completed:
    """The command ended by itself. `exit_code` is negative where a signal ended it (-9: SIGKILL)."""

    exit_code: int
    stdout: str
    stderr: str
    took_s: float


@dataclass(frozen=True, slots=True)
class TimedOut:
    """No end within the limit: its process group got SIGKILL. Whether it took effect is not known."""

    limit_s: float
    stdout: str
    stderr: str


@dataclass(frozen=True, slots=True)
class TooMuchOutput:
    """More output than the limit: its process group got SIGKILL. Whether it took effect is not known."""

    limit_bytes: int


@dataclass(frozen=True, slots=True)
class NotStarted:
    """The command was never run: missing or not executable, no such directory, no more processes."""

    reason: str


CommandOutcome = Completed | TimedOut | TooMuchOutput | NotStarted


def describe_failure(what: str, outcome: CommandOutcome) -> str:
    """Why a command that should have ended with 0 told nothing; what it printed is escaped."""
    match outcome:
        case Completed(code, _, stderr):
            return f"{what} ended with {code}: {stderr[-300:]!a}"
        case NotStarted(reason):
            return reason
        case TimedOut(limit_s):
            return f"{what} gave no answer within {limit_s:g} s and was ended"
        case TooMuchOutput(limit_bytes):
            return f"{what} printed more than {limit_bytes} bytes and was ended"


def run_command(
    argv: Sequence[str],
    *,
    timeout_s: float,
    environment: Mapping[str, str],
    cwd: str | None = None,
    output_max_bytes: int = OUTPUT_MAX_BYTES,
) -> CommandOutcome:
    """Run argv to its end and return what happened; never raises for what the world does.

    `argv[0]` is looked up in the PATH of `environment`, not in that of this process. Standard input is empty.
    Undecodable bytes come back as backslash escapes. The time-out covers everything up to the end of both
    output streams, so a grandchild that keeps one open cannot hold the caller.
    """
    started_s = time.monotonic()
    try:
        running = subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=cwd,
            env=dict(environment),
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        return NotStarted(_reason(argv, error))
    # Not reaped before the group was signalled: until then its number cannot belong to another process.
    texts = {"stdout": bytearray(), "stderr": bytearray()}
    try:
        verdict = _collect(running, texts, started_s + timeout_s, output_max_bytes)
        if verdict == "closed":
            running.wait(max(0.0, started_s + timeout_s - time.monotonic()))
    except subprocess.TimeoutExpired:
        verdict = "late"
    except BaseException:
        _end_group(running)
        raise
    if verdict != "closed":
        _end_group(running)
    _close(running)
    stdout, stderr = (bytes(part).decode("utf-8", "backslashreplace") for part in texts.values())
    match verdict:
        case "closed":
            return Completed(running.returncode, stdout, stderr, time.monotonic() - started_s)
        case "late":
            return TimedOut(timeout_s, stdout, stderr)
        case _:
            return TooMuchOutput(output_max_bytes)


def _collect(running: subprocess.Popen[bytes], texts: dict[str, bytearray], end_s: float, limit: int) -> str:
    """Read both streams up to their ends: "closed", or "late", or "much"."""
    with selectors.DefaultSelector() as selector:
        for name in texts:
            stream: IO[bytes] = getattr(running, name)
            selector.register(stream, selectors.EVENT_READ, name)
        while selector.get_map():
            left_s = end_s - time.monotonic()
            if left_s <= 0:
                return "late"
            ready = selector.select(left_s)
            for key, _ in ready:
                block = os.read(key.fd, _CHUNK)
                if block:
                    texts[key.data] += block
                else:
                    selector.unregister(key.fileobj)
            if sum(len(part) for part in texts.values()) > limit:
                return "much"
    return "closed"


def _end_group(running: subprocess.Popen[bytes]) -> None:
    """SIGKILL to the command's process group, then reap the command."""
    try:
        os.killpg(running.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    running.wait()


def _close(running: subprocess.Popen[bytes]) -> None:
    for stream in (running.stdout, running.stderr):
        if stream is not None:
            stream.close()


def _reason(argv: Sequence[str], error: OSError | ValueError) -> str:
    name = argv[0] if argv else ""
    if isinstance(error, FileNotFoundError):
        return f"cannot start {name!r}: not found on PATH"
    if isinstance(error, PermissionError):
        return f"cannot start {name!r}: not executable"
    return f"cannot start {name!r}: {error}"
