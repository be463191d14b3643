"""Directed scenarios of the submission protocol (DESIGN section 3): timings and faults in which a wrong variant bites.

Each takes a seed (latencies, visibility, tags), lets the fault happen, heals the world and returns it at its end. The
real protocol leaves it clean; what each variant breaks is said by `checkers`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from pilot.multijob import actions as a
from pilot.multijob.node import files
from pilot.multijob.node.steps import Line
from pilot.ports import BatchId, Listing
from simulators.world.lanes import Fate
from simulators.world.staging import (
    NO_ANSWER,
    heal,
    hidden,
    late,
    let_start,
    make_limits,
    make_world,
    running,
    submitted,
    unseen_then_killed_in,
)
from simulators.world.world import Daemon, World


def doubled_submission(seed: int) -> World:
    """A person submits a bundle's script by hand while the daemon's own batch job waits; both start."""
    world = make_world(seed, run_s=60.0)
    _, _, batch_id = submitted(world)
    world.torque.submit(world.now_s, world.torque.jobs[batch_id].submission)
    return heal(world)


def second_start(seed: int) -> World:
    """The batch system starts the same batch job a second time while the first start goes on."""
    world = make_world(seed, run_s=60.0)
    _, _, batch_id = submitted(world)
    let_start(world)
    running(world, 1)
    world.machine.start(batch_id)
    return heal(world)


def claim_reply_lost(seed: int) -> World:
    """The reply to the first gate's link is lost, its client repeats it: "File exists"; attributes are seen late."""
    world = make_world(seed, run_s=60.0)
    plain = world.shared.after

    def after(client: str, operation: Any, reply: Any) -> Any:
        if client == "mom.1":
            if isinstance(operation, files.Link):
                raise FileExistsError(17, "File exists", operation.target)
            if isinstance(operation, files.CountLinks):
                return 1
        return plain(client, operation, reply)

    world.shared.after = after
    submitted(world)
    return heal(world)


def absent_once(seed: int) -> World:
    """One complete listing misses a batch job that runs."""
    world = make_world(seed, run_s=400.0, jobs=8, limits=make_limits(wanted=2))
    _, _, batch_id = submitted(world)
    let_start(world)
    running(world, 8)
    world.run(50.0)
    misses = [1]

    def shown(listing: Any) -> Any:
        return hidden(batch_id, listing) if misses and misses.pop() else listing

    world.shown = shown
    world.run(120.0)
    return heal(world)


def absent_before_the_claim_was_read(seed: int) -> World:
    """A listing misses a batch job before its claim is read, one more after that."""
    world = make_world(seed, run_s=400.0, jobs=8, limits=make_limits(wanted=2))
    daemon, bundle, batch_id = submitted(world)
    world.run_until(lambda: len(daemon.memory.ever_seen) == 2, 200)
    misses = [1]

    def shown(listing: Any) -> Any:
        claim = bundle.rounds[1].claim
        if isinstance(listing, Listing) and listing.asked_ids is None:
            if claim is None and not misses:
                return listing
            if claim is None:
                misses.pop()
                let_start(world)
                return hidden(batch_id, listing)
            if not misses:
                misses.append(0)
                return hidden(batch_id, listing)
        return listing

    world.shown = shown
    world.run(150.0)
    return heal(world)


def failed_listings(seed: int) -> World:
    """For 400 s every listing fails while a batch job runs."""
    world = make_world(seed, run_s=600.0)
    submitted(world)
    let_start(world)
    running(world, 4)
    world.run(30.0)
    world.fate_of = lambda daemon, action: (
        Fate(30.0, 0.1, effect=False, answer=NO_ANSWER) if isinstance(action, a.ListBatchJobs) else None
    )
    world.run(400.0)
    return heal(world)


def crash_after_qsub(seed: int) -> World:
    """The journal is slow; the daemon is killed between a qsub and its answer, and started again."""
    world = make_world(seed, run_s=60.0)
    submits: list[Any] = []

    def fate_of(daemon: Daemon, action: Any) -> Fate | None:
        if isinstance(action, a.AppendEvents):
            return Fate(3.0, 0.1)
        if isinstance(action, a.SubmitBatchJob) and not submits:
            submits.append(action)
            world.timers.set(world.now_s + 0.5, partial(world.crash, daemon))
            return Fate(0.2, 10.0)
        return None

    world.fate_of = fate_of
    daemon = world.start_daemon()
    world.run_until(lambda: daemon.dead, 300)
    world.run(10.0)
    world.fate_of = lambda daemon, action: None
    world.start_daemon()
    return heal(world)


