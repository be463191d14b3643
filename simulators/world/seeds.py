"""What one seed is: a site with two PanDA queues, jobs that arrive, and the faults that will happen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from random import Random

from pilot.multijob.model import Limits, QueueSpec, ReportTimes, WalltimePolicy
from pilot.multijob.node.manifest import Job as NodeJob
from prodsys_core.lifecycle import StepKind
from simulators.torque.site import QueueSpec as BatchQueue
from simulators.torque.site import TorqueSite
from simulators.world.faults.batch import BATCH
from simulators.world.faults.calls import CALLS
from simulators.world.faults.fault import Fault, Site, install
from simulators.world.faults.files import FILES, beyond_the_bound, stale_after_fresh, unlisted
from simulators.world.faults.nodes import NODES
from simulators.world.faults.panda import PANDA, mass_order
from simulators.world.faults.payloads import PAYLOADS, no_evidence
from simulators.world.faults.people import PEOPLE
from simulators.world.faults.processes import PROCESSES, crash, crash_at_effect
from simulators.world.production import Killed, Production
from simulators.world.staging import make_limits
from simulators.world.world import World

# Anything may fail until then; then everything is healed and the world must come to rest.
CALM_S = 13 * 3600.0
# At least so long is every seed.
DAY_S = 24 * 3600.0
# Batch queue, walltime, margins: the longest walltime that a bundle here asks for.
WALLTIME_MAX_S = 7200
TICK_S = 60.0
FAULTS_MIN, FAULTS_MAX = 15, 21
# Sixteen runs of ten chunks, their merges, forty single jobs.
RUNS = 16
PRODSYS_TICK_S, PRODSYS_BACK_S = 300.0, 600.0

Draw = Callable[[Site], Fault]
# Their moment comes seldom: they are drawn twice as often.
SELDOM: tuple[Draw, ...] = (unlisted, stale_after_fresh, beyond_the_bound, no_evidence, mass_order)
KINDS: tuple[Draw, ...] = (*CALLS, *PANDA, *BATCH, *NODES, *PAYLOADS, *FILES, *PROCESSES, *PEOPLE)


@dataclass(slots=True)
class Seeded:
    """A seed's world, ready to run."""

    seed: int
    world: World
    site: Site
    production: Production
    faults: list[Fault] = field(default_factory=list)

    def story(self) -> list[str]:
        """What was drawn, a line each."""
        limits = self.world.limits
        lines = [f"seed {self.seed}: {len(limits.queues)} queues, faults until {CALM_S:.0f} s"]
        for fault in sorted(self.faults, key=lambda item: item.start_s):
            lines.append(f"  {fault.start_s:8.0f} - {fault.end_s:8.0f} s {fault.kind}: {fault.says}")
        return lines


def make_seeded(seed: int, kinds: Sequence[Draw] | None = None) -> Seeded:
    """Draw everything of this seed; with `kinds`, faults of exactly these kinds."""
    chance = Random(f"{seed}:site")
    limits = _limits(chance)
    run_s = partial(_run_s, seed)
    world = World(limits, [], seed, run_s, _torque(limits), TICK_S)
    site = Site(world, Random(f"{seed}:faults"), CALM_S)
    production = Production(world.wires, world.source.server_of, world.now, site.boundary)
    _work_arrives(production, world, chance)
    faults = _faults(site) if kinds is None else [kind(site) for kind in kinds]
    seeded = Seeded(seed, world, site, production, faults)
    install(site, seeded.faults)
    _prodsys(seeded)
    return seeded


def _faults(site: Site) -> list[Fault]:
    """15 to 21 kinds, one crash at least."""
    chance = site.random
    count = chance.randint(FAULTS_MIN, FAULTS_MAX)
    drawn = dict.fromkeys(chance.sample((*KINDS, *SELDOM), count - 1))
    return [kind(site) for kind in (chance.choice((crash, crash_at_effect)), *drawn)]


