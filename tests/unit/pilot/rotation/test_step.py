"""One tick after the other: the walk of a bundle, and what a restart or a bad answer must not do."""

from __future__ import annotations

from dataclasses import replace

from rig import Rig, Site, good_end, make_job

from pilot.multijob import actions as a
from pilot.multijob.model import BundleState, JobState
from pilot.ports import Appended, BatchId, BatchState, Claim, Fetched, JobStatus, Refused, Unavailable


def walk(rig: Rig, site: Site, ticks: int = 60, after_s: float = 5.0) -> list[a.Action]:
    """Run with a site that starts whatever waits and ends every job well."""
    seen = []
    for _ in range(ticks):
        seen += rig.run(site.respond, 1, after_s)
        for batch_id, job in list(site.batch.items()):
            if job.state == "waiting" and site.start(batch_id):
                tag = job.name.partition(".")[0]
                for panda_id in rig.state.bundles[tag].job_keys:
                    record = rig.state.jobs[panda_id]
                    site.line(tag, "job_started", panda_id=panda_id, attempt_nr=1)
                    site.line(tag, "job_ended", **good_end(record.job))
            elif job.state == "running":
                site.end(batch_id)
    return seen


def test_every_job_is_reported_once_as_finished() -> None:
    site = Site([make_job(n) for n in range(1, 11)])
    rig = Rig()
    walk(rig, site, 120)
    final = [u for u in site.reports if u.status is JobStatus.FINISHED]
    assert sorted(u.panda_id for u in final) == list(range(1, 11))
    assert not rig.state.jobs
    assert rig.state.totals["long"].bundles == 3
    assert all(u.batch_id for u in final)
    assert all(u.report for u in final)


def test_starting_is_reported_before_anything_else_of_a_job() -> None:
    site = Site([make_job(1)])
    rig = Rig()
    rig.run(site.respond, 10)
    assert [u.status for u in site.reports] == [JobStatus.STARTING]


def test_qsub_is_released_only_after_its_intent_is_durable() -> None:
    site = Site([make_job(n) for n in range(1, 5)])
    rig = Rig()
    rig.auto_append = False
    intents_durable = 0
    for _ in range(60):
        for action in rig.tick(5.0):
            if isinstance(action, a.SubmitBatchJob):
                assert intents_durable > 0
            if isinstance(action, a.AppendEvents):
                intents_durable += sum(r["e"] == "RoundIntended" for r in action.records)
                rig.answer(action, Appended(action.commit, 1))
            else:
                rig.answer(action, site.respond(action))
    assert intents_durable == 1


def test_failed_append_releases_nothing_but_heartbeats() -> None:
    site = Site([make_job(n) for n in range(1, 3)])
    rig = Rig()
    rig.auto_append = False
    released = []
    for _ in range(400):
        for action in rig.tick(20.0):
            if not isinstance(action, a.AppendEvents):
                rig.answer(action, site.respond(action))
            elif not rig.memory.durable:
                # The first commit: the jobs are fetched.
                rig.answer(action, Appended(action.commit, 1))
                continue
            else:
                rig.answer(action, Unavailable("ENOSPC"))
            released.append(action)
    assert not any(isinstance(x, a.SubmitBatchJob | a.PrepareBundle) for x in released)
    assert sum(isinstance(x, a.ReportJobs) for x in released) >= 3
    assert "journal-not-writable" in rig.memory.alarms


def test_higher_epoch_stops_without_another_action() -> None:
    rig = Rig()
    rig.auto_append = False
    site = Site([make_job(1)])
    append = None
    for _ in range(10):
        for action in rig.tick():
            if isinstance(action, a.AppendEvents):
                append = action
            else:
                rig.answer(action, site.respond(action))
    assert append is not None
    rig.answer(append, Appended(append.commit, 2))
    assert rig.tick() == []


def test_lost_qsub_answer_is_found_by_name_and_never_submitted_again() -> None:
    site = Site([make_job(n) for n in range(1, 5)])
    rig = Rig()
    rig.run(site.respond, 3)
    tag = next(iter(rig.state.bundles))
    site.lost.add(f"{tag}.1")
    walk(rig, site, 80)
    assert len(site.batch) == 1
    assert not rig.state.jobs


