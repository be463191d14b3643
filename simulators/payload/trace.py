"""The trace that payloads write and the rule by which `payloads_run_twice` is counted. Standard library only.

`$SIM_TRACE_DIR/<PANDA_ID>.<PANDA_ATTEMPT>.<pid>.jsonl` (docs/architecture/files.md section 5). The start line becomes
visible whole or not at all (link of a private file, which is exclusive as O_EXCL is); the end line is appended when
the payload ends by itself, with its exit code. A payload that is ended by a signal leaves no end line.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from simulators.payload.exits import Exit, PayloadError

TRACE_DIR = "SIM_TRACE_DIR"
SUFFIX = ".jsonl"


class TraceError(Exception):
    """A trace file that cannot be understood: file, line, found, expected."""


@dataclass(frozen=True, slots=True)
class RunTrace:
    """One start of a payload. Times are CLOCK_MONOTONIC of the machine, ns. `end_ns` and `exit_code` None: no end line.

    `alive`: no end line, and the process (pid with that start time) still existed when the trace was read.
    """

    panda_id: int
    attempt: int
    work: str | None
    pid: int
    pid_start: int
    start_ns: int
    end_ns: int | None = None
    exit_code: int | None = None
    alive: bool = False


# --- writing ------------------------------------------------------------------------------------------------


def start_trace(environment: Mapping[str, str]) -> Path | None:
    """Write the start line of this process; None when SIM_TRACE_DIR is not set.

    Raises PayloadError: USAGE when PANDA_ID or PANDA_ATTEMPT is no number, TRACE_FAILED when it cannot be written.
    """
    directory = environment.get(TRACE_DIR)
    if not directory:
        return None
    numbers = {}
    for name in ("PANDA_ID", "PANDA_ATTEMPT"):
        text = environment.get(name, "")
        if not (text.isascii() and text.isdecimal()):
            raise PayloadError(Exit.USAGE, f"{TRACE_DIR} is set and {name} is {text!r}, expected a number")
        numbers[name] = int(text)
    pid = os.getpid()
    start = {
        "event": "start",
        "panda_id": numbers["PANDA_ID"],
        "attempt": numbers["PANDA_ATTEMPT"],
        "pid": pid,
        "pid_start": process_start(pid),
        "host": socket.gethostname(),
        "work": environment.get("PRODSYS_WORK"),
        **_times(),
    }
    path = Path(directory) / f"{numbers['PANDA_ID']}.{numbers['PANDA_ATTEMPT']}.{pid}{SUFFIX}"
    private = path.with_name(f".{path.name}.part")
    try:
        private.write_text(json.dumps(start) + "\n")
        try:
            os.link(private, path)
        finally:
            private.unlink()
    except OSError as error:
        raise PayloadError(Exit.TRACE_FAILED, f"cannot write the trace {path}: {error.strerror}") from error
    return path


def end_trace(path: Path | None, exit_code: int) -> None:
    """Append the end line. Raises PayloadError(TRACE_FAILED)."""
    if path is None:
        return
    try:
        with path.open("a") as stream:
            stream.write(json.dumps({"event": "end", "exit_code": exit_code, **_times()}) + "\n")
    except OSError as error:
        raise PayloadError(Exit.TRACE_FAILED, f"cannot write the trace {path}: {error.strerror}") from error


def _times() -> dict[str, str | int]:
    now = datetime.now(UTC)
    utc = now.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return {"utc": utc, "mono_ns": time.clock_gettime_ns(time.CLOCK_MONOTONIC)}


# --- reading ------------------------------------------------------------------------------------------------


def read_traces(directory: Path | str) -> list[RunTrace]:
    """All traces of a directory, by start. Raises TraceError for a file that is none, OSError for the directory."""
    paths = sorted(
        path for path in Path(directory).iterdir() if path.suffix == SUFFIX and path.name[0] != "."
    )
    return sorted((_read_trace(path) for path in paths), key=lambda trace: trace.start_ns)


def parse_trace(text: str, name: str) -> RunTrace:
    """A trace from the text of its file, `alive` False. A last line without its line feed is not there yet."""
    lines = text.split("\n")[:-1]
    if not 1 <= len(lines) <= 2:
        raise TraceError(f"{name}: {len(lines)} lines, expected a start line and at most one end line")
    try:
        start = json.loads(lines[0])
        nothing: dict[str, Any] = {"event": "end", "mono_ns": None, "exit_code": None}
        end: dict[str, Any] = json.loads(lines[1]) if len(lines) == 2 else nothing
        if (start["event"], end["event"]) != ("start", "end"):
            raise TraceError(f"{name}: events {start['event']!r}, {end['event']!r}, expected 'start', 'end'")
        return RunTrace(
            panda_id=int(start["panda_id"]),
            attempt=int(start["attempt"]),
            work=start["work"],
            pid=int(start["pid"]),
            pid_start=int(start["pid_start"]),
            start_ns=int(start["mono_ns"]),
            end_ns=end["mono_ns"],
            exit_code=end["exit_code"],
        )
    except (ValueError, KeyError, TypeError) as error:
        raise TraceError(f"{name}: not a trace: {error!r}") from error


def _read_trace(path: Path) -> RunTrace:
    trace = parse_trace(path.read_text(), str(path))
    if trace.end_ns is None and process_start(trace.pid) == trace.pid_start:
        # it may have ended between the two looks, with its line written: look again
        again = parse_trace(path.read_text(), str(path))
        return again if again.end_ns is not None else replace(again, alive=True)
    return trace


def process_start(pid: int) -> int | None:
    """Start time of a process in clock ticks since boot (field 22 of its stat); None when gone or defunct."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    # the name may hold blanks and parentheses; the fields after it may not
    fields = stat.rpartition(b")")[2].split()
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


# --- the rule -----------------------------------------------------------------------------------------------


def runs_twice(traces: Iterable[RunTrace], accepted: Collection[tuple[int, int]] | None = None) -> int:
    """Number of starts that should not have been, given those before them.

    A start counts, once, if for an earlier start one of these holds:
    * same (PandaID, attempt), and the earlier one has end evidence or is alive;
    * same work, and the earlier one was alive at the start of the later one;
    * same work, and both were accepted.
    `accepted` are the (PandaID, attempt) whose result the server has; without it, exit code 0 is taken for that.
    A start without an end line whose process is gone was ended by a signal at an unknown time: starting again is right.
    """
    groups: dict[object, list[RunTrace]] = defaultdict(list)
    counted = 0
    for later in sorted(traces, key=lambda one: one.start_ns):
        keys: list[object] = [(later.panda_id, later.attempt)]
        if later.work is not None:
            keys.append(later.work)
        counted += any(_clash(earlier, later, accepted) for key in keys for earlier in groups[key])
        for key in keys:
            groups[key].append(later)
    return counted


def _clash(earlier: RunTrace, later: RunTrace, accepted: Collection[tuple[int, int]] | None) -> bool:
    ended = earlier.end_ns is not None
    if (earlier.panda_id, earlier.attempt) == (later.panda_id, later.attempt):
        return ended or earlier.alive
    alive_then = earlier.alive or (earlier.end_ns is not None and earlier.end_ns > later.start_ns)
    return alive_then or (_accepted(earlier, accepted) and _accepted(later, accepted))


def _accepted(trace: RunTrace, accepted: Collection[tuple[int, int]] | None) -> bool:
    if accepted is None:
        return trace.exit_code == 0
    return (trace.panda_id, trace.attempt) in accepted