def qsub_answer_lost(seed: int) -> World:
    """qsub takes the batch job and its answer is lost; the batch job is seen in no listing for a while."""
    world = make_world(seed, run_s=60.0)
    world.fate_of = lambda daemon, action: (
        Fate(0.5, 60.0, answer=NO_ANSWER) if isinstance(action, a.SubmitBatchJob) else None
    )
    world.start_daemon()
    world.run_until(lambda: bool(world.truth.submissions), 300)
    world.fate_of = lambda daemon, action: None
    _, _, batch_id = world.truth.submissions[0]
    world.shown = partial(hidden, BatchId(batch_id))
    world.run(400.0)
    return heal(world)


def late_last_lines(seed: int) -> World:
    """The batch job's end is seen before the last lines of its journals are."""
    world = make_world(seed, run_s=30.0, limits=make_limits(listing_every_s=2.0))
    late(world, ("edge", ".journal"))
    submitted(world)
    return heal(world)


def late_closed(seed: int) -> World:
    """Nodes out of the server's reach go on starting jobs until they see `closed`; their lines are seen late, too."""
    world = make_world(seed, 4.0, jobs=40, limits=make_limits(2.0, jobs_per_slot=10))
    late(world, ("edge", ".journal"), ("nid", "/closed"))
    _, _, batch_id = submitted(world)
    let_start(world)
    running(world, 6)
    world.run(3.0)
    world.machine.lose_contact(batch_id)
    return heal(world)


def _hang_before(world: World, client: str, wanted: Callable[[Any], bool], seconds: float) -> None:
    """Each process whose name begins with `client` hangs once, before such an operation."""
    been: set[str] = set()

    def hang_s(name: str, operation: Any) -> float:
        if name in been or not name.startswith(client) or not wanted(operation):
            return 0.0
        been.add(name)
        return seconds

    world.floor.hang_s = hang_s


def _hung_agents(seed: int, wanted: Callable[[Any], bool]) -> World:
    world = make_world(seed, run_s=30.0, jobs=8, limits=make_limits(jobs_per_slot=2))
    _, _, batch_id = submitted(world)
    _hang_before(world, "nid", wanted, 1500.0)
    let_start(world)
    world.run_until(lambda: any(agent.task.hanging for agent in world.machine.agents()), 600)
    world.run(5.0)
    world.machine.lose_contact(batch_id)
    world.run(2.0)
    world.floor.hang_s = lambda client, operation: 0.0
    return heal(world)


def hung_before_the_start_line(seed: int) -> World:
    """Agents hang before their first start line, are given up with their batch job, and come back much later."""
    return _hung_agents(
        seed, lambda operation: isinstance(operation, Line) and operation.kind == "job_started"
    )


def hung_before_the_look(seed: int) -> World:
    """Agents hang between start line and look, are given up with their batch job, and come back much later."""
    return _hung_agents(
        seed, lambda operation: isinstance(operation, files.Exists) and operation.path.endswith("/closed")
    )


def hung_before_placing(seed: int) -> World:
    """Agents hang while they place outputs, are given up with their batch job, and come back much later."""
    return _hung_agents(seed, lambda operation: isinstance(operation, files.CopyNew))


def out_of_reach(seed: int) -> World:
    """Long payloads run on out of the batch server's reach, which says that their batch job is over."""
    world = make_world(seed, run_s=3000.0)
    _, _, batch_id = submitted(world)
    let_start(world)
    running(world, 4)
    world.run(30.0)
    world.machine.lose_contact(batch_id)
    return heal(world)


def started_while_given_up(seed: int) -> World:
    """A waiting batch job is in no listing; it starts in the moment in which the pilot gives the round up."""
    world = make_world(seed, run_s=400.0)
    late(world, ("edge", "claim."), ("edge", ".journal"), ("nid", "/closed"))
    _, bundle, batch_id = submitted(world)
    world.shown = lambda listing: listing if bundle.rounds[1].claim else hidden(batch_id, listing)

    def fate_of(daemon: Daemon, action: Any) -> Fate | None:
        if isinstance(action, a.MakeClaim | a.WriteClosed) and not world.truth.gates:
            let_start(world)
            return Fate(3.0, 0.1)
        return None

    world.fate_of = fate_of
    world.run_until(lambda: bool(world.truth.gates), 900)
    world.run(30.0)
    return heal(world)


