"""Directed scenarios of filesystem and nodes: a site that breaks in one way while the protocol is at work.

As `scenarios`: each takes a seed and returns a healed world at its end. `MISHAPS` names the fault that each must have
had: a scenario in which it changed nothing shows nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from simulators.torque.job import KillJob, Letter
from simulators.world.filefaults import Rule, Wrong
from simulators.world.files import EDGE
from simulators.world.nodes import NodeFault
from simulators.world.staging import (
    heal,
    let_start,
    make_limits,
    make_world,
    running,
    submitted,
)
from simulators.world.world import World


def _at_work(seed: int, run_s: float = 300.0, jobs: int = 4, jobs_per_slot: int = 1) -> World:
    """A batch job on two nodes whose payloads run."""
    world = make_world(seed, run_s=run_s, jobs=jobs, limits=make_limits(jobs_per_slot=jobs_per_slot))
    submitted(world)
    let_start(world)
    running(world, 4)
    world.run(30.0)
    return world


def _first_node(world: World) -> int:
    return world.machine.agents()[0].node


def node_dies(seed: int) -> World:
    """A node dies while payloads run; its launcher returns, the other node's payloads go on."""
    world = _at_work(seed)
    world.machine.kill_node(_first_node(world))
    return heal(world)


def node_dies_in_a_line(seed: int) -> World:
    """A node dies while its agent writes a line; some of its jobs have not been started."""
    world = _at_work(seed, jobs=12, jobs_per_slot=3)
    world.machine.kill_node(_first_node(world), torn=True)
    return heal(world)


def node_dies_with_all_ranks(seed: int) -> World:
    """A node dies and its launcher ends the agents of all nodes."""
    world = _at_work(seed)
    world.machine.kill_node(_first_node(world), all_ranks=True)
    return heal(world)


def node_dies_and_the_batch_job_stays(seed: int) -> World:
    """A node dies, its launcher never returns: the batch job is running for the server until its walltime."""
    world = _at_work(seed, run_s=120.0)
    world.machine.kill_node(_first_node(world), stays=True)
    return heal(world)


def _requeued(seed: int, survives: bool) -> World:
    world = _at_work(seed)
    batch_id = next(job.batch_id for job in world.torque.jobs.values() if job.state is Letter.RUNNING)
    world.machine.requeue(batch_id, survives=survives)
    return heal(world)


def requeued(seed: int) -> World:
    """The server requeues a batch job at work; it starts a second time after its first start was ended."""
    return _requeued(seed, survives=False)


def requeued_and_the_first_start_survives(seed: int) -> World:
    """The server requeues a batch job at work, the first start goes on out of its reach; both run."""
    return _requeued(seed, survives=True)


def frozen_beyond_its_batch_job(seed: int) -> World:
    """An agent hangs, its batch job runs into its walltime and is ended, much later the agent comes back."""
    world = _at_work(seed, run_s=60.0, jobs=8, jobs_per_slot=2)
    world.machine.freeze(world.machine.agents()[0], 12_000.0)
    return heal(world)


def torn_last_lines(seed: int) -> World:
    """For ten minutes the edge sees only a half of each journal's last line."""
    world = make_world(seed, run_s=60.0)
    world.faults.rules.append(Rule(Wrong.TORN, "edge", ".journal", to_s=600.0))
    submitted(world)
    let_start(world)
    running(world, 4)
    world.run_until(lambda: world.now_s >= 600.0, 600.0)
    return heal(world)


def unlisted_journals(seed: int) -> World:
    """From some time on the edge's listings leave the journals out that it has read; they open as before."""
    world = _at_work(seed, run_s=100.0)
    world.faults.rules.append(Rule(Wrong.UNLISTED, "edge", ".journal", world.now_s, world.now_s + 3600.0))
    world.run(3600.0)
    return heal(world)


def lustre_outage(seed: int) -> World:
    """The shared filesystem is away for an hour while payloads run and the daemon works; all goes on at once."""
    world = _at_work(seed, run_s=200.0, jobs=8, jobs_per_slot=2)
    world.faults.outage(world.now_s, world.now_s + 2000.0)
    world.run(2000.0)
    return heal(world)


def lustre_outage_at_the_gates(seed: int) -> World:
    """The shared filesystem goes away while a gate claims its round."""
    world = make_world(seed, run_s=60.0)
    submitted(world)
    let_start(world)
    world.run_until(lambda: bool(world.truth.gates), 600.0)
    world.faults.outage(world.now_s + 0.1, world.now_s + 900.0)
    world.run(900.0)
    return heal(world)


def node_journal_disk_full(seed: int) -> World:
    """The quota is used up while payloads run: no agent can write a line any more; what they did is not known."""
    world = _at_work(seed)
    world.faults.rules.append(Rule(Wrong.QUOTA, "nid", ".journal"))
    world.run(400.0)
    return heal(world)


def holes_that_heal(seed: int) -> World:
    """For ten minutes what agents write is seen as NUL bytes by the edge, with later lines behind it."""
    world = _at_work(seed, run_s=60.0, jobs=8, jobs_per_slot=2)
    world.faults.rules.append(Rule(Wrong.HOLE, "edge", ".journal", world.now_s, world.now_s + 600.0, 0.5))
    world.run(600.0)
    return heal(world)


