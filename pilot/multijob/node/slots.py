"""The slots of a node: the steps of each job, as far as they go now. Pure: operations are yielded, replies are sent."""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple, Union

from pilot.multijob.node.files import Steps
from pilot.multijob.node.manifest import Job
from pilot.multijob.node.orders import Gather, Kill, Request, Spawn, Terminate
from pilot.multijob.node.setups import Made
from pilot.multijob.node.steps import (
    Collect,
    Collected,
    InputsMade,
    JobResult,
    Line,
    MakeInputs,
    PayloadEnd,
    RunPayload,
    job_steps,
)
from pilot.multijob.node.supply import Supply


class Post(NamedTuple):
    """Where and as what this agent runs. `own` and `database` are directories that it makes (0700) and removes."""

    bundle: str
    round: int
    node: int
    seconds_left: float
    batch_id: str
    nonce: str
    own: str
    database: str
    agent_file: str
    host: str = ""


class InputsReady(NamedTuple):
    """The job in this slot waits for its inputs no longer: it is begun, or is over."""

    slot: int


class PayloadOver(NamedTuple):
    """The payload in this slot has ended; its files are being placed."""

    slot: int


class JobOver(NamedTuple):
    """The steps in this slot are done; it is free."""

    slot: int
    result: JobResult


class StepsFailed(NamedTuple):
    """A line, a look or a directory failed for good; the slot is free. `journal`: it was the line."""

    slot: int
    error: OSError
    journal: bool


class LinesLost(NamedTuple):
    """Lines of jobs that are over could not be written."""

    error: OSError


Progress = Union[InputsReady, PayloadOver, JobOver, StepsFailed, LinesLost]


class JournalFailed(OSError):
    """A line could not be written."""


def _append(lines: Sequence[Line]) -> Steps[Optional[OSError]]:
    """Write all, the last one durably and with it all before it. Replies why not, else None."""
    try:
        last = len(lines) - 1
        for number, line in enumerate(lines):
            yield line if line.sync == (number == last) else line._replace(sync=number == last)
    except OSError as error:
        return JournalFailed(*error.args)
    return None


class Slot:
    """A slot at work: the steps of its job. `ended_by`: why the agent ends its payload. `waits`: for its inputs."""

    def __init__(self, steps: Steps[JobResult]) -> None:
        self.steps = steps
        self.ended_by: Optional[str] = None
        self.waits = False


