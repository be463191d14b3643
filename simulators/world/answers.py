"""Directed scenarios of wrong answers of the batch commands: texts and exit codes, as the pilot's adapter gets them.

As in `scenarios`: each lets the fault happen, heals the world and returns it at its end; the real adapter leaves it
clean.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from pilot.command import CommandOutcome, Completed
from simulators.world.batch import Hung, Work
from simulators.world.staging import heal, let_start, make_limits, make_world, running, submitted
from simulators.world.world import World

WRONG_S = 400.0


def _two_run(seed: int) -> World:
    """Two batch jobs whose payloads run, each listed before."""
    world = make_world(seed, run_s=600.0, jobs=8, limits=make_limits(wanted=2))
    submitted(world)
    let_start(world)
    running(world, 8)
    world.run(30.0)
    return world


def cut_listings(seed: int) -> World:
    """Every listing ends behind its first batch job, with exit code 0, while two run."""
    world = _two_run(seed)

    def spoil(argv: tuple[str, ...], work: Work) -> CommandOutcome:
        done = work()
        if argv != ("qstat", "-x") or not isinstance(done, Completed):
            return done
        first, closed, _ = done.stdout.partition("</Job>")
        return replace(done, stdout=first + closed)

    world.batch.spoil = spoil
    world.run(WRONG_S)
    return heal(world)


def server_refuses_connections(seed: int) -> World:
    """Every command ends with exit code 111 and says that the server is not there, while two batch jobs run."""
    world = _two_run(seed)

    def spoil(argv: tuple[str, ...], work: Work) -> CommandOutcome:
        return Completed(
            111, "", f"{argv[0]}: cannot connect to server sim (errno=111) Connection refused\n", 0.0
        )

    world.batch.spoil = spoil
    world.run(WRONG_S)
    return heal(world)


def hung_qsub(seed: int) -> World:
    """qsub hands its batch job over and does not return; it is ended after its time-out."""
    world = make_world(seed, run_s=60.0)
    hung: list[str] = []

    def spoil(argv: tuple[str, ...], work: Work) -> CommandOutcome:
        done = work()
        if argv[0] == "qsub" and not hung:
            hung.append(argv[-2])
            raise Hung
        return done

    world.batch.spoil = spoil
    world.start_daemon()
    world.run_until(lambda: bool(hung), 300)
    world.run(100.0)
    return heal(world)


ANSWERS: Mapping[str, Callable[[int], World]] = {
    scenario.__name__: scenario for scenario in (cut_listings, server_refuses_connections, hung_qsub)
}