def late_start_of_a_void_round(seed: int) -> World:
    """A batch job that no listing shows is given up, its bundle goes on with the next round; then it starts."""
    world = make_world(seed, run_s=60.0)
    _, _, batch_id = submitted(world)
    world.shown = partial(hidden, batch_id)
    world.run_until(lambda: len(world.truth.submissions) > 1, 900)
    return heal(world)


def cancelled_while_it_starts(seed: int) -> World:
    """A bundle is cancelled while its batch job starts: the gate sees the door late, qdel fails, listings miss it."""
    world = make_world(seed, 400.0, limits=make_limits(listing_every_s=2.0))
    late(world, ("edge", "claim."), ("edge", ".journal"), ("mom", "/door"), ("nid", "/closed"))
    daemon, bundle, batch_id = submitted(world)

    def fate_of(daemon: Daemon, action: Any) -> Fate | None:
        if isinstance(action, a.SetDoor) and not world.truth.gates:
            let_start(world)
            return Fate(0.1, 0.1)
        if isinstance(action, a.CancelBatchJob):
            return Fate(1.0, 0.1, effect=False, answer=NO_ANSWER)
        return None

    # Past the scheduler's cycle: it starts as soon as there are nodes.
    world.run(15.0)
    # Only until the claim was read: two listings that miss a live batch job after that are no fault of this site.
    world.shown = lambda listing: listing if bundle.rounds[1].claim else hidden(batch_id, listing)
    world.fate_of = fate_of
    world.cancel(daemon, bundle)
    world.run(60.0)
    return heal(world)


def cancelled_while_it_waits(seed: int) -> World:
    """A bundle whose batch job waits is cancelled; its jobs go on in another one."""
    world = make_world(seed, run_s=60.0)
    daemon, bundle, _ = submitted(world)
    world.cancel(daemon, bundle)
    world.run(300.0)
    return heal(world)


def overtaken_before_the_commit(seed: int) -> World:
    """A daemon is stopped while the commit of an Intent is under way; another takes over; the old one goes on."""
    world = make_world(seed, run_s=60.0)
    stopped: list[Daemon] = []

    def fate_of(daemon: Daemon, action: Any) -> Fate | None:
        intended = isinstance(action, a.AppendEvents) and any(
            r["e"] == "RoundIntended" for r in action.records
        )
        if intended and not stopped:
            stopped.append(daemon)
            world.timers.set(world.now_s + 1.0, partial(world.pause, daemon, 300.0))
            return Fate(2.0, 0.1)
        return None

    world.fate_of = fate_of
    world.start_daemon()
    world.run_until(lambda: bool(stopped), 300)
    world.run(5.0)
    world.start_daemon()
    world.run(400.0)
    return heal(world)


def claim_answer_lost_then_crash(seed: int) -> World:
    """The pilot makes its claim, the answer is lost and the daemon is killed; the next run finds the claim."""
    world = make_world(seed, run_s=60.0)
    unseen_then_killed_in(world, a.MakeClaim)
    world.start_daemon()
    world.run(60.0)
    return heal(world)


def login_node_away(seed: int) -> World:
    """The login node is away for an hour while payloads run, end, and a batch job that waited starts."""
    world = make_world(seed, run_s=400.0, jobs=8, limits=make_limits(wanted=2))
    daemon, _, _ = submitted(world)
    let_start(world)
    running(world, 4)
    world.crash(daemon)
    world.run(3600.0)
    world.start_daemon()
    return heal(world)


def clock_steps(seed: int) -> World:
    """The login node's clock steps forward by two hours while payloads run, and back by more than that."""
    world = make_world(seed, run_s=400.0)
    submitted(world)
    let_start(world)
    running(world, 4)
    for offset_s in (7200.0, -3600.0):
        world.utc_offset_s = offset_s
        world.run(100.0)
    return heal(world)


SCENARIOS: Mapping[str, Callable[[int], World]] = {
    scenario.__name__: scenario
    for scenario in (
        doubled_submission,
        second_start,
        claim_reply_lost,
        absent_once,
        absent_before_the_claim_was_read,
        failed_listings,
        crash_after_qsub,
        qsub_answer_lost,
        late_last_lines,
        late_closed,
        hung_before_the_start_line,
        hung_before_the_look,
        hung_before_placing,
        out_of_reach,
        started_while_given_up,
        late_start_of_a_void_round,
        cancelled_while_it_starts,
        cancelled_while_it_waits,
        overtaken_before_the_commit,
        claim_answer_lost_then_crash,
        login_node_away,
        clock_steps,
    )
}
