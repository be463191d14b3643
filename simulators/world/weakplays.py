"""Directed scenarios of a site on which link(2) is not exclusive between hosts: bundles with weak fencing (DESIGN 3).

Those of the submission protocol are played once more, each gate and the pilot marking, waiting and looking, with some
that only marks know. The real protocol leaves all of them clean; what a wrong variant breaks is said by `checkers`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from pilot.multijob import actions as a
from pilot.multijob.node import files
from simulators.world.scenarios import SCENARIOS
from simulators.world.staging import (
    WEAK,
    heal,
    hidden,
    late,
    let_start,
    make_world,
    running,
    submitted,
    unseen_then_killed_in,
)
from simulators.world.world import World

# What they are about is not there without a claim.
NOT_WEAK = frozenset({"claim_reply_lost", "claim_answer_lost_then_crash"})


def weakly(scenario: Callable[[int], World], seed: int) -> World:
    """Play a scenario on such a site."""
    token = WEAK.set(True)
    try:
        return scenario(seed)
    finally:
        WEAK.reset(token)


def both_lose(seed: int) -> World:
    """Two batch jobs of one round start at once and see each other's mark: nobody goes on, the jobs run later."""
    world = make_world(seed, run_s=60.0)
    _, _, batch_id = submitted(world)
    world.torque.submit(world.now_s, world.torque.jobs[batch_id].submission)
    let_start(world)
    world.run_until(lambda: len(world.truth.gates) == 2, 600)
    return heal(world)


def mark_seen_late(seed: int) -> World:
    """Of two batch jobs the one whose mark the pilot sees late goes on; the other one is over soon."""
    world = make_world(seed, run_s=400.0)
    late(world, ("edge", "mark."))
    _, _, batch_id = submitted(world)
    let_start(world)
    running(world, 4)
    world.torque.submit(world.now_s, world.torque.jobs[batch_id].submission)
    return heal(world)


def marked_then_crash(seed: int) -> World:
    """The pilot makes its mark and is killed; its batch job, in no listing, starts before the next run looks."""
    world = make_world(seed, run_s=60.0)
    unseen_then_killed_in(world, a.MakeMark)
    let_start(world)
    world.run(60.0)
    world.start_daemon()
    return heal(world)


def hung_before_the_mark(seed: int) -> World:
    """A gate hangs before it makes its mark, longer than the pilot waits with its own; its round is given up."""
    world = make_world(seed, run_s=60.0)
    _, bundle, batch_id = submitted(world)
    been: list[str] = []

    def hang_s(client: str, operation: Any) -> float:
        if (
            been
            or not isinstance(operation, files.PutNew)
            or "/mark." not in operation.path
            or client == "edge"
        ):
            return 0.0
        been.append(client)
        return 1500.0

    world.floor.hang_s = hang_s
    let_start(world)
    world.run_until(lambda: bool(been), 300)
    world.shown = partial(hidden, batch_id)
    world.run_until(lambda: len(bundle.rounds) > 1, 1200)
    return heal(world)


WEAK_PLAYS: Mapping[str, Callable[[int], World]] = {
    **{name: partial(weakly, play) for name, play in SCENARIOS.items() if name not in NOT_WEAK},
    **{
        play.__name__: partial(weakly, play)
        for play in (both_lose, mark_seen_late, marked_then_crash, hung_before_the_mark)
    },
}
