"""What the server hears of waiting and running jobs: `starting` at once, heartbeats in time and apart, the end once."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

from rig import START, Rig, Site, good_end, make_job, make_limits

from pilot.multijob import actions as a
from pilot.multijob.apply import apply
from pilot.multijob.events import (
    BatchJobAccepted,
    BundlePlanned,
    BundlePrepared,
    ClaimSeen,
    JobFetched,
    JobStarted,
    RoundIntended,
)
from pilot.multijob.model import NO_OUTCOME, JobRecord, JobState, Judgement, State, Verdict
from pilot.multijob.reporting import render_update, wanted_status
from pilot.ports import (
    Ack,
    BatchId,
    BundleId,
    Claim,
    Fetched,
    JobKey,
    JobStatus,
    PandaId,
    ServerStatus,
    Unavailable,
)

JOBS = 600
LOST_S, SENT_S = 7200.0, 1800.0


class Listener(Site):
    """A kind site that notes when each job was heard of; `down` answers nothing."""

    def __init__(self, jobs: int) -> None:
        super().__init__([make_job(n) for n in range(1, jobs + 1)])
        self.now_s, self.down = 0.0, False
        self.heard: dict[int, list[float]] = defaultdict(list)
        self.calls: list[tuple[float, int]] = []
        self.killed: dict[int, str] = {}
        self.status = "failed"

    def respond(self, action: a.Action) -> Any:
        if self.down and isinstance(action, a.FetchJobs | a.ReportJobs | a.AskStatus):
            return Unavailable("no answer")
        if isinstance(action, a.AskStatus):
            command = "tobekilled" if self.status == "running" else ""
            return tuple(ServerStatus(panda_id, 0, self.status, command) for panda_id in action.ids)
        if isinstance(action, a.ReportJobs):
            self.calls.append((self.now_s, len(action.updates)))
            self.reports.extend(action.updates)
            for update in action.updates:
                self.heard[int(update.panda_id)].append(self.now_s)
            return tuple(
                Ack(u.panda_id, u.attempt_nr, True, self.killed.get(int(u.panda_id), ""))
                for u in action.updates
            )
        return super().respond(action)

    def run(self, core: Rig, seconds: float, after_s: float = 15.0) -> None:
        for _ in range(int(seconds / after_s)):
            for action in core.tick(after_s):
                self.now_s = core.now_s
                outcome = self.respond(action)
                if outcome is not None:
                    core.answer(action, outcome)


def big_rig() -> Rig:
    limits = make_limits(evidence_every_s=60.0)
    queue = replace(
        limits.queues["long"], slots=150, nodes=2, pool_bundles=2, chunk=100, queued_max=1, wanted=1
    )
    return Rig(replace(limits, queues={"long": queue}))


def test_jobs_that_wait_for_a_day_are_never_silent_for_long_and_spread() -> None:
    core, site = big_rig(), Listener(JOBS)
    site.run(core, 24 * 3600.0)
    assert len(site.heard) == JOBS
    gaps = [later - earlier for times in site.heard.values() for earlier, later in pairwise(times)]
    assert max(gaps) <= 2760.0
    assert {update.status for update in site.reports} == {JobStatus.STARTING}
    # Two a cycle at most, and in the second half of the day no minute has a tenth of them.
    assert len(site.reports) <= JOBS * (24 * 3600 / 2400 + 1)
    minutes = Counter(int(at_s // 60) for times in site.heard.values() for at_s in times if at_s > 12 * 3600)
    assert max(minutes.values()) <= JOBS / 5


def test_starting_is_told_at_once() -> None:
    core, site = big_rig(), Listener(JOBS)
    site.run(core, 120.0)
    assert len(site.heard) == JOBS
    assert max(times[0] for times in site.heard.values()) < 120.0 < SENT_S


def test_after_an_outage_of_an_hour_every_job_is_heard_before_it_would_be_lost() -> None:
    for begins_s in range(300, 3000, 300):
        core, site = big_rig(), Listener(JOBS)
        site.run(core, float(begins_s))
        site.down = True
        site.run(core, 3600.0)
        site.down = False
        site.run(core, 3600.0)
        gaps = [b - a for times in site.heard.values() for a, b in pairwise(times)]
        assert max(gaps) < LOST_S - 300.0, begins_s


def test_a_job_is_starting_until_its_start_line_and_running_after_it() -> None:
    core, site = Rig(), Listener(4)
    site.run(core, 600.0)
    (batch_id,), (bundle,) = site.batch, core.state.bundles.values()
    site.run(core, 3600.0)
    assert {update.status for update in site.reports} == {JobStatus.STARTING}
    assert {update.batch_id for update in site.reports} == {None}
    site.start(batch_id)
    first = bundle.job_keys[0]
    site.line(bundle.bundle_id, "job_started", panda_id=first, attempt_nr=1)
    site.reports.clear()
    site.run(core, 120.0)
    assert [(u.panda_id, u.status, u.batch_id) for u in site.reports] == [
        (first, JobStatus.RUNNING, batch_id)
    ]


def test_what_follows_a_job_that_came_to_nothing_is_not_running() -> None:
    follower = JobRecord.of(JobKey(2), "panda", make_job(2), "long", "2026-01-01T00:00:00+00:00")
    leading = JobRecord.of(JobKey(1), "panda", make_job(1), "long", "2026-01-01T00:00:00+00:00")
    assert wanted_status(follower, leading) is JobStatus.STARTING
    leading.state = JobState.STARTED
    assert wanted_status(follower, leading) is JobStatus.RUNNING
    leading.state = JobState.JUDGED
    leading.judgement = Judgement(
        "", Verdict(JobStatus.FAILED, 1379, "not started", "infrastructure"), NO_OUTCOME
    )
    assert wanted_status(follower, leading) is JobStatus.STARTING
    leading.judgement = Judgement("", Verdict(JobStatus.FINISHED, 0, "", "own"), NO_OUTCOME)
    assert wanted_status(follower, leading) is JobStatus.RUNNING


def test_of_two_batch_jobs_with_the_rounds_name_only_the_claim_says_which_is_told() -> None:
    at, tag, job = "2026-01-01T00:00:00+00:00", BundleId("a" * 9), PandaId(1)
    state, limits = State(), make_limits()
    for event in (
        JobFetched(at, "long", make_job(1)),
        BundlePlanned(at, tag, "long", ((job,),), 600),
        BundlePrepared(at, tag),
        RoundIntended(at, tag, 1),
        BatchJobAccepted(at, tag, 1, BatchId("24.sim"), "qsub"),
        BatchJobAccepted(at, tag, 1, BatchId("25.sim"), "name"),
        JobStarted(at, job, 1, tag, 0),
    ):
        apply(state, event)
    assert render_update(state, state.jobs[job], START.isoformat(), limits).batch_id is None
    apply(state, ClaimSeen(at, tag, 1, Claim("gate", 1, BatchId("24.sim"), "h", 1, "n", at)))
    assert render_update(state, state.jobs[job], START.isoformat(), limits).batch_id == "24.sim"


def test_start_and_end_are_neither_in_the_future_nor_reversed() -> None:
    core, site = Rig(), Listener(4)
    site.run(core, 600.0)
    (batch_id,), (bundle,) = site.batch, core.state.bundles.values()
    site.start(batch_id)
    for number, panda_id in enumerate(bundle.job_keys):
        job = core.state.jobs[panda_id].job
        site.line(bundle.bundle_id, "job_started", panda_id=panda_id, attempt_nr=1)
        # The node's own measure: shorter, as long, longer than what the edge saw, and none.
        wall_s = (1.0, 600.0, 10_000_000.0, None)[number]
        site.line(bundle.bundle_id, "job_ended", **{**good_end(job), "wall_s": wall_s})
    site.reports.clear()
    site.run(core, 120.0)
    finals = [update for update in site.reports if update.status is JobStatus.FINISHED]
    assert len(finals) == 4
    for update in finals:
        assert isinstance(update.start_time, datetime)
        assert START <= update.start_time <= update.end_time <= START + timedelta(seconds=core.now_s)
        # What was written goes beside what was read.
        assert (update.n_events, update.job_metrics) == (
            100 + update.panda_id,
            f"eventsWritten={100 + update.panda_id}",
        )


def _one_that_runs() -> tuple[Rig, Listener, JobRecord]:
    core, site = Rig(), Listener(1)
    site.run(core, 600.0)
    (batch_id,), (bundle,) = site.batch, core.state.bundles.values()
    site.start(batch_id)
    record = core.state.jobs[bundle.job_keys[0]]
    site.line(bundle.bundle_id, "job_started", panda_id=record.job.panda_id, attempt_nr=1)
    return core, site, record


def test_after_the_clock_was_set_back_no_end_is_in_the_future_and_no_start_behind_its_end() -> None:
    core, site, record = _one_that_runs()
    (bundle_id,) = core.state.bundles
    site.line(bundle_id, "job_ended", **{**good_end(record.job), "wall_s": 30.0})
    site.run(core, 120.0)
    assert record.judged_at is not None
    for back_s in (10.0, 300.0, 86400.0):
        now = datetime.fromisoformat(record.judged_at) - timedelta(seconds=back_s)
        update = render_update(core.state, record, now.isoformat(), core.limits)
        assert update.start_time is not None and update.end_time is not None
        assert update.start_time <= update.end_time <= now


def test_after_the_clock_was_set_back_no_running_job_starts_in_the_future() -> None:
    core, site, record = _one_that_runs()
    site.run(core, 120.0)
    assert record.started_at is not None
    started = datetime.fromisoformat(record.started_at)
    for back_s in (0.0, 10.0, 86400.0):
        now = started - timedelta(seconds=back_s)
        update = render_update(core.state, record, now.isoformat(), core.limits)
        assert (update.status, update.start_time) == (JobStatus.RUNNING, now)


def test_a_mass_of_orders_ends_nothing_and_raises_the_alarm() -> None:
    core, site = big_rig(), Listener(JOBS)
    site.run(core, 300.0)
    site.killed, site.status = dict.fromkeys(range(1, JOBS + 1), "tobekilled"), "running"
    site.run(core, 3600.0)
    assert "mass-kill" in core.memory.alarms
    assert not any(record.kill_ordered for record in core.state.jobs.values())
    assert len(core.state.jobs) == JOBS


def test_orders_after_lost_heartbeats_are_not_a_persons() -> None:
    core, site = big_rig(), Listener(8)
    site.run(core, 300.0)
    site.killed = dict.fromkeys(range(1, 9), "tobekilled")
    for site.status in ("failed", "unknown"):
        site.run(core, 3600.0)
    assert not any(record.kill_ordered for record in core.state.jobs.values())


def test_a_report_holds_at_most_a_chunk_and_a_full_one_is_one_call() -> None:
    core, site = big_rig(), Listener(JOBS)
    site.run(core, 120.0)
    assert max(count for _, count in site.calls) == 100
    # All were fetched at once: as few calls as hold them.
    assert len(site.calls) <= JOBS / 100 + 2


def test_a_short_answer_is_not_the_end_of_the_queue() -> None:
    core, site = Rig(), Listener(8)
    given: list[int] = []

    def respond(action: a.Action) -> Any:
        if isinstance(action, a.FetchJobs):
            given.append(action.count)
            return Fetched((site.waiting.pop(0),) if site.waiting else ())
        return site.respond(action)

    core.run(respond, 60)
    assert given[:4] == [8, 7, 6, 5]
    assert len(core.state.jobs) == 8
