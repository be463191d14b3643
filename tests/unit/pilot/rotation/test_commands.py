"""Orders of people: what each does to state and answer, as tables over the pure core."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from rig import START, Rig, Site, make_job

from pilot.multijob import actions as a
from pilot.multijob.model import JobState
from pilot.multijob.recognise import Now
from pilot.ports import BatchState, JobStatus
from pilot.rotation.commands import BadRequest, Command, parse_command
from pilot.rotation.step import RunEnd, View, end_of_run, step


def order(rig: Rig, verb: str, site: Site | None = None, **words: Any) -> a.AnswerCommand:
    """Give one command; its answer when it is released. `site` answers everything else."""
    rig.commands = (Command(7, verb, **words),)
    seen = rig.run((site or Site([])).respond, 1)
    (answer,) = [action for action in seen if isinstance(action, a.AnswerCommand)]
    return answer


def at(seconds: float) -> str:
    return (START + timedelta(seconds=seconds)).isoformat()


def test_a_paused_queue_fetches_nothing_and_keeps_its_pool() -> None:
    rig, site = Rig(), Site([make_job(n) for n in range(1, 100)])
    rig.run(site.respond, 3)
    assert order(rig, "pause", site).done
    waiting, bundles = len(site.waiting), len(rig.state.bundles)
    seen = rig.run(site.respond, 200, 5.0)
    assert not any(isinstance(action, a.FetchJobs) for action in seen)
    assert (len(site.waiting), len(rig.state.bundles)) == (waiting, bundles)
    assert any(record.state is JobState.POOLED for record in rig.state.jobs.values())


def test_an_order_outlives_the_daemon() -> None:
    rig = Rig()
    order(rig, "drain", cancel_queued=True, until=at(1000))
    assert rig.restart().state.holds == rig.state.holds


def test_the_answer_is_said_when_the_order_is_durable_and_not_before() -> None:
    rig = Rig()
    rig.auto_append = False
    rig.commands = (Command(7, "pause"),)
    released = rig.tick()
    assert not any(isinstance(action, a.AnswerCommand) for action in released)
    (append,) = [action for action in released if isinstance(action, a.AppendEvents)]
    from pilot.ports import Appended

    rig.answer(append, Appended(append.commit, 1))
    assert any(isinstance(action, a.AnswerCommand) for action in rig.tick())


def test_resume_ends_a_pause_and_work_goes_on() -> None:
    rig, site = Rig(), Site([make_job(n) for n in range(1, 100)])
    order(rig, "pause", site)
    rig.run(site.respond, 10, 5.0)
    assert not rig.state.jobs
    assert order(rig, "resume", site).done
    rig.run(site.respond, 100, 5.0)
    assert rig.state.jobs


def test_at_a_drain_jobs_of_the_pool_end_as_not_started() -> None:
    rig, site = Rig(), Site([make_job(n) for n in range(1, 4)])
    rig.run(site.respond, 5)
    assert len(rig.state.pools["long"]) == 3
    order(rig, "drain", site)
    rig.run(site.respond, 10)
    finals = [update for update in site.reports if update.status is JobStatus.FAILED]
    assert [update.pilot_error_code for update in finals] == [1344] * 3
    assert not rig.state.jobs


def test_a_drain_leaves_bundles_that_wait_alone_unless_told() -> None:
    rig, site = Rig(), Site([make_job(n) for n in range(1, 5)])
    rig.run(site.respond, 10, 5.0)
    assert len(site.batch) == 1
    order(rig, "drain", site)
    rig.run(site.respond, 20, 5.0)
    assert [job.state for job in site.batch.values()] == [BatchState.WAITING]
    order(rig, "drain", site, cancel_queued=True)
    rig.run(site.respond, 100, 5.0)
    assert [job.state for job in site.batch.values()] == [BatchState.OVER]
    assert not rig.state.jobs
    assert {update.pilot_error_code for update in site.reports if update.status is JobStatus.FAILED} == {1344}


def test_a_drain_never_cancels_a_bundle_that_runs() -> None:
    rig, site = Rig(), Site([make_job(n) for n in range(1, 5)])
    rig.run(site.respond, 10, 5.0)
    (batch_id,) = site.batch
    site.start(batch_id)
    rig.run(site.respond, 20, 5.0)
    order(rig, "drain", site, cancel_queued=True)
    rig.run(site.respond, 100, 5.0)
    assert site.batch[batch_id].state is BatchState.RUNNING
    assert len(rig.state.jobs) == 4


def test_a_drain_ends_by_itself_at_its_time() -> None:
    rig, site = Rig(), Site([make_job(n) for n in range(1, 100)])
    order(rig, "drain", site, until=at(500))
    rig.run(site.respond, 99, 5.0)
    assert "long" in rig.state.holds
    rig.run(site.respond, 10, 5.0)
    assert not rig.state.holds
    assert rig.state.jobs


def test_a_drain_until_a_time_that_is_over_changes_nothing() -> None:
    rig = Rig()
    rig.now_s = 100.0
    answer = order(rig, "drain", until=at(50))
    assert not answer.done
    assert not rig.state.holds


@pytest.mark.parametrize("verb", ["pause", "drain", "resume"])
def test_a_queue_that_is_not_there_is_said_and_nothing_is_changed(verb: str) -> None:
    rig = Rig()
    answer = order(rig, verb, queues=("long", "no\nsuch"))
    assert not answer.done
    assert "no\\nsuch" in answer.lines[0]
    assert not rig.state.holds


def test_a_pause_does_not_weaken_a_drain() -> None:
    rig = Rig()
    order(rig, "drain")
    order(rig, "pause")
    assert rig.state.holds["long"].drains


def test_resume_of_a_queue_that_is_not_held_is_no_error() -> None:
    answer = order(Rig(), "resume")
    assert answer.done
    assert "neither" in answer.lines[0]


def test_stop_says_when_the_server_starts_to_fail_jobs() -> None:
    rig, site = Rig(), Site([make_job(1)])
    rig.run(site.respond, 5, 10.0)
    accepted_s = max(known.accepted_s for known in rig.memory.reported.values())
    answer = order(rig, "stop", site)
    assert at(accepted_s + 7200) in answer.lines[1]
    rig.tick()
    assert end_of_run(rig.state, rig.memory, rig.limits, stopping=False) is RunEnd.STOPPED


def test_a_job_that_was_never_reported_counts_from_its_fetch() -> None:
    rig, site = Rig(), Site([make_job(1)])
    rig.run(lambda action: None if isinstance(action, a.ReportJobs) else site.respond(action), 5, 10.0)
    (record,) = rig.state.jobs.values()
    fetched_s = (START.fromisoformat(record.fetched_at) - START).total_seconds()
    assert at(fetched_s + 1800) in order(rig, "stop", site).lines[1]


def test_stop_without_jobs_says_so() -> None:
    assert "no heartbeat" in order(Rig(), "stop").lines[1]


@pytest.mark.parametrize(
    "request_",
    [
        {},
        {"verb": "rm"},
        {"verb": ["pause"]},
        {"verb": "pause", "queues": "long"},
        {"verb": "pause", "queues": [1]},
        {"verb": "drain", "until": "tomorrow"},
        {"verb": "drain", "until": "2026-01-01T00:00:00"},
        {"verb": "drain", "until": 5},
        {"verb": "drain", "cancel_queued": "yes"},
        {"verb": "why", "subject": 5},
    ],
)
def test_a_request_that_is_no_command_is_refused(request_: dict[str, Any]) -> None:
    with pytest.raises(BadRequest):
        parse_command(1, request_)


def test_a_tick_without_commands_is_as_before() -> None:
    rig = Rig()
    view = View((), Now(at(0), 0.0), ())
    assert step(rig.state, rig.memory, view, rig.limits).events == ()
