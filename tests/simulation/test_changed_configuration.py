"""`node.setup` changes over a restart, and the daemon dies at any time around it: the job without the script's variable
ends once and uncharged, or runs as its directory was made before; its neighbours run once in any case."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from pilot.multijob import actions as a
from pilot.multijob.events import BundlePlanned, BundlePrepared, BundleSettled, Event, JobJudged, JobReturned
from pilot.ports import Job
from simulators.world.checkers import violations
from simulators.world.lanes import Fate
from simulators.world.staging import heal, let_start, make_job, make_world
from simulators.world.world import Daemon, World

# One of the first bundle, and one that still waits in the pool.
BUNDLED, POOLED = 2, 6
# The daemon dies before there is a directory, or after its rename and before that is recorded.
BEFORE, AFTER = (BundlePlanned, 5.0), (BundlePrepared, 0.0)
MAKING_S = 20.0


def make_jobs(unfit: int, number: int) -> Job:
    job = make_job(number)
    return job if number == unfit else replace(job, job_pars=f"RELEASE=r5 {job.job_pars}")


def changed(seed: int, unfit: int, first: tuple[type, float], again: tuple[type, float]) -> World:
    """The daemon dies at `first`, so many seconds after that event; the next one, by the new configuration, at `again`,
    if it comes to that."""
    world = make_world(seed, run_s=60.0, jobs=6, make=partial(make_jobs, unfit))
    strikes = [first, again]

    def fate_of(daemon: Daemon, action: Any) -> Fate | None:
        making = isinstance(action, a.PrepareBundle) and daemon.number == 1
        return Fate(MAKING_S, 0.1) if making else None

    def watch(daemon: Daemon, event: Event) -> None:
        if strikes and len(strikes) == 3 - daemon.number and isinstance(event, strikes[0][0]):
            _, after_s = strikes.pop(0)
            world.timers.set(world.now_s + after_s, partial(strike, daemon))

    def strike(daemon: Daemon) -> None:
        world.crash(daemon)
        world.limits = replace(world.limits, site=replace(world.limits.site, setup="/sw/{RELEASE}/setup.sh"))
        world.start_daemon()

    world.fate_of = fate_of
    world.watch.append(watch)
    world.start_daemon()
    assert world.run_until(lambda: len(world.daemons) == 2, 600.0)
    world.run(300.0)
    let_start(world)
    return heal(world)


@pytest.mark.parametrize("again_s", [0.0, 3.0])
@pytest.mark.parametrize("again_at", [JobReturned, BundleSettled, JobJudged, BundlePlanned, BundlePrepared])
@pytest.mark.parametrize(
    ("unfit", "first", "ends"),
    [(BUNDLED, BEFORE, "failed"), (BUNDLED, AFTER, "finished"), (POOLED, BEFORE, "failed")],
)
def test_a_job_that_does_not_fit_any_more_costs_no_neighbour_whenever_the_daemon_dies(
    unfit: int, first: tuple[type, float], ends: str, again_at: type, again_s: float
) -> None:
    world = changed(1, unfit, first, (again_at, again_s))
    found = [f"{item.checker}: {item.story}" for item in violations(world)]
    assert not found, "\n".join(found)
    statuses = {int(job.panda_id): job.status for job in world.source.jobs()}
    assert statuses == {number: ends if number == unfit else "finished" for number in range(1, 7)}
    code = next(job.attributes.get("pilotErrorCode") for job in world.source.jobs() if job.panda_id == unfit)
    assert str(code or 0) == ("0" if ends == "finished" else "1344")
    ran = any(run.panda_id == unfit for run in world.truth.payloads)
    assert ran == (ends == "finished")
