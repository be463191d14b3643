"""A directed scenario: the real core on a virtual clock, moved step by step by a test.

Truth is in `ran` and `placed` (the world's node) and in `reports` (the server), never in our own records.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from pilot.multijob import actions as a
from pilot.multijob.apply import apply, replay
from pilot.multijob.codec import decode, encode
from pilot.multijob.events import BundleCancelled
from pilot.multijob.memory import Memory
from pilot.multijob.model import BundleState, Limits, State
from pilot.multijob.node.gate import Start
from pilot.multijob.recognise import Now
from pilot.ports import (
    Ack,
    Answer,
    Appended,
    BatchId,
    BatchJobSeen,
    BatchState,
    BundleId,
    CancelResult,
    Done,
    Fetched,
    Job,
    JobStatus,
    Listing,
    Ticket,
    Unavailable,
    Update,
)
from pilot.rotation.step import View, step
from simulators.world.evidence import WorldEvidence
from simulators.world.node import Agent, Ran, node_lists, run_gate
from simulators.world.sharedfs import SharedFiles

ZERO = datetime(2026, 1, 1, tzinfo=UTC)
SERVER = "sim"


@dataclass(slots=True)
class Daemon:
    """One run of the daemon: state, memory, answers on their way."""

    state: State
    memory: Memory
    evidence: WorldEvidence
    coming: list[tuple[float, Answer]] = field(default_factory=list)
    dead: bool = False
    tags: int = 0


@dataclass(slots=True)
class Scene:
    """The world of one scenario. `answer_of` may change or lose (None) the outcome of an action."""

    limits: Limits
    waiting: list[Job]
    run_s: float = 10.0
    shared: SharedFiles = field(default_factory=SharedFiles)
    answer_of: Callable[[Any, Any], Any] = field(default=lambda action, outcome: outcome)
    latency_s: Callable[[Any], float] = field(default=lambda action: 0.0)
    durable: list[Mapping[str, Any]] = field(default_factory=list)
    batch: dict[BatchId, BatchJobSeen] = field(default_factory=dict)
    listed: Callable[[dict[BatchId, BatchJobSeen]], dict[BatchId, BatchJobSeen]] = field(
        default=lambda jobs: jobs
    )
    agents: dict[str, list[Agent]] = field(default_factory=dict)
    owners: dict[str, BatchId] = field(default_factory=dict)
    ran: list[Ran] = field(default_factory=list)
    placed: dict[tuple[int, int], float] = field(default_factory=dict)
    reports: list[Update] = field(default_factory=list)
    now_s: float = 0.0
    epoch: int = 0
    starts: int = 0

    def start_daemon(self) -> Daemon:
        """A new run over what is durable; the highest epoch is its own."""
        self.epoch += 1
        state = replay(decode(record) for record in self.durable)
        evidence = WorldEvidence(self.shared, self.limits.site.shared_dir, f"pilot{self.epoch}", self.agents)
        return Daemon(state, Memory(self.epoch, self.now_s), evidence)

    def advance(self, daemon: Daemon, seconds: float, tick_s: float = 1.0) -> None:
        """Let time pass: agents work, the daemon ticks."""
        ends = self.now_s + seconds
        while self.now_s < ends and not daemon.dead:
            self.now_s = self.shared.now_s = self.now_s + tick_s
            for agents in self.agents.values():
                for agent in agents:
                    agent.advance(self.now_s)
            self.tick(daemon)

    def tick(self, daemon: Daemon) -> None:
        """One tick with every answer that is due."""
        due = [answer for at_s, answer in daemon.coming if at_s <= self.now_s]
        daemon.coming = [(at_s, answer) for at_s, answer in daemon.coming if at_s > self.now_s]
        now = Now((ZERO + timedelta(seconds=self.now_s)).isoformat(), self.now_s)
        daemon.tags += 1
        digits = f"{self.epoch * 1000 + daemon.tags:08d}".translate(str.maketrans("0189", "abcd"))
        result = step(
            daemon.state, daemon.memory, View(tuple(due), now, (BundleId("w" + digits),)), self.limits
        )
        if result.stop is not None:
            daemon.dead = True
            return
        for action in result.released:
            self.carry_out(daemon, action)

    def carry_out(self, daemon: Daemon, action: Any) -> None:
        """Do it now; its answer comes after the latency of its lane, or never."""
        if daemon.dead:
            return
        outcome = self.answer_of(action, lambda: self._do(daemon, action))
        outcome = outcome() if callable(outcome) else outcome
        if outcome is not None:
            answer = Answer(Ticket(0), action, outcome, self.now_s, self.latency_s(action))
            daemon.coming.append((self.now_s + self.latency_s(action), answer))

    def cancel(self, daemon: Daemon, bundle_id: BundleId) -> None:
        """What `pilot` will do for a cancel: record it."""
        event = BundleCancelled("t", bundle_id, "asked for")
        apply(daemon.state, event)
        daemon.memory.records.append(encode(event))
        daemon.memory.recorded += 1

    # --- the batch system -----------------------------------------------------------------------------------

    def submit(self, name: str) -> BatchId:
        """A batch job that waits."""
        batch_id = BatchId(f"{len(self.batch) + 1}.{SERVER}")
        self.batch[batch_id] = BatchJobSeen(batch_id, name, BatchState.WAITING)
        return batch_id

    def foreign_job(self, daemon: Daemon) -> BatchId:
        """Another batch job that runs and that the daemon has seen: a listing with only this one is complete."""
        batch_id = self.submit("other")
        self.batch[batch_id] = replace(self.batch[batch_id], state=BatchState.RUNNING)
        daemon.memory.ever_seen.add(batch_id)
        return batch_id

    def start_batch_job(self, batch_id: BatchId) -> bool:
        """The batch system starts it (again): its gate runs; True if agents were launched."""
        self.starts += 1
        self.batch[batch_id] = replace(self.batch[batch_id], state=BatchState.RUNNING)
        tag, _, number = self.batch[batch_id].name.partition(".")
        directory = f"{self.limits.site.shared_dir}/bundles/{tag}"
        start = Start(batch_id, f"mom{self.starts}", self.starts, f"n{self.starts}", "t")
        if not run_gate(self.shared, directory, int(number), start):
            return False
        self.owners[directory] = batch_id
        manifest = self.shared.names[f"{directory}/manifest.json"].text
        times = self.limits.protocol
        for index, jobs in enumerate(node_lists(manifest)):
            name = f"{index}.s{self.starts}"
            agent = Agent(directory, name, jobs, self.run_s, times.poll_s, self.shared, self.ran, self.placed)
            self.agents.setdefault(directory, []).append(agent)
        return True

    def end_batch_job(self, batch_id: BatchId) -> None:
        """The batch system shows it as over."""
        self.batch[batch_id] = replace(self.batch[batch_id], state=BatchState.OVER)

    # --- ports ------------------------------------------------------------------------------------------------

    def _do(self, daemon: Daemon, action: Any) -> Any:
        match action:
            case a.AppendEvents():
                self.durable.extend(action.records)
                return Appended(action.commit, self.epoch)
            case a.FetchJobs():
                given, self.waiting = self.waiting[: action.count], self.waiting[action.count :]
                return Fetched(tuple(given))
            case a.ReportJobs():
                self.reports.extend(action.updates)
                return tuple(Ack(update.panda_id, update.attempt_nr, True) for update in action.updates)
            case a.SubmitBatchJob():
                return self.submit(action.name)
            case a.ListBatchJobs():
                return self._listing(action)
            case a.CancelBatchJob():
                self.end_batch_job(action.batch_id)
                return CancelResult.ASKED
            case a.AskStatus():
                return Unavailable("not in this scene")
            case _:
                return self._evidence(daemon.evidence, action)

    def _listing(self, action: a.ListBatchJobs) -> Listing:
        shown = self.listed(dict(self.batch))
        if action.ids is None:
            return Listing(SERVER, tuple(shown.values()))
        known = tuple(self.batch[batch_id] for batch_id in action.ids if batch_id in self.batch)
        unknown = tuple(batch_id for batch_id in action.ids if batch_id not in self.batch)
        return Listing(SERVER, known, action.ids, unknown)

    def _evidence(self, evidence: WorldEvidence, action: Any) -> Any:
        match action:
            case a.PrepareBundle():
                return evidence.prepare(action.files)
            case a.AddScript():
                return evidence.add_script(action.bundle_id, action.number, action.text)
            case a.ReadEvidence():
                return evidence.read(action.bundle_id, action.offsets)
            case a.MakeClaim():
                return evidence.make_claim(action.bundle_id, action.number)
            case a.SetDoor():
                return evidence.set_door(action.bundle_id, action.number)
            case a.WriteClosed():
                return evidence.close(action.bundle_id)
            case a.WriteCommands():
                return evidence.write_commands(action.bundle_id, "")
            case a.RemoveBundle():
                return evidence.remove(action.bundle_id)
        return Done()

    # --- the truth --------------------------------------------------------------------------------------------

    def run_twice(self) -> list[int]:
        """PanDA jobs that a node started more than once."""
        counts: dict[int, int] = {}
        for run in self.ran:
            counts[run.panda_id] = counts.get(run.panda_id, 0) + 1
        return sorted(panda_id for panda_id, count in counts.items() if count > 1)

    def finals(self) -> dict[int, JobStatus]:
        """Final report of each job as the server has it."""
        return {
            u.panda_id: u.status for u in self.reports if u.status in (JobStatus.FINISHED, JobStatus.FAILED)
        }

    def settled(self, daemon: Daemon) -> bool:
        """Whether every bundle is settled."""
        return all(bundle.state is BundleState.SETTLED for bundle in daemon.state.bundles.values())