def lines_lost_for_ever(seed: int) -> World:
    """A start line in each journal is gone for ever before the edge has read it; then its node dies."""
    world = make_world(seed, run_s=300.0)
    submitted(world)
    let_start(world)
    running(world, 4)
    for agent in world.machine.agents():
        world.shared.lose(agent.journal, 1)
        world.machine.kill_node(agent.node)
    return heal(world)


def node_stands_still(seed: int) -> World:
    """A node stands still with its payloads until long after its bundle was settled, and goes on."""
    world = _at_work(seed, run_s=200.0, jobs=8, jobs_per_slot=2)
    world.machine.freeze(world.machine.agents()[0], 12_000.0, payloads=True)
    return heal(world)


def outputs_disk_full(seed: int) -> World:
    """The disk of the outputs is full when they are placed."""
    world = _at_work(seed, run_s=60.0)
    world.faults.rules.append(Rule(Wrong.DISK_FULL, "nid", "/out/"))
    world.run(200.0)
    return heal(world)


def bundle_directory_disk_full(seed: int) -> World:
    """The disk is full when the bundle's directory is made; there is room again later."""
    world = make_world(seed, run_s=60.0)
    world.faults.rules.append(Rule(Wrong.DISK_FULL, "edge", "manifest", to_s=120.0))
    world.start_daemon()
    world.run(120.0)
    return heal(world)


def link_replies_lost(seed: int) -> World:
    """Claims and placements are linked, and the reply to each link is an error."""
    world = make_world(seed, run_s=60.0)
    world.faults.rules.append(Rule(Wrong.REPLY_LOST, "nid", "/out/", to_s=400.0, share=0.5))
    submitted(world)
    let_start(world)
    running(world, 4)
    world.run(200.0)
    return heal(world)


def killed_at(seed: int, client: str, number: int, happens: bool = False) -> tuple[World, bool]:
    """One process dies at its `number`-th file operation, counted over all whose name begins with `client`.

    "edge": the daemon, which starts again; "mom": a gate with its batch job; "nid": a node. `happens`: the operation
    still has its effect. Also says whether there were so many.
    """
    world = make_world(seed, run_s=60.0, jobs=6, limits=make_limits(jobs_per_slot=2))
    left = [number]
    plain = world.shared.after

    def strike(name: str) -> bool:
        if not name.startswith(client) or (client == EDGE and not any(d.alive for d in world.daemons)):
            return False
        left[0] -= 1
        if left[0] == 0:
            _kill(world, name)
        return left[0] == 0

    def before(name: str, operation: Any) -> None:
        if not happens and strike(name):
            raise InterruptedError(4, "Interrupted system call")

    def after(name: str, operation: Any, reply: Any) -> Any:
        if happens:
            strike(name)
        return plain(name, operation, reply)

    world.shared.before, world.shared.after = before, after
    world.start_daemon()
    let_start(world)
    world.run_until(lambda: left[0] <= 0, 1200.0)
    return heal(world), left[0] <= 0


def _kill(world: World, name: str) -> None:
    if name == EDGE:
        for daemon in world.daemons:
            if daemon.alive:
                world.crash(daemon)
        world.timers.set(world.now_s + 5.0, partial(_start_again, world))
    elif name.startswith("mom"):
        started = next(item for item in world.machine.starts if item.gate.client == name)
        world.machine.carry_out((KillJob(started.batch_id),))
    else:
        agent = next(item for item in world.machine.agents() if item.task.client == name)
        world.machine.kill_node(agent.node)


def _start_again(world: World) -> None:
    world.start_daemon()


MISHAPS: Mapping[str, tuple[Callable[[int], World], str]] = {
    scenario.__name__: (scenario, kind)
    for scenario, kind in (
        (node_dies, NodeFault.NODE_DEATH),
        (node_dies_in_a_line, NodeFault.TORN),
        (node_dies_with_all_ranks, NodeFault.LAUNCHER_TOO),
        (node_dies_and_the_batch_job_stays, NodeFault.NODE_DEATH),
        (requeued, NodeFault.REQUEUE),
        (requeued_and_the_first_start_survives, NodeFault.REQUEUE_SURVIVED),
        (frozen_beyond_its_batch_job, NodeFault.FROZEN),
        (torn_last_lines, Wrong.TORN),
        (unlisted_journals, Wrong.UNLISTED),
        (node_journal_disk_full, Wrong.QUOTA),
        (holes_that_heal, Wrong.HOLE),
        (lines_lost_for_ever, Wrong.LOST),
        (node_stands_still, NodeFault.FROZEN),
        (lustre_outage, Wrong.OUTAGE),
        (lustre_outage_at_the_gates, Wrong.OUTAGE),
        (outputs_disk_full, Wrong.DISK_FULL),
        (bundle_directory_disk_full, Wrong.DISK_FULL),
        (link_replies_lost, Wrong.REPLY_LOST),
    )
}
