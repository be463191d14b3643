"""The daemon dies at each operation of a packing; state directory and server are put back to before the bundle ended.

All that tells how the jobs ended is then the bundle's directory: loose, half packed or packed.
"""

from __future__ import annotations

import copy
from collections import Counter
from functools import partial
from typing import Any

import pytest

from pilot.multijob.events import BundleAdopted, BundlePlanned, Event
from simulators.world.checkers import violations
from simulators.world.files import EDGE
from simulators.world.staging import heal, let_start, make_limits, make_world, running
from simulators.world.world import Daemon, World

OPERATIONS_MAX = 200


def packed_and_forgotten(seed: int, number: int, happens: bool) -> tuple[World, bool]:
    """The daemon dies at the `number`-th operation of its first packing (`happens`: after its effect), or at its end.

    Also says whether there were so many.
    """
    world = make_world(seed, run_s=60.0, jobs=6, limits=make_limits(jobs_per_slot=2))
    copies: list[Any] = []
    left = [number]
    plain = world.shared.after

    def watch(daemon: Daemon, event: Event) -> None:
        if isinstance(event, BundlePlanned) and not copies:
            copies.append(world.state_copy())

    def strike(client: str) -> bool:
        packs = any(key[0] == "pack" for d in world.daemons if d.alive for key in d.memory.in_flight)
        if client != EDGE or not packs or left[0] <= 0:
            return False
        left[0] -= 1
        if left[0] == 0:
            _put_back(world, copies)
        return left[0] == 0

    def before(client: str, operation: Any) -> None:
        if not happens and strike(client):
            raise InterruptedError(4, "Interrupted system call")

    def after(client: str, operation: Any, reply: Any) -> Any:
        if happens:
            strike(client)
        return plain(client, operation, reply)

    world.watch.append(watch)
    world.start_daemon()
    let_start(world)
    assert running(world, 4)
    world.run(30.0)
    (wire,) = world.wires.values()
    wire.model.advance(world.now_s)
    copies.append(copy.deepcopy(wire.model))
    world.shared.before, world.shared.after = before, after
    world.run_until(lambda: left[0] <= 0 or any(d.memory.packed for d in world.daemons), 4000.0)
    there = left[0] <= 0
    if not there:
        left[0] = 0
        _put_back(world, copies)
    return heal(world), there


def _put_back(world: World, copies: list[Any]) -> None:
    """The daemon is killed; state directory and server are as they were, and it is started again."""
    for daemon in world.daemons:
        if daemon.alive:
            world.crash(daemon)
    assert world.restore(copies[0])
    (wire,) = world.wires.values()
    next_id, wire.model = wire.model.next_id, copies[1]
    wire.model.next_id = next_id
    wire.model.advance(world.now_s)
    world.timers.set(world.now_s + 5.0, partial(_again, world))


def _again(world: World) -> None:
    if not any(daemon.alive for daemon in world.daemons):
        world.start_daemon()


def adopted(world: World) -> int:
    return sum(isinstance(event, BundleAdopted) for d in world.daemons for _, event in d.events)


@pytest.mark.parametrize("happens", [False, True])
def test_what_a_forgotten_bundle_did_is_told_by_its_directory_however_far_it_was_packed(
    happens: bool,
) -> None:
    packs = 0
    for number in range(1, OPERATIONS_MAX):
        world, there = packed_and_forgotten(1, number, happens)
        found = [f"operation {number}: {item.checker}: {item.story}" for item in violations(world)]
        assert not found, "\n".join(found)
        assert adopted(world) >= 1
        runs = Counter(run.panda_id for run in world.truth.payloads)
        assert set(runs.values()) == {1}, (number, runs)
        (wire,) = world.wires.values()
        assert {job.status for job in wire.model.jobs.values()} == {"finished"}, number
        packs += any(
            "/pack." in path for path in world.shared.paths(f"{world.limits.site.shared_dir}/bundles/")
        )
        if not there:
            assert number > 10 and packs == number
            return
    raise AssertionError("the packing never came to its end")
