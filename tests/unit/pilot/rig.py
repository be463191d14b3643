"""A rig for the pure core: ticks by hand, answers by hand, virtual time. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pilot.experiments.words import parse_experiment
from pilot.multijob.actions import Action, AppendEvents
from pilot.multijob.codec import decode, encode
from pilot.multijob.memory import Memory
from pilot.multijob.model import (
    Limits,
    ProtocolTimes,
    QueueSpec,
    ReportTimes,
    SiteSpec,
    State,
    WalltimePolicy,
)
from pilot.multijob.recognise import Now
from pilot.ports import (
    Ack,
    Answer,
    Appended,
    BatchId,
    BatchJobSeen,
    BatchState,
    BundleId,
    Claim,
    Done,
    EvidenceSeen,
    Fetched,
    Job,
    JournalLine,
    Listing,
    PandaId,
    Ticket,
    Unavailable,
)
from pilot.rotation.step import Step, View, step

START = datetime(2026, 1, 1, tzinfo=UTC)
WORDS = (Path(__file__).parents[3] / "pilot/experiments/compass.yaml").read_text()
EXPERIMENT = parse_experiment(WORDS)


def make_limits(**changes: Any) -> Limits:
    """Two nodes of two slots, one queue, short times."""
    queue = QueueSpec(
        name="long",
        server="panda",
        panda_queue="Q",
        batch_queue="normal",
        wanted=2,
        queued_max=2,
        nodes=2,
        slots=2,
        pool_bundles=2,
        fill_wait_s=100.0,
        walltime=WalltimePolicy(60, 3600, 1.0, 0.01, 30.0),
        chunk=100,
    )
    site = SiteSpec(
        name="rig",
        shared_dir="/shared",
        output_root="/out",
        python="/usr/bin/python3",
        agent_file="/shared/agent.pyz",
        local_dir="/dev/shm",
        environment={},
        launch=lambda index, slots: ("aprun",),
        node_limits={},
        caldb=None,
        account=None,
        flags=None,
        features=(),
        directives=lambda request: f"#PBS -N {request.name}\n",
    )
    limits = Limits(
        queues={"long": queue},
        protocol=ProtocolTimes(visible_s=10, poll_s=20, kill_s=5, grace_s=100, margin_s=30),
        report=ReportTimes(),
        site=site,
        experiment=EXPERIMENT,
        batch_server="sim",
    )
    return replace(limits, **changes)


def make_job(number: int, **changes: Any) -> Job:
    """A reconstruction job with one mDST and a log."""
    text = (
        f"PRODSYS_WORK=w{number} PRODSYS_NEVENTS={100 + number} COMPASS_SW_PREFIX=/out/ COMPASS_SW_PATH=p/ PRODSOFT=s "
        "prodSlt=3 reco --raw x"
    )
    job = Job(
        PandaId(number),
        1,
        "Q",
        f"job-{number}",
        "mass production",
        text,
        (f"mDST-1-{number}-3-8.a1.root",),
        f"l-{number}.a1.job.log.tgz",
    )
    return replace(job, **changes)


class Rig:
    """The core with hands: `tick()` returns what was released, `answer()` queues an outcome for the next tick."""

    def __init__(self, limits: Limits | None = None, state: State | None = None) -> None:
        self.limits = limits or make_limits()
        self.state = state or State()
        self.now_s = 0.0
        self.memory = Memory(epoch=1, started_s=0.0)
        self.released: list[Action] = []
        self.events: list[Any] = []
        self.durable: list[dict[str, Any]] = []
        self.auto_append = True
        self.commands: tuple[Any, ...] = ()
        self._answers: list[Answer] = []
        self._tags = 0

    def tick(self, after_s: float = 1.0) -> list[Action]:
        """Advance and tick; appends are answered by themselves if `auto_append`."""
        self.now_s += after_s
        result = self._step()
        while self.auto_append and any(isinstance(action, AppendEvents) for action in result.released):
            for action in [a for a in result.released if isinstance(a, AppendEvents)]:
                self.durable.extend(dict(record) for record in action.records)
                self.answer(action, Appended(action.commit, 1))
            result = self._step()
        fresh, self.released = self.released, []
        return fresh

    def _step(self) -> Step:
        tags = tuple(self._tag() for _ in self.limits.queues)
        answers, self._answers = tuple(self._answers), []
        now = Now((START + timedelta(seconds=self.now_s)).isoformat(), self.now_s)
        commands, self.commands = self.commands, ()
        result = step(self.state, self.memory, View(answers, now, tags, commands), self.limits)
        self.events.extend(result.events)
        self.released.extend(
            a for a in result.released if not (self.auto_append and isinstance(a, AppendEvents))
        )
        return result

    def _tag(self) -> BundleId:
        self._tags += 1
        return BundleId(f"a{self._tags:08d}".translate(str.maketrans("0189", "abcd")))

    def answer(self, action: Action, outcome: Any, asked_s: float | None = None) -> None:
        """Queue the outcome of an action."""
        asked = self.now_s if asked_s is None else asked_s
        self._answers.append(Answer(Ticket(0), action, outcome, asked, 0.0))

    def restart(self) -> Rig:
        """A new daemon over what was durable."""
        from pilot.multijob.apply import replay

        again = Rig(self.limits, replay(decode(record) for record in self.durable))
        again.durable = list(self.durable)
        again.now_s = self.now_s
        again._tags = self._tags
        again.memory.started_s = self.now_s
        return again

    def run(self, respond: Callable[[Action], Any], ticks: int, after_s: float = 1.0) -> list[Action]:
        """Tick repeatedly, answering every action by `respond` (None: no answer)."""
        seen: list[Action] = []
        for _ in range(ticks):
            for action in self.tick(after_s):
                seen.append(action)
                outcome = respond(action)
                if outcome is not None:
                    self.answer(action, outcome)
        return seen

    def recorded(self) -> list[dict[str, Any]]:
        """All events of this run as records."""
        return [encode(event) for event in self.events]


class Site:
    """A kind site for the rig: PanDA hands out jobs, Torque runs what is submitted, agents do their work at once."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.waiting = list(jobs)
        self.batch: dict[BatchId, BatchJobSeen] = {}
        self.claims: dict[tuple[BundleId, int], Claim] = {}
        self.lines: dict[BundleId, list[tuple[str, dict[str, Any]]]] = {}
        self.reports: list[Any] = []
        self.closed: set[BundleId] = set()
        self.doors: dict[BundleId, int] = {}
        self.serial = 0
        self.lost: set[str] = set()

    def submit(self, name: str) -> BatchId:
        """A new waiting batch job."""
        self.serial += 1
        batch_id = BatchId(f"{self.serial}.sim")
        self.batch[batch_id] = BatchJobSeen(batch_id, name, BatchState.WAITING)
        return batch_id

    def start(self, batch_id: BatchId) -> bool:
        """The gate of this batch job runs; True if it owns the round."""
        tag, _, number = self.batch[batch_id].name.partition(".")
        key = (BundleId(tag), int(number))
        self.batch[batch_id] = replace(self.batch[batch_id], state=BatchState.RUNNING)
        if key in self.claims:
            return False
        self.claims[key] = Claim("gate", key[1], batch_id, "nid1", 1, f"n{batch_id}", "t")
        return self.doors.get(key[0], 0) <= key[1]

    def end(self, batch_id: BatchId) -> None:
        """The batch job is over."""
        self.batch[batch_id] = replace(self.batch[batch_id], state=BatchState.OVER)

    def line(self, bundle_id: BundleId, kind: str, **body: Any) -> None:
        """One more line in the bundle's only node journal."""
        self.lines.setdefault(bundle_id, []).append((kind, body))

    def respond(self, action: Action) -> Any:
        """Outcomes of a site where nothing fails."""
        from pilot.multijob import actions as a

        match action:
            case a.FetchJobs():
                given, self.waiting = self.waiting[: action.count], self.waiting[action.count :]
                return Fetched(tuple(given))
            case a.ReportJobs():
                self.reports.extend(action.updates)
                return tuple(Ack(u.panda_id, u.attempt_nr, True) for u in action.updates)
            case a.SubmitBatchJob():
                batch_id = self.submit(action.name)
                return Unavailable("no answer") if action.name in self.lost else batch_id
            case a.ListBatchJobs():
                if action.ids is None:
                    return Listing("sim", tuple(self.batch.values()))
                known = tuple(self.batch[i] for i in action.ids if i in self.batch)
                return Listing("sim", known, action.ids, tuple(i for i in action.ids if i not in self.batch))
            case a.ReadEvidence():
                return self._read(action.bundle_id, action.offsets)
            case a.MakeClaim():
                return self._claim(action.bundle_id, action.number)
            case a.SetDoor():
                self.doors[action.bundle_id] = action.number
                return Done()
            case a.WriteClosed():
                self.closed.add(action.bundle_id)
                return Done()
            case a.CancelBatchJob():
                from pilot.ports import CancelResult

                self.end(action.batch_id)
                return CancelResult.ASKED
            case _:
                return Done()

    def _read(self, bundle_id: BundleId, offsets: Any) -> EvidenceSeen:
        start = offsets.get("node.0.x.journal", 0)
        lines = tuple(
            JournalLine("node.0.x.journal", n + 1, n + 1, kind, body)
            for n, (kind, body) in enumerate(self.lines.get(bundle_id, []))
            if n >= start
        )
        claims = {number: claim for (b, number), claim in self.claims.items() if b == bundle_id}
        return EvidenceSeen(bundle_id, claims, None, (), (), bundle_id in self.closed, lines)

    def _claim(self, bundle_id: BundleId, number: int) -> Any:
        from pilot.ports import ClaimMade

        key = (bundle_id, number)
        mine = Claim("pilot", number, None, "edge", 1, "p", "t")
        claim = self.claims.setdefault(key, mine)
        return ClaimMade(claim.who == "pilot", claim)


def good_end(job: Job) -> dict[str, Any]:
    """Facts of a job that did everything right."""
    files = [
        {"lfn": lfn, "size": 10, "adler32": "00000001", "placed": True, "reason": ""}
        for lfn in (*job.outputs, *((job.log_lfn,) if job.log_lfn else ()))
    ]
    n_events = 100 + int(job.panda_id)
    return {
        "panda_id": job.panda_id,
        "attempt_nr": job.attempt_nr,
        "exit_code": 0,
        "signal": None,
        "ended_by": None,
        "marker": True,
        "patterns": [],
        "events_read": n_events,
        "events_written": n_events,
        "wall_s": 5.0,
        "cpu_s": 4.0,
        "rss_mib": 100.0,
        "files": files,
    }