def test_restart_between_intent_and_answer_submits_nothing_twice() -> None:
    site = Site([make_job(n) for n in range(1, 5)])
    rig = Rig()
    for _ in range(20):
        actions = rig.run(lambda x: None if isinstance(x, a.SubmitBatchJob) else site.respond(x), 1)
        submits = [x for x in actions if isinstance(x, a.SubmitBatchJob)]
        if submits:
            site.respond(submits[0])
            break
    again = rig.restart()
    walk(again, site, 120)
    assert len(site.batch) == 1
    assert not again.state.jobs


def test_refused_qsub_gives_the_round_up_and_tries_the_next() -> None:
    site = Site([make_job(n) for n in range(1, 5)])
    rig = Rig()
    refused = []

    def respond(action: a.Action) -> object:
        if isinstance(action, a.SubmitBatchJob) and action.number == 1:
            refused.append(action)
            return Refused("190", "too long")
        return site.respond(action)

    for _ in range(100):
        rig.run(respond, 1, 5.0)
        for batch_id, job in list(site.batch.items()):
            if job.state == "waiting":
                site.start(batch_id)
    assert len(refused) == 1
    assert [job.name.split(".")[1] for job in site.batch.values()] == ["2"]


def _to_claimed(site: Site) -> Rig:
    rig = Rig()
    for _ in range(45):
        rig.run(site.respond, 1, 2.0)
        for batch_id, job in list(site.batch.items()):
            if job.state == "waiting":
                site.start(batch_id)
    return rig


def test_absent_once_is_not_ended() -> None:
    site = Site([make_job(n) for n in range(1, 9)])
    rig = _to_claimed(site)
    gone = site.batch.pop(BatchId("1.sim"))
    rig.run(site.respond, 1, 60.0)
    rig.run(site.respond, 1, 0.0)
    bundle = rig.state.bundles[gone.name.split(".")[0]]
    assert bundle.state is BundleState.OPEN
    assert not bundle.current.batch_job_over
    rig.run(site.respond, 3, 60.0)
    assert bundle.state is not BundleState.OPEN


def test_failed_listing_is_not_an_empty_one() -> None:
    site = Site([make_job(n) for n in range(1, 9)])
    rig = _to_claimed(site)
    rig.run(lambda x: Unavailable("hung") if isinstance(x, a.ListBatchJobs) else site.respond(x), 50, 60.0)
    assert all(b.state is BundleState.OPEN for b in rig.state.bundles.values())


def test_listing_without_any_known_job_is_asked_singly() -> None:
    site = Site([make_job(n) for n in range(1, 9)])
    rig = _to_claimed(site)
    kept, site.batch = site.batch, {}

    def respond(action: a.Action) -> object:
        if isinstance(action, a.ListBatchJobs) and action.ids is not None:
            site.batch = kept
            found = site.respond(action)
            site.batch = {}
            return found
        return site.respond(action)

    seen = rig.run(respond, 20, 60.0)
    assert any(isinstance(x, a.ListBatchJobs) and x.ids for x in seen)
    assert all(b.state is BundleState.OPEN for b in rig.state.bundles.values())


def test_start_line_without_end_is_lost_and_no_start_line_goes_back() -> None:
    site = Site([make_job(n) for n in range(1, 5)])
    rig = _to_claimed(site)
    tag = next(iter(rig.state.bundles))
    site.line(tag, "job_started", panda_id=1, attempt_nr=1)
    site.end(BatchId("1.sim"))
    for _ in range(100):
        rig.run(site.respond, 1, 5.0)
        if rig.state.bundles[tag].state is BundleState.SETTLED:
            break
    assert [u.pilot_error_code for u in site.reports if u.status is JobStatus.FAILED] == [1379]
    assert rig.state.totals["long"].returned == 3
    rig.run(site.respond, 2)
    assert all(r.state in (JobState.POOLED, JobState.BUNDLED) for r in rig.state.jobs.values())


def test_settling_starts_from_zero_after_a_restart() -> None:
    site = Site([make_job(n) for n in range(1, 5)])
    rig = _to_claimed(site)
    tag = next(iter(rig.state.bundles))
    site.end(BatchId("1.sim"))
    while rig.state.bundles[tag].state is BundleState.OPEN:
        rig.run(site.respond, 1, 5.0)
    again = rig.restart()
    again.run(site.respond, 4, 10.0)
    assert again.state.bundles[tag].state is BundleState.CLOSED
    again.run(site.respond, 4, 10.0)
    assert again.state.bundles[tag].state is BundleState.SETTLED