class Slots:
    """All slots of one agent.

    Lines are held until `commit`: what ends and what starts meanwhile becomes durable by one fsync, which on a shared
    filesystem takes longer than all else. Steps that await their line go on only then.
    """

    def __init__(self, post: Post, supply: Supply) -> None:
        self._post, self._supply = post, supply
        self._slots: Dict[int, Slot] = {}
        self._progress: List[Progress] = []
        self._held: List[Tuple[Optional[int], Line]] = []
        self.caldb_environment: Mapping[str, str] = {}
        self.setups: Dict[str, Made] = {}

    def progress(self) -> Tuple[Progress, ...]:
        """What has happened since the last call, in order."""
        progress, self._progress = tuple(self._progress), []
        return progress

    def commit(self) -> Steps[None]:
        """Make all held lines durable and let the steps that await them go on, until no line is held."""
        while self._held:
            held, self._held = self._held, []
            error = yield from _append([line for _, line in held])
            if error is not None and any(slot is None for slot, _ in held):
                self._progress.append(LinesLost(error))
            for slot, _ in held:
                if slot is not None:
                    yield from self._advance(slot, None, error)

    def commit_ends(self) -> Steps[None]:
        """At the end of the agent: lines of jobs that are over; what awaits its line is not begun any more."""
        held, self._held = self._held, []
        error = yield from _append([line for slot, line in held if slot is None])
        if error is not None:
            self._progress.append(LinesLost(error))

    def start(self, job: Job, slot: int) -> Steps[None]:
        """Begin a job in a free slot."""
        assert slot not in self._slots
        self._slots[slot] = Slot(job_steps(self._post.bundle, job, slot))
        yield from self._advance(slot, None)

    def supplied(self) -> Steps[None]:
        """Begin what is due for inputs, and let jobs go on that have them all (or never will)."""
        errands, ready = self._supply.step()
        while errands or ready:
            for errand in errands:
                yield errand
            for slot, made in ready:
                yield from self._go_on(slot, made)
            errands, ready = self._supply.step()

    def _go_on(self, slot: int, made: InputsMade) -> Steps[None]:
        self._slots[slot].waits = False
        self._progress.append(InputsReady(slot))
        yield from self._advance(slot, made)

    def terminate(self, slot: int, why: str, politely: bool) -> Steps[None]:
        """Note why the payload is ended; SIGTERM if it has time to end by itself. One that waits is not started."""
        if slot in self._slots:
            self._slots[slot].ended_by = why
            if self._slots[slot].waits:
                yield from self._go_on(slot, InputsMade((), ended_by=why))
            elif politely:
                yield Terminate(slot)

    def kill(self, slot: int) -> Steps[None]:
        """SIGKILL everything of the payload."""
        if slot in self._slots:
            yield Kill(slot)

    def payload_ended(self, slot: int, end: PayloadEnd) -> Steps[None]:
        """Its facts, or those of a step, and why the agent ended it."""
        why = self._slots[slot].ended_by
        yield from self._advance(slot, end if why is None else end._replace(ended_by=why))

    def gathered(self, slot: int, collected: Collected) -> Steps[None]:
        """Its files are placed."""
        yield from self._advance(slot, collected)

    def _advance(self, slot: int, reply: Any, error: Optional[OSError] = None) -> Steps[None]:
        """Carry out the steps in this slot until they wait for a line, the payload or its files, or are over."""
        steps = self._slots[slot].steps
        try:
            operation = steps.send(reply) if error is None else steps.throw(error)
            while True:
                if isinstance(operation, MakeInputs):
                    self._supply.ask(slot, operation.job)
                    self._slots[slot].waits = True
                    return
                if isinstance(operation, Line):
                    self._held.append((slot if operation.awaited else None, operation))
                    if operation.awaited:
                        return
                    operation = steps.send(None)
                    continue
                try:
                    reply = yield self._order(operation)
                except OSError as failed:
                    operation = steps.throw(failed)
                    continue
                if isinstance(operation, Collect):
                    self._progress.append(PayloadOver(slot))
                if isinstance(operation, (Collect, RunPayload)) and reply is None:
                    return
                operation = steps.send(reply)
        except StopIteration as stop:
            self._leave(slot)
            self._progress.append(JobOver(slot, stop.value))
        except OSError as failed:
            self._leave(slot)
            self._progress.append(StepsFailed(slot, failed, isinstance(failed, JournalFailed)))

    def _leave(self, slot: int) -> None:
        del self._slots[slot]
        self._supply.leave(slot)

    def _order(self, operation: Any) -> Any:
        """What the host is asked for instead of a job's own words; file operations and lines as they are."""
        if isinstance(operation, RunPayload):
            job, slot, step = operation.job, operation.slot, operation.step
            if step is not None:
                job = job._replace(argv=job.steps[step].argv)
            setup = Made() if job.setup is None else self.setups[job.setup]
            work, again = self._work(job), bool(step)
            return Spawn(job, slot, work, self.caldb_environment, operation.inputs, setup, again)
        if isinstance(operation, Collect):
            post, job = self._post, operation.job
            request = Request(
                post.bundle,
                job,
                self._work(job),
                operation.end,
                operation.place_outputs,
                operation.place_log,
                post.nonce,
            )
            return Gather(operation.slot, request)
        return operation

    def _work(self, job: Job) -> str:
        return "%s/%d.%d" % (self._post.own, job.panda_id, job.attempt_nr)
