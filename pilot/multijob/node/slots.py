"""The slots of a node: the steps of each job, as far as they go now. Pure: operations are yielded, replies are sent."""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Tuple, Union

from pilot.multijob.node.files import Steps
from pilot.multijob.node.manifest import Job
from pilot.multijob.node.orders import Gather, Kill, Request, Spawn, Terminate
from pilot.multijob.node.steps import (
    Collect,
    Collected,
    JobResult,
    Line,
    PayloadEnd,
    RunPayload,
    job_steps,
)


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


Progress = Union[PayloadOver, JobOver, StepsFailed]


class JournalFailed(OSError):
    """A line could not be written."""


class Slot:
    """A slot at work: the steps of its job. `ended_by`: why the agent ends its payload."""

    def __init__(self, steps: Steps[JobResult]) -> None:
        self.steps = steps
        self.ended_by: Optional[str] = None


class Slots:
    """All slots of one agent."""

    def __init__(self, post: Post) -> None:
        self._post = post
        self._slots: Dict[int, Slot] = {}
        self._progress: List[Progress] = []
        self.caldb_environment: Mapping[str, str] = {}

    def progress(self) -> Tuple[Progress, ...]:
        """What has happened since the last call, in order."""
        progress, self._progress = tuple(self._progress), []
        return progress

    def start(self, job: Job, slot: int) -> Steps[None]:
        """Begin a job in a free slot."""
        assert slot not in self._slots
        self._slots[slot] = Slot(job_steps(self._post.bundle, job, slot))
        yield from self._advance(slot, None)

    def terminate(self, slot: int, why: str, politely: bool) -> Steps[None]:
        """Note why the payload is ended; SIGTERM if it has time to end by itself."""
        if slot in self._slots:
            self._slots[slot].ended_by = why
            if politely:
                yield Terminate(slot)

    def kill(self, slot: int) -> Steps[None]:
        """SIGKILL everything of the payload."""
        if slot in self._slots:
            yield Kill(slot)

    def payload_ended(self, slot: int, end: PayloadEnd) -> Steps[None]:
        """Its facts, and why the agent ended it."""
        self._progress.append(PayloadOver(slot))
        yield from self._advance(slot, end._replace(ended_by=self._slots[slot].ended_by))

    def gathered(self, slot: int, collected: Collected) -> Steps[None]:
        """Its files are placed."""
        yield from self._advance(slot, collected)

    def _advance(self, slot: int, reply: Any) -> Steps[None]:
        """Carry out the steps in this slot until they wait for the payload or its files, or are over."""
        steps = self._slots[slot].steps
        try:
            operation = steps.send(reply)
            while True:
                try:
                    reply = yield self._order(operation)
                except OSError as error:
                    if isinstance(operation, Line):
                        error = JournalFailed(*error.args)
                    operation = steps.throw(error)
                    continue
                if isinstance(operation, Collect) or (isinstance(operation, RunPayload) and reply is None):
                    return
                if isinstance(operation, RunPayload):
                    self._progress.append(PayloadOver(slot))
                operation = steps.send(reply)
        except StopIteration as stop:
            del self._slots[slot]
            self._progress.append(JobOver(slot, stop.value))
        except OSError as error:
            del self._slots[slot]
            self._progress.append(StepsFailed(slot, error, isinstance(error, JournalFailed)))

    def _order(self, operation: Any) -> Any:
        """What the host is asked for instead of a job's own words; file operations and lines as they are."""
        if isinstance(operation, RunPayload):
            job, slot = operation.job, operation.slot
            return Spawn(job, slot, self._work(job), self.caldb_environment)
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
