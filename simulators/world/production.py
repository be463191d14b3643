"""The production system of the virtual world: prodsys' own decisions and wire over rows in memory.

What is sent, found again, judged and merged is decided by `prodsys_core.{plan,verdicts,lifecycle,wire}`; rows stand in
place of the database and survive a crash, which may come between any two effects. That services of prodsys make the
same of the same history is a contract test (tests/integration/prodsys_core/test_same_histories.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from prodsys_core import tables
from prodsys_core.config import Panda, Retry
from prodsys_core.lifecycle import CHUNK_DONE, Role, StepKind, StepStatus, check_edge, waiting_status
from prodsys_core.panda import HttpJobSink
from prodsys_core.plan import (
    Listed,
    MergeInput,
    MergeLimits,
    QueueUse,
    Sendable,
    adopt,
    has_stragglers,
    plan_batches,
    plan_groups,
    settle,
)
from prodsys_core.ports import Broken, Description, PandaJob, Refused, Unavailable
from prodsys_core.verdicts import Ended, Expected, Held, Seen, judge_description, judge_status
from simulators.world.panda import ProdsysSession, Wire

ZERO = datetime(2026, 1, 1, tzinfo=UTC)
PRIORITY = {StepKind.RECONSTRUCT: 2000, StepKind.MERGE_MDST: 5000, StepKind.MERGE_DUMP: 5000}
RULES = Retry(uncharged_max=50, backoff_s=(300.0, 900.0, 1800.0), charged_wait_s=60.0)
MAX_ATTEMPTS = 3
# Bytes of one chunk's output as the world's payloads write them: a merged file holds some of them.
MERGE_LIMITS = MergeLimits(bytes_max=400)
SOFTWARE = "COMPASS_SW_PREFIX=/out/ COMPASS_SW_PATH=p/ PRODSOFT=s prodSlt=3"


class Killed(Exception):
    """prodsys' process is killed here."""


@dataclass(slots=True)
class Attempt:
    """One PanDA job made for a step. `ended` None: open."""

    step: Step
    number: int
    job_name: str
    batch: int
    panda_id: int | None = None
    ended: str | None = None
    ended_s: float = 0.0
    held: str = ""


@dataclass(slots=True)
class Step:
    """One piece of work. `inputs`: steps whose outputs it merges."""

    number: int
    kind: StepKind
    run: int
    chunk: int
    panda_queue: str
    n_events: int
    status: StepStatus
    charged: int = 0
    uncharged: int = 0
    next_try_s: float | None = None
    attempts: list[Attempt] = field(default_factory=list)
    accepted: Attempt | None = None
    size: int = 0
    inputs: tuple[int, ...] = ()
    story: list[tuple[str, str]] = field(default_factory=list)

    def move(self, status: StepStatus, role: Role = Role.SERVICE) -> None:
        """To another status, if the role may."""
        problem = check_edge(tables.edges("step"), "step", self.status, status, role)
        if problem:
            raise AssertionError(f"{self.work}: {problem}")
        self.story.append((self.status, status))
        self.status = status

    @property
    def work(self) -> str:
        """The work key: the same for all attempts."""
        return f"w{self.number}"


@dataclass(slots=True)
class Batch:
    """One submission: committed before its call."""

    number: int
    server: str
    attempts: list[Attempt]
    status: str = "made"
    listed: Listed | None = None


