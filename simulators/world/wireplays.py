"""Directed scenarios of what the servers are told: long waits, a server that orders everything, a journal that fails.

Each leaves the real protocol clean, `heartbeat_lost` included; what a wrong variant breaks is said by `wirechecks`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from pilot.multijob import actions as a
from pilot.multijob.model import Limits, WalltimePolicy
from pilot.ports import Job, Unavailable
from pilot.rotation.commands import Command
from simulators.world.lanes import Fate
from simulators.world.staging import heal, let_start, make_job, make_limits, make_world, running, submitted
from simulators.world.world import Daemon, World, small_site

HOUR_S = 3600.0
# More jobs at once than a person orders to end.
MANY = 24


def _long_limits(slots: int = 2) -> Limits:
    """Bundles of a day."""
    limits = make_limits()
    walltime = WalltimePolicy(12 * 3600, 24 * 3600, 1.0, 0.01, 30.0)
    queue = replace(limits.queues["long"], walltime=walltime, slots=slots)
    return replace(limits, queues={"long": queue})


def waits_for_half_a_day(seed: int) -> World:
    """The batch system starts nothing for twelve hours, the server bears two of silence."""
    limits = _long_limits()
    site = small_site(limits.batch_server, first_sequence=4711)
    world = make_world(seed, run_s=3 * HOUR_S, limits=limits, site=site)
    submitted(world)
    world.run(12 * HOUR_S)
    return heal(world)


def everything_is_ordered_to_end(seed: int) -> World:
    """The server orders the end of all jobs that run, and nobody had asked for it."""
    limits = _long_limits(MANY // 2)
    site = small_site(limits.batch_server, slots=MANY // 2)
    world = make_world(seed, run_s=4 * HOUR_S, jobs=MANY, limits=limits, site=site)
    submitted(world)
    let_start(world)
    running(world, MANY)
    world.run(600.0)
    for job in world.source.jobs():
        job.attributes["commandToPilot"] = "tobekilled"
    world.run(2 * HOUR_S)
    for job in world.source.jobs():
        job.attributes.pop("commandToPilot", None)
    return heal(world)


def a_person_ends_everything(seed: int) -> World:
    """A person has the server end all jobs that run; the daemon is killed while it holds these orders; an operator
    confirms them."""
    limits = _long_limits(MANY // 2)
    site = small_site(limits.batch_server, slots=MANY // 2)
    world = make_world(seed, run_s=4 * HOUR_S, jobs=MANY, limits=limits, site=site)
    daemon, _, _ = submitted(world)
    let_start(world)
    running(world, MANY)
    world.run(600.0)
    for wire in world.wires.values():
        for panda_id in tuple(wire.model.jobs):
            wire.model.order_end(panda_id, user="a person")
    world.run(HOUR_S)
    world.crash(daemon)
    world.run(10.0)
    again = world.start_daemon()
    world.run(HOUR_S)
    again.commands.append(Command(1, "confirm-kill", at_most=MANY))
    return heal(world)


def journal_fails_then_crash(seed: int) -> World:
    """Nothing can be written to the journal while jobs wait for a full bundle; the daemon is killed and started again.

    What was fetched meanwhile is gone; the server was never told that it starts, and takes it back after half an hour.
    """
    limits = _long_limits()
    queue = replace(limits.queues["long"], fill_wait_s=2 * HOUR_S)
    world = make_world(seed, run_s=HOUR_S, jobs=2, limits=replace(limits, queues={"long": queue}))

    def fate_of(daemon: Daemon, action: Any) -> Fate | None:
        if isinstance(action, a.AppendEvents):
            return Fate(0.1, 0.1, effect=False, answer=Unavailable("journal: No space left on device"))
        return None

    world.fate_of = fate_of
    let_start(world)
    daemon = world.start_daemon()
    world.run(600.0)
    world.fate_of = lambda daemon, action: None
    world.crash(daemon)
    world.run(10.0)
    world.start_daemon()
    return heal(world)


def work_comes_again(seed: int) -> World:
    """The server is away for three hours and gives up what runs; its work comes again while it still runs."""
    limits = _long_limits()
    world = make_world(seed, run_s=8 * HOUR_S, limits=limits)
    submitted(world)
    let_start(world)
    running(world, 4)
    away = (a.FetchJobs, a.ReportJobs, a.AskStatus)
    none = Fate(60.0, 0.0, effect=False, answer=Unavailable("no answer in time"))
    world.fate_of = lambda daemon, action: none if isinstance(action, away) else None
    world.run(3 * HOUR_S)
    world.fate_of = lambda daemon, action: None
    world.run(HOUR_S)
    world.source.submit([_again(number) for number in range(1, 5)])
    world.run(HOUR_S)
    return heal(world)


def two_servers_count_alike(seed: int) -> World:
    """Two servers give their jobs the same numbers, 1 to 4; the daemon is killed while all of them run."""
    limits = make_limits()
    other = replace(
        limits.queues["long"], name="short", server="panda2", panda_queue="S", batch_queue="short"
    )
    limits = replace(limits, queues={**limits.queues, "short": other})
    world = make_world(seed, run_s=HOUR_S / 2, jobs=0, limits=limits)
    for wire in world.wires.values():
        wire.model.next_id = 1
    world.source.submit([make_job(number) for number in range(1, 5)])
    world.source.submit([replace(make_job(number), panda_queue="S") for number in range(11, 15)])
    daemon = world.start_daemon()
    let_start(world)
    running(world, 8)
    world.run(200.0)
    world.crash(daemon)
    world.run(10.0)
    world.start_daemon()
    return heal(world)


def _again(number: int) -> Job:
    """The next attempt of the same work."""
    job = make_job(number)
    outputs = tuple(lfn.replace(".a1.", ".a2.") for lfn in job.outputs)
    return replace(job, attempt_nr=2, outputs=outputs, log_lfn=f"l-{number}.a2.job.log.tgz")


WIRE_PLAYS: Mapping[str, Callable[[int], World]] = {
    play.__name__: play
    for play in (
        waits_for_half_a_day,
        everything_is_ordered_to_end,
        a_person_ends_everything,
        journal_fails_then_crash,
        two_servers_count_alike,
    )
}
