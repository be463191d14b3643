"""What directed scenarios are made of: limits, jobs, a site whose nodes are down, healing, late and hidden things."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pilot
from pilot.batch.torque import render_directives
from pilot.experiments.words import parse_experiment
from pilot.multijob.model import (
    Bundle,
    BundleState,
    Limits,
    ProtocolTimes,
    QueueSpec,
    ReportTimes,
    SiteSpec,
    WalltimePolicy,
)
from pilot.ports import BatchId, Job, Listing, PandaId, Unavailable
from simulators.torque.site import TorqueSite
from simulators.world.lanes import Fate
from simulators.world.world import Daemon, World

# Longest walltime, several rounds and their grace: whatever is not over then waits for ever.
END_S = 6 * 3600.0
# No scenario needs so many: a daemon that floods the batch system is not waited for, the checkers say what it did.
SUBMISSIONS_MAX = 30
NO_ANSWER = Unavailable("no answer")


# Scenarios that are played while this is set have weak fencing, and a filesystem on which link(2) is not exclusive.
WEAK: ContextVar[bool] = ContextVar("WEAK", default=False)


def make_limits(listing_every_s: float = 20.0, wanted: int = 1, jobs_per_slot: int = 1) -> Limits:
    """Two nodes of two slots; visible_s 10, poll_s 20, kill_s 5: settle_s 45; grace_s 100."""
    words = (Path(pilot.__file__).parent / "experiments/compass.yaml").read_text()
    walltime = WalltimePolicy(3600, 7200, 1.0, 0.01, 30.0)
    queue = QueueSpec(
        "long",
        "panda",
        "Q",
        "normal",
        wanted,
        wanted,
        2,
        2,
        2,
        1.0,
        walltime,
        100,
        jobs_per_slot=jobs_per_slot,
    )
    times = ProtocolTimes(visible_s=10, poll_s=20, kill_s=5, grace_s=100, margin_s=30, weak=WEAK.get())
    site = SiteSpec(
        name="virtual",
        shared_dir="/shared",
        output_root="/out",
        python="/usr/bin/python3",
        agent_file="/shared/agent.pyz",
        local_dir="/dev/shm",
        environment={},
        launch=lambda index, slots: ("aprun",),
        node_limits={"margin_s": 30, "poll_s": 20, "kill_s": 5, "visible_s": 10, "sample_s": 30},
        caldb=None,
        account=None,
        flags=None,
        features=(),
        directives=render_directives,
    )
    return Limits(
        queues={"long": queue},
        protocol=times,
        report=ReportTimes(),
        site=site,
        experiment=_without_caldb(words),
        batch_server="sim",
        listing_every_s=listing_every_s,
        submit_retry_s=5.0,
    )


def _without_caldb(words: str) -> Any:
    experiment = parse_experiment(words)
    kinds = {name: replace(kind, needs_caldb=False) for name, kind in experiment.kinds.items()}
    return replace(experiment, kinds=kinds)


def make_job(number: int) -> Job:
    """A reconstruction job with one mDST and a log."""
    text = (
        f"PRODSYS_WORK=w{number} PRODSYS_NEVENTS={100 + number} COMPASS_SW_PREFIX=/out/ COMPASS_SW_PATH=p/ "
        "PRODSOFT=s prodSlt=3 reco --raw x"
    )
    outputs = (f"mDST-1-{number}-3-8.a1.root",)
    log = f"l-{number}.a1.job.log.tgz"
    return Job(PandaId(number), 1, "Q", f"job-{number}", "mass production", text, outputs, log)


def make_world(
    seed: int,
    run_s: float,
    jobs: int = 4,
    limits: Limits | None = None,
    site: TorqueSite | None = None,
    make: Callable[[int], Job] = make_job,
) -> World:
    """A site where all nodes are down: batch jobs wait until `let_start`."""
    limits = limits or make_limits()
    world = World(limits, [make(n) for n in range(1, jobs + 1)], seed, lambda job: run_s, site)
    world.shared.weak_links = WEAK.get()
    for number in world.torque.nodes:
        world.torque.node_died(number)
    return world


def let_start(world: World) -> None:
    """All nodes are up: what waits starts."""
    for number in world.torque.nodes:
        world.torque.node_back(world.now_s, number)


def submitted(world: World) -> tuple[Daemon, Bundle, BatchId]:
    """Start a daemon and wait until it knows the batch id of its first bundle."""
    daemon = world.start_daemon()
    assert world.run_until(
        lambda: any(b.current and b.current.batch_ids for b in daemon.state.bundles.values()), 300
    )
    bundle = next(b for b in daemon.state.bundles.values() if b.current and b.current.batch_ids)
    assert bundle.current is not None
    return daemon, bundle, bundle.current.batch_ids[0]


def unseen_then_killed_in(world: World, kind: type) -> None:
    """Submitted, and in no listing; the first such action has its effect, its answer is lost, the daemon is killed."""
    daemon, _, batch_id = submitted(world)
    world.shown = partial(hidden, batch_id)

    def fate_of(daemon: Daemon, action: Any) -> Fate | None:
        if isinstance(action, kind):
            world.timers.set(world.now_s + 1.0, partial(world.crash, daemon))
            return Fate(0.1, 100.0)
        return None

    world.fate_of = fate_of
    world.run_until(lambda: daemon.dead, 900)
    world.fate_of = lambda daemon, action: None


def running(world: World, count: int) -> bool:
    """Wait until so many payloads have been spawned."""
    return world.run_until(lambda: len(world.truth.payloads) >= count, 600)


def heal(world: World) -> World:
    """No more faults; whatever is open has END_S to end."""
    world.fate_of = lambda daemon, action: None
    world.shown = lambda listing: listing
    world.batch.spoil = lambda argv, work: work()
    world.floor.hang_s = lambda client, operation: 0.0
    world.faults.rules.clear()
    let_start(world)
    world.run_until(lambda: _over(world), END_S)
    # What hangs comes back after all was judged: it may break nothing any more.
    world.run(3600.0)
    return world


def _over(world: World) -> bool:
    if len(world.truth.submissions) > SUBMISSIONS_MAX:
        return True
    settled = all(
        bundle.state is BundleState.SETTLED
        for daemon in world.daemons
        if daemon.alive
        for bundle in daemon.state.bundles.values()
    )
    return settled and world.source.at_rest()


def hidden(batch_id: BatchId, listing: Any) -> Any:
    """The listing without this batch job, as a server that lost sight of it answers."""
    if not isinstance(listing, Listing):
        return listing
    unknown = tuple(i for i in listing.asked_ids or () if i == batch_id)
    jobs = tuple(job for job in listing.jobs if job.batch_id != batch_id)
    return replace(listing, jobs=jobs, unknown_ids=(*listing.unknown_ids, *unknown))


def late(world: World, *rules: tuple[str, str]) -> None:
    """Clients whose name begins so see names that contain this as late as is allowed; all else is drawn."""
    drawn, visible_s = world.shared.delay_s, world.limits.protocol.visible_s

    def delay_s(client: str, path: str) -> float:
        if any(client.startswith(start) and part in path for start, part in rules):
            return visible_s
        return drawn(client, path)

    world.shared.delay_s = delay_s