@dataclass(slots=True)
class Production:
    """Rows of all tasks, and one sink a server. `boundary` is called between any two effects and may raise Killed."""

    wires: Mapping[str, Wire]
    server_of: Mapping[str, str]
    now: Callable[[], float]
    boundary: Callable[[], None]
    merge_kind: StepKind = StepKind.MERGE_MDST
    steps: dict[int, Step] = field(default_factory=dict)
    batches: dict[int, Batch] = field(default_factory=dict)
    merged_runs: set[int] = field(default_factory=set)
    _sinks: dict[str, HttpJobSink] = field(default_factory=dict)
    _panda: Panda = field(
        default_factory=lambda: Panda(
            url="http://127.0.0.1", submit_chunk=20, active_max=400, prod_source_label="managed"
        )
    )

    def __post_init__(self) -> None:
        for name, wire in self.wires.items():
            self._sinks[name] = HttpJobSink(self._panda, cast(Any, ProdsysSession(wire)))

    def add(self, kind: StepKind, run: int, chunk: int, panda_queue: str, n_events: int) -> Step:
        """A new step, ready to be sent."""
        step = Step(len(self.steps) + 1, kind, run, chunk, panda_queue, n_events, waiting_status(kind))
        self.steps[step.number] = step
        return step

    def tick(self) -> None:
        """Find again, follow, merge, send: as prodsys' tick. Raises Killed at a boundary."""
        for batch in [batch for batch in self.batches.values() if batch.status in ("made", "unknown")]:
            self._settle(batch)
        self._follow()
        self._merge()
        self._send()

    # --- sending ----------------------------------------------------------------------------------------------

    def _send(self) -> None:
        last = self._runs_with_stragglers()
        due = [
            Sendable(
                step.number,
                step.panda_queue,
                PRIORITY[step.kind],
                self._events_of_chunk(step),
                step.run in last,
            )
            for step in self.steps.values()
            if self._due(step)
        ]
        uses = self._queue_uses()
        room = {
            queue: use.room(self._panda.active_max, self._panda.waiting_min) for queue, use in uses.items()
        }
        lost: set[str] = set()
        for plan in plan_batches(due, room, self._panda.submit_chunk):
            server = self.server_of[plan.panda_queue]
            if server in lost:
                continue  # it does not answer: the next tick asks again
            number = len(self.batches) + 1
            attempts = [self._attempt(self.steps[i], number) for i in plan.step_ids]
            self.batches[number] = batch = Batch(number, server, attempts)
            self.boundary()
            answer = self._sinks[server].submit([_job(attempt, self.steps) for attempt in attempts])
            self.boundary()
            self._answered(batch, answer)
            if isinstance(answer, Unavailable | Broken):
                lost.add(server)

    def _due(self, step: Step) -> bool:
        if step.status is waiting_status(step.kind):
            return step.next_try_s is None or self.now() >= step.next_try_s
        return (
            step.status is StepStatus.FAILED and step.next_try_s is not None and self.now() >= step.next_try_s
        )

    @staticmethod
    def _events_of_chunk(step: Step) -> int | None:
        return step.n_events if step.kind is StepKind.RECONSTRUCT else None

    def _runs_with_stragglers(self) -> set[int]:
        chunks: dict[int, list[bool]] = {}
        for step in self.steps.values():
            if step.kind is StepKind.RECONSTRUCT:
                chunks.setdefault(step.run, []).append(step.status in CHUNK_DONE)
        return {run for run, done in chunks.items() if has_stragglers(len(done), done.count(False))}

    def _queue_uses(self) -> dict[str, QueueUse]:
        since_s = self.now() - self._panda.queue_days * 86400.0
        found: dict[str, list[int]] = {queue: [0, 0, 0] for queue in self.server_of}
        for step in self.steps.values():
            use = found[step.panda_queue]
            use[0] += step.status is StepStatus.SENT
            use[1] += step.status is StepStatus.RUNNING
            use[2] += sum(
                (a.ended or "").startswith("finished") and a.ended_s >= since_s for a in step.attempts
            )
        return {queue: QueueUse(*use) for queue, use in found.items()}

    def _attempt(self, step: Step, batch: int) -> Attempt:
        number = len(step.attempts) + 1
        attempt = Attempt(step, number, f"{step.run}-{step.chunk}-{step.number}.a{number}", batch)
        step.attempts.append(attempt)
        step.move(StepStatus.SENT)
        step.next_try_s = None
        return attempt

    def _answered(
        self, batch: Batch, answer: Mapping[str, int | None] | Unavailable | Refused | Broken
    ) -> None:
        match answer:
            case Refused():
                self._take_back(_open(batch), 300.0)
                batch.status = "refused"
            case Unavailable(reached=False):
                self._take_back(_open(batch))
                batch.status = "void"
            case Unavailable() | Broken():
                batch.status = "unknown"
            case _:
                for attempt in _open(batch):
                    attempt.panda_id = answer.get(attempt.job_name)
                self._take_back([attempt for attempt in _open(batch) if attempt.job_name in answer])
                batch.status = "unknown" if _open(batch) else "answered"

    def _take_back(self, attempts: list[Attempt], wait_s: float | None = None) -> None:
        """PanDA certainly does not have them; nothing is charged."""
        for attempt in attempts:
            attempt.ended = "not sent"
            attempt.step.move(waiting_status(attempt.step.kind))
            attempt.step.next_try_s = None if wait_s is None else self.now() + wait_s

    def _settle(self, batch: Batch) -> None:
        sink = self._sinks[batch.server]
        ids = sink.job_ids(batch.number)
        records = sink.descriptions(ids) if isinstance(ids, tuple) else ids
        self.boundary()
        if not isinstance(ids, tuple) or isinstance(records, Unavailable | Refused | Broken):
            batch.status = "unknown"
            return
        names = {attempt.job_name: attempt for attempt in _open(batch)}
        found, doubles = adopt(names, ((record.panda_id, record.job_name) for record in records.values()))
        for name, panda_id in found.items():
            names[name].panda_id = panda_id
        if doubles:
            sink.cancel(doubles)
        if not _open(batch):
            batch.status = "settled"
            return
        batch.listed = settle(batch.listed, ids, len(records), self._utc(), self._panda.settle_s)
        if batch.listed is None:
            self._take_back(_open(batch))
            batch.status = "settled"

    # --- following --------------------------------------------------------------------------------------------

    def open_attempts(self, server: str | None = None) -> Iterator[Attempt]:
        """Attempts in PanDA whose end is not known."""
        for step in self.steps.values():
            for attempt in step.attempts:
                of = server is None or self.server_of[step.panda_queue] == server
                if of and attempt.panda_id is not None and attempt.ended is None:
                    yield attempt

    def _follow(self) -> None:
        for server, sink in self._sinks.items():
            attempts = {a.panda_id: a for a in self.open_attempts(server) if a.panda_id is not None}
            if not attempts:
                continue
            statuses = sink.statuses(sorted(attempts))
            if isinstance(statuses, Unavailable | Refused | Broken):
                continue
            words = tables.panda_words()
            judged = {panda_id: judge_status(status, words) for panda_id, status in statuses.items()}
            for panda_id, verdict in judged.items():
                if verdict == Seen(running=True) and attempts[panda_id].step.status is StepStatus.SENT:
                    attempts[panda_id].step.move(StepStatus.RUNNING)
            asked = [panda_id for panda_id, verdict in judged.items() if isinstance(verdict, Held)]
            records = sink.descriptions(asked) if asked else {}
            self.boundary()
            if isinstance(records, Unavailable | Refused | Broken):
                continue
            for panda_id in asked:
                self._judge(attempts[panda_id], records.get(panda_id))

    def _judge(self, attempt: Attempt, record: Description | None) -> None:
        step = attempt.step
        n_events = step.n_events if step.kind is StepKind.RECONSTRUCT else None
        expected = Expected(
            step.kind, attempt.job_name, attempt.number, n_events, step.charged, step.uncharged, MAX_ATTEMPTS
        )
        verdict = judge_description(expected, record, tables.codes(), tables.panda_words(), RULES)
        attempt.held = verdict.reason if isinstance(verdict, Held) else ""
        if verdict == Seen(running=True) and step.status is StepStatus.SENT:
            step.move(StepStatus.RUNNING)
        if not isinstance(verdict, Ended) or record is None:
            return
        attempt.ended, attempt.ended_s = f"{record.status} {verdict.reason}", self.now()
        step.move(verdict.status)
        step.charged += verdict.charged
        step.uncharged += not verdict.charged
        if verdict.status is StepStatus.FINISHED:
            step.accepted = attempt
            step.size = next((file.size for file in record.files if file.kind == "output"), 0)
        step.next_try_s = None if verdict.retry_in_s is None else self.now() + verdict.retry_in_s

    def give_up(self, attempt: Attempt) -> None:
        """A manager says that PanDA will never tell the end of this attempt: uncharged, sent again."""
        attempt.ended = "given up by a manager"
        attempt.step.uncharged += 1
        attempt.step.move(StepStatus.FAILED)
        attempt.step.next_try_s = self.now()

    def try_again(self, step: Step) -> None:
        """A manager has looked at a failed or questionable step: one more attempt, whatever it was charged."""
        step.move(waiting_status(step.kind), Role.MANAGER)
        step.next_try_s = None

    # --- merging ----------------------------------------------------------------------------------------------

    def _merge(self) -> None:
        """The last chunk of a run has finished: its merge plan, once."""
        runs: dict[int, list[Step]] = {}
        for step in self.steps.values():
            if step.kind is StepKind.RECONSTRUCT:
                runs.setdefault(step.run, []).append(step)
        for run, chunks in runs.items():
            whole = all(step.status in CHUNK_DONE for step in chunks)
            if not whole or run in self.merged_runs or run < 0:
                continue
            inputs = (MergeInput(s.number, s.chunk, s.work, s.size, s.n_events) for s in chunks)
            groups = plan_groups(inputs, MERGE_LIMITS, None)
            self.boundary()
            self.merged_runs.add(run)
            for piece, group in enumerate(groups):
                queue = next(q for q in self.server_of if q.endswith("short"))
                merge = self.add(self.merge_kind, run, piece, queue, sum(i.n_events or 0 for i in group))
                merge.inputs = tuple(item.job_id for item in group)

    def _utc(self) -> datetime:
        return ZERO + timedelta(seconds=self.now())


