"""When a run of the daemon ends: a table of state and memory, no clock and no process."""

from __future__ import annotations

from rig import Rig, Site, make_job, make_limits

from pilot.multijob import actions as a
from pilot.rotation.step import RunEnd, end_of_run


def end(rig: Rig, *, stopping: bool = False) -> RunEnd | None:
    return end_of_run(rig.state, rig.memory, rig.limits, stopping=stopping)


def test_a_daemon_that_nobody_stops_never_ends() -> None:
    rig = Rig()
    rig.run(Site([]).respond, 50, 100.0)
    assert end(rig) is None


def test_a_stop_waits_for_the_journal_and_ends_with_jobs_open() -> None:
    rig = Rig()
    rig.run(Site([make_job(1)]).respond, 5)
    assert rig.state.jobs
    assert end(rig, stopping=True) is RunEnd.STOPPED
    rig.memory.recorded += 1
    assert end(rig, stopping=True) is None


def test_a_stop_does_not_wait_for_a_journal_that_cannot_be_written() -> None:
    rig = Rig()
    rig.memory.recorded += 1
    rig.memory.raise_alarm("journal-not-writable", "disk full", 0.0)
    assert end(rig, stopping=True) is RunEnd.STOPPED


def test_a_stop_waits_for_the_answer_to_its_command() -> None:
    rig = Rig()
    rig.memory.stopping = True
    rig.memory.in_flight[("answer", 1)] = 0.0
    assert end(rig) is None
    rig.memory.in_flight.clear()
    assert end(rig) is RunEnd.STOPPED


def test_once_ends_when_its_bundle_is_reported_and_not_before() -> None:
    site, rig = Site([make_job(1)]), Rig(make_limits(once=True))
    seen = rig.run(site.respond, 150, 1.0)
    assert any(isinstance(action, a.SubmitBatchJob) for action in seen)
    assert end(rig) is None
    (batch_id,) = site.batch
    site.start(batch_id)
    rig.run(site.respond, 80, 1.0)
    assert end(rig) is None
    site.end(batch_id)
    rig.run(site.respond, 200, 1.0)
    assert end(rig) is RunEnd.REPORTED


def test_once_ends_without_jobs_only_after_two_answers() -> None:
    rig, site = Rig(make_limits(once=True)), Site([])
    fetches = 0
    while fetches < 2:
        assert end(rig) is None
        fetches += sum(isinstance(action, a.FetchJobs) for action in rig.run(site.respond, 1, 10.0))
    rig.tick()
    assert end(rig) is RunEnd.NO_JOBS
