"""One payload: its environment, its work directory, its processes. Facts only; what they mean is judged elsewhere."""

from __future__ import annotations

import os
import resource
import signal
import time
from typing import Any, Dict, FrozenSet, Mapping, NamedTuple, Optional, Sequence, Tuple

from pilot.multijob.node.journal import utc_text
from pilot.multijob.node.manifest import Job, Manifest
from pilot.multijob.node.processes import (
    Name,
    Seen,
    children,
    has_mark,
    look_at,
    members,
    send,
    snapshot,
    sweep,
)
from pilot.multijob.node.setups import Made, applied
from pilot.multijob.node.spawn import spawn
from pilot.multijob.node.steps import PayloadEnd

STDOUT, STDERR = "payload_stdout.txt", "payload_stderr.txt"
# The job's word for its inputs (docs/architecture/files.md, section 4).
INPUTS = "PRODSYS_INPUTS"
# What a shell reports for a command that cannot be run; the note says why.
EXIT_NOT_FOUND, EXIT_NOT_RUNNABLE = 127, 126


def payload_environment(
    manifest: Manifest, job: Job, node: int, slot: int, work: str, caldb: Mapping[str, str], setup: Made
) -> Dict[str, str]:
    """Everything the payload sees: site, set-up script, experiment, job, then what the agent says. Pure.

    Each overrides what stands before it; nothing overrides the agent.
    """
    return {
        **applied({"HOME": work, "TMPDIR": work, **manifest.environment}, setup),
        **manifest.experiment,
        **job.environment,
        **(caldb if job.kind.needs_caldb else {}),
        "PANDA_ID": str(job.panda_id),
        "PANDA_ATTEMPT": str(job.attempt_nr),
        "PILOT_BUNDLE": manifest.bundle_id,
        "PILOT_NODE_INDEX": str(node),
        "PILOT_SLOT": str(slot),
    }


def reading_from(job: Job, work: str, inputs: Sequence[Tuple[str, str]]) -> Job:
    """The job with its inputs in its work directory: wherever a word of it is the path of one. Pure."""
    if not inputs:
        return job
    there = {path: work + "/" + path.rpartition("/")[2] for path, _ in inputs}
    environment = dict(job.environment)
    if INPUTS in environment:
        words = environment[INPUTS].split(":")
        environment[INPUTS] = ":".join(there.get(word, word) for word in words)
    return job._replace(argv=tuple(there.get(word, word) for word in job.argv), environment=environment)


class Streams(NamedTuple):
    """Open files of stdout and stderr: what the payload does to their names does not matter."""

    stdout: int
    stderr: int

    def sizes(self) -> Tuple[int, int]:
        """Bytes of each."""
        return os.fstat(self.stdout).st_size, os.fstat(self.stderr).st_size

    def size_mib(self) -> float:
        """Of both together."""
        return sum(self.sizes()) / 1048576.0


class Payload:
    """A payload that runs in a slot. Made by `start_payload`."""

    def __init__(self, job: Job, work: str, pid: Optional[int], streams: Streams) -> None:
        self.job, self.work, self.streams = job, work, streams
        self.pid, self.reaped = pid, False
        self.mark = b"PANDA_ID=%d" % job.panda_id
        self.started_mono = time.monotonic()
        self.start_utc = utc_text(time.time())
        self.rss_mib = 0.0
        self.known: FrozenSet[Name] = frozenset()
        self._leader = Name(pid or 0, 0)

    def leader(self) -> Name:
        """Its first process. The start time is read late: until it is reaped its number is nobody else's."""
        if self.pid is not None and not self.reaped and self._leader.start == 0:
            seen = look_at(self.pid)
            self._leader = Name(self.pid, seen.start if seen is not None else 0)
        return self._leader

    def sample(self, seen: Mapping[int, Seen]) -> float:
        """Note who belongs to it and the memory of all of them together (shared pages count for each), in MiB."""
        self.known = members(
            seen, self.leader(), self.known, os.getpid(), lambda pid: has_mark(pid, self.mark)
        )
        rss_mib = sum(seen[name.pid].rss_mib for name in self.known)
        self.rss_mib = max(self.rss_mib, rss_mib)
        return rss_mib

    def terminate(self) -> None:
        """SIGTERM to its session's first process group."""
        if self.pid is not None and not self.reaped:
            try:
                os.killpg(self.pid, signal.SIGTERM)
            except (ProcessLookupError, PermissionError):
                send(self.leader(), signal.SIGTERM)

    def kill_all(self, reap: Any) -> int:
        """SIGKILL everything of it. Returns how many processes would not end."""

        def find() -> FrozenSet[Name]:
            self.sample(snapshot())
            return self.known

        return sweep(find, reap)

    def kill_escaped(self, expected: FrozenSet[int], reap: Any) -> int:
        """After its first process has ended: SIGKILL what it left behind. `expected`: the agent's other children."""
        here = children()
        if here is not None and not here - expected:
            return 0
        return self.kill_all(reap)

    def ended(self, status: int, usage: Any) -> PayloadEnd:
        """It was reaped: the facts, from wait4. Why it was ended is known to who asked for that."""
        self.reaped = True
        by_signal = os.WIFSIGNALED(status)
        return PayloadEnd(
            exit_code=None if by_signal else os.WEXITSTATUS(status),
            signal=os.WTERMSIG(status) if by_signal else None,
            ended_by=None,
            wall_s=time.monotonic() - self.started_mono,
            cpu_s=usage.ru_utime + usage.ru_stime,
            rss_mib=max(self.rss_mib, usage.ru_maxrss / 1024.0),
            start_utc=self.start_utc,
            end_utc=utc_text(time.time()),
        )


def start_payload(
    job: Job,
    work: str,
    environment: Mapping[str, str],
    file_max_mib: Optional[float] = None,
    inputs: Sequence[Tuple[str, str]] = (),
    before: Optional[Payload] = None,
) -> Tuple[Payload, Optional[PayloadEnd]]:
    """Spawn it in its own session and new work directory, with a link there to each of its inputs.

    After `before`, an earlier step of it: where that one ran, and with its streams.
    The second value is there if it could not be started.

    Raises OSError if the work directory cannot be made: that is the node's fault, not the job's.
    """
    streams = before.streams if before is not None else _make_place(work, inputs)
    try:
        pid = spawn(job.argv, environment, work, *streams)
    except (OSError, ValueError) as error:
        payload = Payload(job, work, None, streams)
        code = EXIT_NOT_FOUND if isinstance(error, FileNotFoundError) else EXIT_NOT_RUNNABLE
        now = utc_text(time.time())
        return payload, PayloadEnd(code, None, None, 0.0, 0.0, 0.0, now, now, "cannot be started: %s" % error)
    if file_max_mib is not None:
        _limit_files(pid, int(file_max_mib * 1048576))
    return Payload(job, work, pid, streams), None


def _make_place(work: str, inputs: Sequence[Tuple[str, str]]) -> Streams:
    os.mkdir(work, 0o700)
    for path, here in inputs:
        os.symlink(here, os.path.join(work, path.rpartition("/")[2]))
    stdout, stderr = (
        os.open(work + "/" + name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        for name in (STDOUT, STDERR)
    )
    return Streams(stdout, stderr)


def _limit_files(pid: int, size: int) -> None:
    """From outside: no code runs between fork and exec for that. One that has ended by now needs no limit."""
    try:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, size))
    except (ProcessLookupError, PermissionError):
        pass