def _open(batch: Batch) -> list[Attempt]:
    return [a for a in batch.attempts if a.panda_id is None and a.ended is None]


def _chunk_lfn(step: Step, number: int) -> str:
    """Name of the mDST of one attempt."""
    return f"mDST-{abs(step.run)}-{step.number}-3-8.a{number}.root"


def _inputs(step: Step, steps: Mapping[int, Step]) -> str:
    """What a merge reads: the outputs of its chunks' accepted attempts, where the experiment puts them."""
    merged = ((steps[number], steps[number].accepted) for number in step.inputs)
    names = [f"/out/p/s/mDST.chunks/{_chunk_lfn(s, a.number)}" for s, a in merged if a is not None]
    return f"PRODSYS_INPUTS={':'.join(names)} " if names else ""


def _job(attempt: Attempt, steps: Mapping[int, Step]) -> PandaJob:
    step, number = attempt.step, attempt.number
    if step.kind is StepKind.RECONSTRUCT:
        lfn, transformation = _chunk_lfn(step, number), "mass production"
    else:
        lfn, transformation = f"mDST-{step.run}-3-8.a{number}.root.{step.chunk:03d}", "merging mdst"
    words = f"PRODSYS_WORK={step.work} PRODSYS_NEVENTS={step.n_events} {_inputs(step, steps)}{SOFTWARE} reco --raw x"
    outputs = {lfn: "output", f"l-{step.work}.a{number}.job.log.tgz": "log"}
    return PandaJob(
        attempt.job_name,
        attempt.batch,
        step.panda_queue,
        transformation,
        words,
        outputs,
        number,
        MAX_ATTEMPTS,
        PRIORITY[step.kind],
        1,
        step.n_events,
        prod_source_label="managed",
    )
