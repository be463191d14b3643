"""Heartbeats for a server that does not answer wait without memory; what is urgent does not wait."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

from rig import Rig, make_limits

from bench.fullsite import bundle_events
from pilot.multijob import actions as a
from pilot.multijob.apply import apply, replay
from pilot.multijob.events import JobFetched, JobJudged
from pilot.multijob.memory import Memory
from pilot.multijob.model import NO_OUTCOME, Limits, Verdict
from pilot.multijob.reporting import due_reports, note_event
from pilot.multijob.untold import Untold
from pilot.ports import JobKey, JobStatus

AT = "2026-11-26T00:00:00+00:00"
BUNDLES, JOBS = 8, 64


def full_limits() -> Limits:
    limits = make_limits()
    queue = replace(limits.queues["long"], name="full", panda_queue="BW_COMPASS_MCORE")
    report = replace(limits.report, under_way_max=2)
    return replace(limits, queues={"full": queue}, report=report)


def restarted() -> Rig:
    """A daemon that was just started; eight bundles of 64 jobs run."""
    jobs = [range(n * JOBS, (n + 1) * JOBS) for n in range(BUNDLES)]
    state = replay(e for n in range(BUNDLES) for e in bundle_events(n, jobs[n], AT, runs=True))
    rig = Rig(full_limits(), state)
    rig.memory.inherit(state)
    return rig


def reports(rig: Rig) -> list[a.ReportJobs]:
    found = due_reports(rig.state, rig.memory, AT, rig.now_s, rig.limits)
    for action in found:
        rig.memory.in_flight[action.key] = rig.now_s
    rig.now_s += 1.0
    return found


def test_heartbeats_wait_while_their_server_is_busy_and_each_is_sent_once_it_is_not() -> None:
    rig = restarted()
    rig.memory.in_flight = {("report", "panda", 1): 0.0, ("report", "panda", 2): 0.0}
    assert not any(reports(rig) for _ in range(5))
    rig.memory.in_flight.clear()
    told = Counter(update.panda_id for _ in range(20) for r in reports(rig) for update in r.updates)
    assert len(told) == BUNDLES * JOBS and set(told.values()) == {1}


def test_a_busy_server_hears_of_starts_and_ends_at_once_and_others_of_everything() -> None:
    rig = restarted()
    rig.memory.in_flight = {("report", "panda", n): 0.0 for n in range(2)}
    state, record = rig.state, next(iter(rig.state.jobs.values()))
    first = next(bundle_events(99, range(64 * 99, 64 * 100), AT, runs=False))
    assert isinstance(first, JobFetched)
    verdict = Verdict(JobStatus.FINISHED, 0, "finished", "own")
    judged = JobJudged(AT, record.panda_id, 1, verdict, NO_OUTCOME, record.server)
    for event in (first, judged):
        apply(state, event)
        note_event(state, rig.memory, event)
    ranks = [action.rank for _ in range(3) for action in reports(rig)]
    assert sorted(ranks) == [0, 2]


def test_one_that_runs_is_told_after_a_new_one_when_a_daemon_was_started_again() -> None:
    rig = restarted()
    first = next(bundle_events(99, range(64 * 99, 64 * 100), AT, runs=False))
    apply(rig.state, first)
    note_event(rig.state, rig.memory, first)
    ranks = [action.rank for action in reports(rig)]
    assert ranks[0] == 0 and set(ranks[1:]) == {1}


def test_untold_is_a_set_of_keys() -> None:
    keys: Any = [JobKey(n) for n in (5, 3, 2**48 + 3, 9)]
    untold, same = Untold.of(keys), set(keys)
    for key in (3, 3, 7, 2**48 + 3):
        assert (JobKey(key) in untold) == (key in same)
        untold.discard(JobKey(key))
        same.discard(JobKey(key))
    untold.update([JobKey(7), JobKey(9)])
    same |= {7, 9}
    assert {k for k in range(12) if JobKey(k) in untold} == same
    for key in range(12):
        untold.discard(JobKey(key))
    assert not untold and not Untold()
    assert JobKey(5) not in untold


def test_a_memory_that_inherits_has_told_nothing() -> None:
    rig = restarted()
    assert all(key in rig.memory.untold for key in rig.state.jobs)
    assert not Memory(1, 0.0).untold
