"""Nodes that die, agents that hang, batch jobs that start twice, payloads that do not do what they should."""

from __future__ import annotations

from collections.abc import Callable

from simulators.torque.job import BatchJob, Letter
from simulators.world.faults.fault import Fault, Site

_LOOK_EVERY_S = 20.0


def runs(job: BatchJob) -> bool:
    """The batch job runs, and nobody ends it."""
    return job.state is Letter.RUNNING and job.stop is None and job.script_ended_at is None


def _striking(site: Site, kind: str, says: str, strike: Callable[[BatchJob], bool]) -> Fault:
    """Now and then, one running batch job after the other, until `strike` has changed something often enough."""
    start_s, end_s = site.window(2 * 3600.0, 8 * 3600.0)
    left = [site.random.randint(1, 3)]
    fault = Fault(kind, start_s, end_s, f"{says} ({left[0]})")

    def look() -> None:
        world = site.world
        if world.now_s >= end_s or not left[0]:
            return
        for job in list(world.torque.jobs.values()):
            if left[0] and runs(job) and site.random.random() < 0.1 and strike(job):
                left[0] -= 1
                site.fired(kind)
        world.timers.set(world.now_s + _LOOK_EVERY_S, look)

    fault.begin = look
    return fault


def _kill_node(site: Site, job: BatchJob, all_ranks: bool, stays: bool) -> bool:
    """A node of this batch job dies and comes back empty later. Whether an agent ran on it."""
    machine = site.world.machine
    agents = [a for a in machine.agents() if not a.over and a.task.batch_id == job.batch_id and a.node]
    if not agents:
        return False
    number = site.random.choice(agents).node
    machine.kill_node(number, all_ranks=all_ranks, stays=stays)
    back_s = site.world.now_s + site.random.uniform(300.0, 2 * 3600.0)
    site.world.timers.set(back_s, lambda: site.world.torque.node_back(site.world.now_s, number))
    return True


def node_death(site: Site) -> Fault:
    """A node dies with its agent and payloads; its launcher returns."""
    return _striking(site, "node-death", "a node dies", lambda job: _kill_node(site, job, False, False))


def launcher_took_its_ranks(site: Site) -> Fault:
    """A node dies, and its launcher ends the agents of all nodes."""
    return _striking(
        site,
        "launcher-took-its-ranks",
        "a node dies, its launcher ends all",
        lambda job: _kill_node(site, job, True, False),
    )


def node_death_job_stays(site: Site) -> Fault:
    """A node dies, its launcher never returns: the batch job runs on for the server."""
    return _striking(
        site,
        "node-death-job-stays",
        "a node dies, the batch job stays R",
        lambda job: _kill_node(site, job, False, True),
    )


def requeue(site: Site) -> Fault:
    """A running batch job is ended, goes back to its queue and starts again."""
    return _striking(
        site, "requeue", "a batch job starts again", lambda job: _requeue(site, job, survives=False)
    )


def requeue_survived(site: Site) -> Fault:
    """A running batch job starts again while its first start goes on, out of the server's reach."""
    return _striking(
        site,
        "requeue-survived",
        "a batch job starts again, its first start goes on",
        lambda job: _requeue(site, job, survives=True),
    )


def _requeue(site: Site, job: BatchJob, survives: bool) -> bool:
    site.world.machine.requeue(job.batch_id, survives=survives)
    return True


def second_start(site: Site) -> Fault:
    """The batch system starts a batch job again while its first start goes on, both in its reach."""

    def strike(job: BatchJob) -> bool:
        site.world.machine.start(job.batch_id)
        return True

    return _striking(site, "second-start", "a batch job is started twice", strike)


def lost_contact(site: Site) -> Fault:
    """The batch server takes a running job for ended; its nodes go on, out of its reach."""

    def strike(job: BatchJob) -> bool:
        site.world.machine.lose_contact(job.batch_id)
        return True

    return _striking(site, "lost-contact", "agents run on after their batch job", strike)


def frozen_agent(site: Site) -> Fault:
    """An agent hangs, its batch job is over long before it comes back."""

    def strike(job: BatchJob) -> bool:
        machine = site.world.machine
        agents = [a for a in machine.agents() if not a.over and a.task.batch_id == job.batch_id]
        if not agents:
            return False
        machine.freeze(site.random.choice(agents), site.random.uniform(600.0, 4 * 3600.0))
        return True

    return _striking(site, "frozen-agent", "an agent hangs", strike)


NODES: tuple[Callable[[Site], Fault], ...] = (
    node_death,
    launcher_took_its_ranks,
    node_death_job_stays,
    requeue,
    requeue_survived,
    second_start,
    lost_contact,
    frozen_agent,
)