def _limits(chance: Random) -> Limits:
    limits = make_limits(listing_every_s=60.0)
    long = replace(
        limits.queues["long"],
        wanted=chance.randint(2, 4),
        queued_max=3,
        nodes=2,
        slots=chance.choice((2, 4)),
        jobs_per_slot=chance.randint(1, 3),
        walltime=WalltimePolicy(600, WALLTIME_MAX_S, 10.0, 10.0, 300.0),
        fill_wait_s=chance.choice((0.0, 600.0)),
    )
    # Starts: drawn beside the others; what a seed is otherwise does not hang on it
    caps = Random()
    caps.setstate(chance.getstate())
    long = replace(
        long, node_hours_day_max=caps.choice((None, None, 3.0, 5.0)), share=caps.choice((1.0, 3.0))
    )
    short = QueueSpec(
        name="short",
        server="panda2",
        panda_queue="Q-short",
        batch_queue="short",
        # one bundle at a time could not merge all runs in the time between healing and rest
        wanted=chance.randint(2, 3),
        queued_max=2,
        nodes=1,
        slots=long.slots,
        pool_bundles=2,
        fill_wait_s=300.0,
        walltime=WalltimePolicy(300, 3600, 10.0, 5.0, 300.0),
        chunk=10,
    )
    long = replace(long, panda_queue="Q-long")
    protocol = replace(
        limits.protocol, visible_s=chance.choice((5.0, 30.0)), grace_s=chance.choice((120.0, 600.0))
    )
    node_limits = {**limits.site.node_limits, "visible_s": protocol.visible_s}
    return replace(
        limits,
        queues={"long": long, "short": short},
        live_max=caps.choice((None, 4, 5)),
        spacing_s=caps.choice((0.0, 60.0)),
        jitter=1.0,
        directories={"shared_dir": limits.site.shared_dir, "output_root": limits.site.output_root},
        space_look_s=900.0,
        input_quiet_s=caps.choice((0.0, 30.0)),
        canary_nodes=caps.choice((None, 1)),
        task_window=caps.choice((12, 64)),
        task_failed_max=6,
        task_probe_s=900.0,
        task_probe_max_s=3600.0,
        protocol=protocol,
        report=ReportTimes(),
        site=replace(limits.site, node_limits=node_limits),
        evidence_every_s=30.0,
        submit_retry_s=60.0,
        fetch_retry_s=60.0,
        fetch_retry_max_s=600.0,
        retain_ok_s=8.5 * 3600.0,
        retain_failed_s=9.5 * 3600.0,
        tobekilled_floor=5,
    )


def _torque(limits: Limits) -> TorqueSite:
    return TorqueSite(
        nodes=8,
        slots=4,
        server_name=limits.batch_server,
        features=(),
        queues={"normal": BatchQueue(), "short": BatchQueue(priority=100, walltime_max_s=3600)},
        keep_completed_s=300.0,
        start_delay_s=15.0,
        scheduler_interval_s=15.0,
    )


def _work_arrives(production: Production, world: World, chance: Random) -> None:
    """Runs of ten chunks for the long queue, single jobs for the short one; most while anything may fail."""
    for run in range(RUNS):
        at_s = chance.uniform(0.0, 0.7 * CALM_S) if run < RUNS - 1 else CALM_S + 60.0
        world.timers.set(at_s, partial(_add_run, production, run + 1))
    for part in range(4):
        at_s = chance.uniform(0.0, 0.7 * CALM_S) if part < 3 else CALM_S + 60.0
        world.timers.set(at_s, partial(_add_singles, production, -part - 1))


def _add_run(production: Production, run: int) -> None:
    for chunk in range(10):
        production.add(StepKind.RECONSTRUCT, run, chunk, "Q-long", 100 + run)


def _add_singles(production: Production, run: int) -> None:
    for chunk in range(10):
        production.add(StepKind.RECONSTRUCT, run, chunk, "Q-short", 50)


def _prodsys(seeded: Seeded) -> None:
    """prodsys' process: one tick after the other; killed between two effects, it starts again a little later."""
    world = seeded.world
    try:
        seeded.production.tick()
        again_s = PRODSYS_TICK_S
    except Killed:
        again_s = PRODSYS_BACK_S
    world.timers.set(world.now_s + again_s, partial(_prodsys, seeded))


def _run_s(seed: int, job: NodeJob) -> float:
    """How long this payload takes on this day: mostly less than is predicted."""
    drawn = Random(f"{seed}:run:{job.panda_id}.{job.attempt_nr}").lognormvariate(0.0, 0.35)
    return 10.0 + 3.5 * float(job.environment.get("PRODSYS_NEVENTS", "100")) * drawn
