"""Nodes of the virtual world: the real gate and the real job steps, a payload log that knows the truth."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any

from pilot.multijob.node.gate import Start, gate_steps
from pilot.multijob.node.manifest import Job, parse_manifest
from pilot.multijob.node.steps import Collect, Collected, Line, PayloadEnd, RunPayload, job_steps, look
from pilot.ports import JournalLine
from simulators.world.sharedfs import SharedFiles


@dataclass(frozen=True, slots=True)
class Ran:
    """One payload run as the node knows it: never taken from our own records."""

    panda_id: int
    attempt_nr: int
    start_s: float
    node: str


@dataclass(slots=True)
class Agent:
    """One agent that works its list one job after the other. `hanging`: it does nothing until it is let go on."""

    bundle_dir: str
    name: str
    jobs: list[Job]
    run_s: float
    poll_s: float
    shared: SharedFiles
    ran: list[Ran]
    placed: dict[tuple[int, int], float]
    lines: list[tuple[float, JournalLine]] = field(default_factory=list)
    hanging: bool = False
    over: bool = False
    closed: bool = False
    _steps: Generator[Any, Any, Any] | None = None
    _payload_ends_s: float | None = None
    _request: Any = None
    _looked_s: float = 0.0

    def advance(self, now_s: float) -> None:
        """Do everything that is due at `now_s`."""
        while not (self.hanging or self.over):
            if self._steps is None:
                if not self.jobs:
                    self.over = True
                    return
                self._steps = job_steps(self.bundle_dir, self.jobs[0], 0)
                self._request = next(self._steps)
            if not self._go_on(now_s):
                return

    def _go_on(self, now_s: float) -> bool:
        """One request of the job's steps; False if it has to wait."""
        match self._request:
            case Line(kind, body):
                self._write(now_s, kind, body)
                return self._send(None)
            case RunPayload(job, _):
                return self._payload(job, now_s)
            case Collect(job, _, end, outputs, _):
                return self._send(self._collect(job, end, outputs, now_s))
            case _:
                try:
                    reply = self.shared.perform(self._request, self.name)
                except OSError as error:
                    return self._throw(error)
                return self._send(reply)

    def _payload(self, job: Job, now_s: float) -> bool:
        if self._payload_ends_s is None:
            self.ran.append(Ran(job.panda_id, job.attempt_nr, now_s, self.name))
            self._payload_ends_s, self._looked_s = now_s + self.run_s, now_s
        closed = False
        if now_s >= self._looked_s + self.poll_s:
            self._looked_s = now_s
            closed = self.closed = self._run(look(self.bundle_dir))
        if now_s < self._payload_ends_s and not closed:
            return False
        self._payload_ends_s = None
        ended_by = "closed" if closed else None
        end = PayloadEnd(None if closed else 0, None, ended_by, self.run_s, self.run_s, 1.0, "", "")
        return self._send(end)

    def _run(self, steps: Generator[Any, Any, Any]) -> Any:
        reply = None
        try:
            request = next(steps)
            while True:
                reply = self.shared.perform(request, self.name)
                request = steps.send(reply)
        except StopIteration as done:
            return done.value

    def _collect(self, job: Job, end: PayloadEnd, outputs: bool, now_s: float) -> Collected:
        open_now = outputs and not self._run(look(self.bundle_dir))
        entries = []
        for place in [*job.outputs, *([job.log] if job.log else [])]:
            entries.append(
                {
                    "lfn": place.lfn,
                    "size": 1,
                    "adler32": "00000001",
                    "placed": open_now,
                    "reason": "" if open_now else "closed",
                }
            )
        if open_now:
            self.placed.setdefault((job.panda_id, job.attempt_nr), now_s)
        return Collected(end.exit_code == 0, (), 100, 100, tuple(entries), "")

    def _send(self, value: Any) -> bool:
        assert self._steps is not None
        try:
            self._request = self._steps.send(value)
        except StopIteration as done:
            self._steps = None
            self.jobs.pop(0)
            if done.value.closed or self.closed:
                self.over = True
        return True

    def _throw(self, error: OSError) -> bool:
        assert self._steps is not None
        try:
            self._request = self._steps.throw(error)
        except StopIteration:
            self._steps = None
            self.jobs.pop(0)
        except OSError:
            self.over = True
        return True

    def _write(self, now_s: float, kind: str, body: dict[str, Any]) -> None:
        number = len(self.lines) + 1
        self.lines.append((now_s, JournalLine(f"node.{self.name}.journal", number, number, kind, body)))


def run_gate(shared: SharedFiles, directory: str, number: int, start: Start) -> bool:
    """The real gate to its end; True if it launches."""
    steps = gate_steps(directory, number, start, "link", 0.0)
    reply: Any = None
    error: OSError | None = None
    try:
        request = next(steps)
        while True:
            try:
                reply, error = shared.perform(request, start.host), None
            except OSError as caught:
                error = caught
            request = steps.throw(error) if error is not None else steps.send(reply)
    except StopIteration as done:
        return bool(done.value.launch)


def node_lists(manifest: str) -> list[list[Job]]:
    """Jobs of each node."""
    parsed = parse_manifest(manifest)
    return [list(parsed.jobs[index]) for index in sorted(parsed.jobs)]