def test_one_malformed_job_never_harms_its_neighbours() -> None:
    bad = make_job(3, job_pars="PRODSYS_NEVENTS=ten reco")
    site = Site([make_job(1), make_job(2), bad, make_job(4)])
    rig = Rig()
    walk(rig, site, 120)
    finals = {
        u.panda_id: (u.status, u.pilot_error_code) for u in site.reports if u.status in ("finished", "failed")
    }
    assert finals == {1: ("finished", 0), 2: ("finished", 0), 3: ("failed", 1110), 4: ("finished", 0)}


def test_doubled_fetch_answer_makes_no_second_job() -> None:
    rig = Rig()
    site = Site([])
    jobs = (make_job(1), make_job(2))
    rig.run(lambda x: Fetched(jobs) if isinstance(x, a.FetchJobs) else site.respond(x), 40, 70.0)
    assert len([e for e in rig.recorded() if e["e"] == "JobFetched"]) == 2


def test_nothing_is_started_while_the_batch_system_cannot_be_seen() -> None:
    site = Site([make_job(n) for n in range(1, 9)])
    rig = Rig()
    seen = rig.run(
        lambda x: Unavailable("111") if isinstance(x, a.ListBatchJobs) else site.respond(x), 50, 60.0
    )
    assert not any(isinstance(x, a.FetchJobs | a.SubmitBatchJob) for x in seen)


def doubled_with_an_unreadable_claim() -> tuple[Rig, Site, BatchId]:
    """The accepted batch job ends without the claim; then another of its round starts, whose claim nobody can read."""
    site = Site([make_job(n) for n in range(1, 5)])
    rig = Rig()
    rig.run(site.respond, 40, 5.0)
    (bundle,) = rig.state.bundles.values()
    (accepted,) = site.batch
    site.end(accepted)
    doubled = BatchId("99.sim")

    def respond(action: a.Action) -> object:
        if isinstance(action, a.MakeClaim) and doubled not in site.batch:
            site.batch[doubled] = replace(site.batch[accepted], batch_id=doubled, state=BatchState.RUNNING)
            site.claims[bundle.bundle_id, 1] = Claim("unreadable", 1, None, "", 0, "", "")
        return site.respond(action)

    seen = rig.run(respond, 100, 5.0)
    assert doubled in site.batch
    assert not any(isinstance(action, a.WriteClosed) for action in seen)
    return rig, site, doubled


def test_a_claim_that_cannot_be_read_is_not_that_of_the_accepted_batch_job() -> None:
    rig, _, doubled = doubled_with_an_unreadable_claim()
    (bundle,) = rig.state.bundles.values()
    assert doubled in bundle.rounds[1].owners


def test_a_claim_that_cannot_be_read_ends_with_the_last_batch_job_of_its_name() -> None:
    rig, site, doubled = doubled_with_an_unreadable_claim()
    site.end(doubled)
    before = len([event for event in rig.events if type(event).__name__ == "BundleClosed"])
    seen = rig.run(site.respond, 60, 5.0)
    assert before == 0
    assert sum(isinstance(action, a.WriteClosed) for action in seen) == 1


def test_a_listing_older_than_the_claim_shows_no_requeue() -> None:
    site = Site([make_job(n) for n in range(1, 5)])
    rig = Rig()
    held: list[tuple[a.Action, object, float]] = []
    seen = []
    for _ in range(40):
        for action in rig.tick(2.0):
            seen.append(action)
            outcome = site.respond(action)
            if isinstance(action, a.ListBatchJobs) and site.batch and not held:
                held.append((action, outcome, rig.now_s))
                for batch_id in list(site.batch):
                    site.start(batch_id)
            else:
                rig.answer(action, outcome)
        current = [b.current for b in rig.state.bundles.values() if b.current and b.current.claim]
        if held and current:
            action, outcome, asked_s = held.pop()
            rig.answer(action, outcome, asked_s)
            rig.run(site.respond, 3)
            break
    assert not any(isinstance(x, a.CancelBatchJob) for x in seen)
    assert not rig.memory.cancels_asked


def test_a_batch_job_that_waits_again_after_its_launch_is_cancelled() -> None:
    site = Site([make_job(n) for n in range(1, 5)])
    rig = _to_claimed(site)
    site.batch = {i: replace(job, state=BatchState.WAITING) for i, job in site.batch.items()}
    seen = rig.run(site.respond, 4, 60.0)
    assert any(isinstance(x, a.CancelBatchJob) for x in seen)
