"""The slots of a node: carries out the steps of each job, reaps what has ended. I/O only; news are values."""

from __future__ import annotations

import os
import queue
import threading
from typing import Any, Callable, Dict, FrozenSet, List, Mapping, NamedTuple, Optional, Set, Tuple, Union

from pilot.multijob.node.collect import Request, collect
from pilot.multijob.node.files import Steps, perform
from pilot.multijob.node.journal import JournalWriter
from pilot.multijob.node.manifest import Job, Manifest
from pilot.multijob.node.payload import Payload, payload_environment, start_payload
from pilot.multijob.node.processes import Seen, reap_all
from pilot.multijob.node.steps import Collect, Collected, JobResult, Line, PayloadEnd, RunPayload, job_steps


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


News = Union[PayloadOver, JobOver, StepsFailed]


class Slot:
    """A slot at work: the job's steps, and its payload once there is one."""

    def __init__(self, steps: Steps[JobResult]) -> None:
        self.steps = steps
        self.payload: Optional[Payload] = None


class JournalFailed(OSError):
    """A line could not be written."""


class Slots:
    """All slots of one agent. Everything but the placing of files happens in the agent's own thread.

    `wake` is called from a placing thread when it has a result.
    """

    def __init__(
        self, manifest: Manifest, post: Post, journal: JournalWriter, wake: Callable[[], None]
    ) -> None:
        self._manifest, self._post, self._journal, self._wake = manifest, post, journal, wake
        self._slots: Dict[int, Slot] = {}
        self._results: queue.SimpleQueue[Tuple[int, Collected]] = queue.SimpleQueue()
        self._news: List[News] = []
        self._reaped: Dict[int, Tuple[int, Any]] = {}
        self.caldb_environment: Mapping[str, str] = {}
        self.others: Set[int] = set()

    def start(self, job: Job, slot: int) -> None:
        """Begin a job in a free slot."""
        assert slot not in self._slots
        self._slots[slot] = Slot(job_steps(self._post.bundle, job, slot))
        self._advance(slot, None)

    def terminate(self, slot: int, why: str, politely: bool) -> None:
        """Note why the payload is ended; SIGTERM if it has time to end by itself."""
        payload = self._slots[slot].payload
        if payload is not None:
            payload.ended_by = why
            if politely:
                payload.terminate()

    def kill(self, slot: int) -> None:
        """SIGKILL everything of the payload."""
        payload = self._slots[slot].payload
        if payload is not None:
            payload.kill_all(self.reap)

    def sample(self, slot: int, seen: Mapping[int, Seen]) -> Optional[Tuple[float, float]]:
        """(memory, output) of a payload in MiB, None if there is none."""
        payload = self._slots[slot].payload
        if payload is None or payload.process is None:
            return None
        return payload.sample(seen), payload.streams.size_mib()

    def reap(self) -> None:
        """Collect all children that have ended; those of nobody here were adopted and need no more."""
        reap_all(self._note)

    def _note(self, pid: int, status: int, usage: Any) -> None:
        if pid in self.others or any(pid == mine for mine in self._pids()):
            self._reaped[pid] = (status, usage)

    def take_end(self, pid: int) -> Optional[int]:
        """Status of one of `others` that was reaped, once."""
        end = self._reaped.pop(pid, None)
        return end[0] if end is not None else None

    def news(self) -> Tuple[News, ...]:
        """What has happened since the last call, in order."""
        self.reap()
        for slot, run in list(self._slots.items()):
            payload = run.payload
            if payload is not None and payload.process is not None and payload.process.pid in self._reaped:
                self._payload_ended(slot, payload)
        while not self._results.empty():
            slot, collected = self._results.get()
            self._advance(slot, collected)
        news, self._news = tuple(self._news), []
        return news

    def _pids(self) -> FrozenSet[int]:
        payloads = [run.payload for run in self._slots.values()]
        return frozenset(
            item.process.pid for item in payloads if item is not None and item.process is not None
        )

    def _payload_ended(self, slot: int, payload: Payload) -> None:
        assert payload.process is not None
        status, usage = self._reaped.pop(payload.process.pid)
        # Popen must not wait for a number that may be another's soon.
        payload.process.returncode = status
        end = payload.ended(status, usage)
        payload.kill_escaped((self._pids() | self.others) - {payload.process.pid}, self.reap)
        self._news.append(PayloadOver(slot))
        self._advance(slot, end)

    def _advance(self, slot: int, reply: Any) -> None:
        """Carry out the steps in this slot until they wait for the payload or its files, or are over."""
        run = self._slots[slot]
        try:
            operation = run.steps.send(reply)
            while True:
                if isinstance(operation, Collect):
                    self._collect(run, operation)
                    return
                if isinstance(operation, RunPayload):
                    end = self._spawn(run, operation)
                    if end is None:
                        return
                    operation = run.steps.send(end)
                    continue
                try:
                    reply = self._perform(operation)
                except OSError as error:
                    operation = run.steps.throw(error)
                else:
                    operation = run.steps.send(reply)
        except StopIteration as stop:
            del self._slots[slot]
            self._news.append(JobOver(slot, stop.value))
        except OSError as error:
            del self._slots[slot]
            self._news.append(StepsFailed(slot, error, isinstance(error, JournalFailed)))

    def _perform(self, operation: Any) -> Any:
        if not isinstance(operation, Line):
            return perform(operation)
        try:
            self._journal.write(operation.kind, operation.body)
        except OSError as error:
            raise JournalFailed(*error.args) from error
        return None

    def _spawn(self, run: Slot, operation: RunPayload) -> Optional[PayloadEnd]:
        job, slot = operation.job, operation.slot
        work = os.path.join(self._post.own, "%d.%d" % (job.panda_id, job.attempt_nr))
        caldb = self.caldb_environment
        environment = payload_environment(self._manifest, job, self._post.node, slot, work, caldb)
        run.payload, end = start_payload(job, work, environment)
        if end is not None:
            self._news.append(PayloadOver(slot))
        return end

    def _collect(self, run: Slot, operation: Collect) -> None:
        payload = run.payload
        assert payload is not None
        request = Request(
            self._post.bundle,
            operation.job,
            payload.work,
            payload.streams,
            operation.end,
            operation.place_outputs,
            operation.place_log,
            self._post.nonce,
        )

        def work() -> None:
            self._results.put((operation.slot, collect(request)))
            self._wake()

        threading.Thread(target=work, daemon=True).start()
