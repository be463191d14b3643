"""A new task starts with one small bundle; one whose jobs keep failing is stopped until a probe or a person ends it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rig import Rig, Site, good_end, make_job, make_limits

from pilot.multijob.apply import replay
from pilot.multijob.codec import decode
from pilot.multijob.events import BundlePlanned
from pilot.multijob.model import Limits, State
from pilot.multijob.recognise import Now
from pilot.ports import BatchState, BundleId, Job
from pilot.rotation.commands import Command
from pilot.rotation.tasks import probe_wait_s, task_id
from pilot.rotation.why import why

OTHER = "COMPASS_SW_PATH=q/"


def job_of(number: int, other: bool = False) -> Job:
    job = make_job(number)
    return replace(job, job_pars=job.job_pars.replace("COMPASS_SW_PATH=p/", OTHER)) if other else job


def limits_with(**changes: Any) -> Limits:
    limits = make_limits()
    queue = replace(limits.queues["long"], fill_wait_s=0.0, wanted=4, queued_max=4)
    return replace(limits, queues={"long": queue}, canary_nodes=1, task_probe_s=1000.0, **changes)


def go(rig: Rig, site: Site, ticks: int, is_bad: Callable[[Job], bool] = lambda job: False) -> None:
    """Batch jobs start at once, run their jobs and end; those that are bad end with exit code 3."""
    for _ in range(ticks):
        rig.run(site.respond, 1, 20.0)
        for batch_id, seen in list(site.batch.items()):
            if seen.state is BatchState.WAITING and site.start(batch_id):
                tag = BundleId(seen.name.partition(".")[0])
                for panda_id in rig.state.bundles[tag].job_keys:
                    job = rig.state.jobs[panda_id].job
                    site.line(tag, "job_started", panda_id=panda_id, attempt_nr=1)
                    facts = good_end(job) | ({"exit_code": 3} if is_bad(job) else {})
                    site.line(tag, "job_ended", **facts)
            elif seen.state is BatchState.RUNNING:
                site.end(batch_id)


def planned(rig: Rig) -> list[BundlePlanned]:
    return [event for event in rig.events if isinstance(event, BundlePlanned)]


def test_a_new_task_starts_with_one_small_bundle_and_others_wait_for_its_end() -> None:
    rig, site = Rig(limits_with()), Site([make_job(n) for n in range(1, 40)])
    rig.run(site.respond, 10, 20.0)
    (canary,) = planned(rig)
    assert canary.canary is not None and len(canary.nodes) == 1 and len(canary.nodes[0]) == 2
    now = Now("2026-01-01T00:10:00+00:00", rig.now_s)
    assert (
        f"its canary {canary.bundle_id} comes first" in why(rig.state, rig.memory, "long", now, rig.limits)[1]
    )
    assert f"its canary {canary.bundle_id} comes first" in why(rig.state, rig.memory, "7", now, rig.limits)[0]
    go(rig, site, 20)
    assert len(planned(rig)) > 4
    assert all(event.canary is None and len(event.nodes) == 2 for event in planned(rig)[1:4])
    assert not rig.memory.alarms


def test_a_canary_holds_jobs_of_its_own_task_only_and_keeps_no_other_task_waiting() -> None:
    rig = Rig(limits_with())
    site = Site([job_of(n) for n in range(1, 9)])
    go(rig, site, 15)
    site.waiting = [job_of(n, other=n % 2 == 0) for n in range(20, 60)]
    before = len(planned(rig))
    rig.run(site.respond, 40, 20.0)
    later = planned(rig)[before:]
    tasks = [{int(panda_id) % 2 for node in event.nodes for panda_id in node} for event in later]
    canaries = [event.canary is not None for event in later]
    assert sum(canaries) == 1
    assert all(found == ({0} if tries else {1}) for found, tries in zip(tasks, canaries, strict=True))
    assert len(later) > 1


def test_half_of_the_last_jobs_failing_stops_a_task_with_an_alarm_and_others_go_on() -> None:
    rig = Rig(limits_with(task_window=8, task_failed_max=4))
    site = Site([job_of(n, other=n % 5 == 0) for n in range(1, 400)])

    def is_bad(job: Job) -> bool:
        return OTHER in job.job_pars and job.panda_id > 30

    go(rig, site, 60, is_bad)
    (stopped,) = [record for record in rig.state.tasks.values() if record.stopped_at is not None]
    assert OTHER.partition("=")[2] in stopped.name
    assert "failed" in rig.memory.alarms["task-stopped-long"].reason
    assert task_id(stopped.name) in rig.memory.alarms["task-stopped-long"].reason
    count = rig.state.totals["long"].finished
    go(rig, site, 20, is_bad)
    assert rig.state.totals["long"].finished > count + 3
    go(rig, site, 200, is_bad)
    # In the end they fill what a pool may hold of them.
    assert len(rig.state.pools["long"]) == 16
    now = Now("2026-01-01T00:10:00+00:00", rig.now_s)
    assert "16 jobs in the pool, 16 of them" in why(rig.state, rig.memory, "long", now, rig.limits)[0]


def stopped_rig() -> tuple[Rig, Site]:
    rig = Rig(limits_with(task_window=8, task_failed_max=4))
    site = Site([job_of(n) for n in range(1, 400)])
    go(rig, site, 24, lambda job: True)
    assert "task-stopped-long" in rig.memory.alarms
    return rig, site


def test_a_stopped_task_is_probed_by_small_bundles_with_doubled_waits() -> None:
    rig, site = stopped_rig()
    before = len(planned(rig))
    go(rig, site, 400, lambda job: True)
    probes = planned(rig)[before:]
    # After about 1000, 2000 and 4000 s, each one node.
    assert 2 <= len(probes) <= 3
    assert all(event.canary and len(event.nodes) == 1 for event in probes)


def test_a_probe_that_goes_well_ends_the_alarm() -> None:
    rig, site = stopped_rig()
    go(rig, site, 120)
    assert "task-stopped-long" not in rig.memory.alarms
    assert rig.state.totals["long"].finished > 20


def test_a_person_ends_the_stop_and_a_restart_keeps_it() -> None:
    rig, site = stopped_rig()
    rig = rig.restart()
    rig.run(site.respond, 3, 20.0)
    assert "task-stopped-long" in rig.memory.alarms
    name = task_id(next(iter(rig.state.tasks)))
    now = Now("2026-01-01T00:10:00+00:00", rig.now_s)
    assert "jobs failed" in why(rig.state, rig.memory, name, now, rig.limits)[0]
    rig.commands = (Command(1, "resume", tasks=(name,)),)
    rig.run(site.respond, 3, 20.0)
    assert "task-stopped-long" not in rig.memory.alarms
    assert len(planned(rig)) > 1


def test_what_others_did_to_jobs_says_nothing_of_their_task() -> None:
    rig = Rig(limits_with(task_window=8, task_failed_max=4))
    site = Site([job_of(n) for n in range(1, 100)])
    for _ in range(120):
        rig.run(site.respond, 1, 20.0)
        for batch_id, seen in list(site.batch.items()):
            if seen.state is BatchState.WAITING and site.start(batch_id):
                tag = BundleId(seen.name.partition(".")[0])
                for panda_id in rig.state.bundles[tag].job_keys:
                    site.line(tag, "job_started", panda_id=panda_id, attempt_nr=1)
            elif seen.state is BatchState.RUNNING:
                site.end(batch_id)  # all are lost
    assert rig.state.totals["long"].failed > 8
    assert all(record.stopped_at is None for record in rig.state.tasks.values())


def test_once_makes_its_bundle_of_all_jobs() -> None:
    rig, site = Rig(limits_with(once=True)), Site([make_job(n) for n in range(1, 40)])
    rig.run(site.respond, 5, 20.0)
    (bundle,) = planned(rig)
    assert len(bundle.nodes) == 2 and bundle.canary is None


@pytest.mark.parametrize(("stops", "wait_s"), [(1, 1000), (2, 2000), (4, 8000), (9, 86400)])
def test_waits_for_probes_double_up_to_a_limit(stops: int, wait_s: float) -> None:
    rig, _ = stopped_rig()
    record = next(iter(rig.state.tasks.values()))
    record.stops = stops
    assert probe_wait_s(record, rig.limits) == wait_s


@settings(max_examples=25, deadline=None)
@given(bad=st.lists(st.booleans(), min_size=60, max_size=60), nodes=st.sampled_from([None, 1, 2]))
def test_no_more_of_a_failing_task_than_its_tries_is_submitted(bad: list[bool], nodes: int | None) -> None:
    """Whatever fails: an unproven task has one bundle at a time, and replay gives the same."""
    rig = Rig(replace(limits_with(task_window=8, task_failed_max=4), canary_nodes=nodes))
    site = Site([job_of(n, other=n % 3 == 0) for n in range(1, 120)])
    for _ in range(40):
        known: State = replay(decode(record) for record in rig.durable)
        before = len(planned(rig))
        go(rig, site, 1, lambda job: bad[int(job.panda_id) % 60])
        for event in planned(rig)[before:]:
            for panda_id in (i for node in event.nodes for i in node):
                task = rig.state.jobs[panda_id].task if panda_id in rig.state.jobs else None
                was = known.tasks.get(task) if task else None
                if was is not None and was.stopped_at is not None and not rig.state.tasks[task or ""].proven:
                    assert event.canary == task
        assert replay(decode(record) for record in rig.durable).tasks == rig.state.tasks
