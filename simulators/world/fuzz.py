"""Runs seeds: anything may fail, then all is healed and the world must come to rest; checkers look at the end."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from pilot.multijob.jobkeys import panda_id_of
from pilot.ports import JobKey
from pilot.rotation.commands import Command
from prodsys_core.lifecycle import StepStatus
from simulators.panda.told import ORDER
from simulators.world.checkers import Violation, cap_passed, violations
from simulators.world.coverage import Coverage
from simulators.world.prodsys import accepted_twice
from simulators.world.rest import REST, Rest
from simulators.world.seeds import CALM_S, DAY_S, WALLTIME_MAX_S, Draw, Seeded, make_seeded
from simulators.world.wirechecks import heartbeat_lost
from simulators.world.world import World

# The longest that a batch job waits on this site once everything is healed (its backlog is at most 200 jobs).
QUEUE_WAIT_MAX_S = 4 * 3600.0
# No job may be open longer than this after the healing.
OPEN_MAX_S = QUEUE_WAIT_MAX_S + WALLTIME_MAX_S + 6 * 3600.0
_LOOK_S = 600.0
# Serial of the operator's orders after the healing; nobody waits for their answers.
RESUME_SERIAL = 1_000_000
# After the healing and the longest silence that a server bears, no job is given up for silence.
HEARD_AFTER_S = 3 * 3600.0
# A story is read by a person: so many violations, lines, and characters a line.
STORIES_MAX, HISTORY_MAX, LINE_MAX = 3, 150, 400
# Bundle ids, batch ids and PandaIDs in a violation's story.
_NAMED = re.compile(r"\b[a-z][a-z2-7]{8}\b|\b\d+\.sim\b|(?<=job )\d+|(?<=job \()\d+")


@dataclass(slots=True)
class Result:
    """What came of one seed. `faults` counts what changed something; `coverage` what occurred."""

    seed: int
    violations: list[Violation]
    faults: Counter[str]
    coverage: Coverage
    trace_hash: str
    story: list[str] = field(default_factory=list)
    jobs: int = 0
    bundles: int = 0
    events: int = 0
    virtual_s: float = 0.0
    cpu_s: float = 0.0


def run_seed(seed: int, kinds: Sequence[Draw] | None = None) -> Result:
    """Run one seed to its end; with `kinds`, exactly these faults in place of those that it draws."""
    begun_s = time.process_time()
    seeded = make_seeded(seed, kinds)
    world, coverage = seeded.world, Coverage()
    world.watch.append(coverage.event)
    world.started, world.released = coverage.begin, coverage.action
    world.start_daemon()
    world.run(CALM_S)
    passed = [Violation("cap_passed", story) for story in cap_passed(world)]
    # In the middle: at the end there may be nothing left that could differ.
    passed += folds_differ(world, coverage)
    heal(seeded)
    rest = Rest(world.now_s)
    world.watch.append(rest.event)
    while world.now_s < CALM_S + OPEN_MAX_S and not (world.now_s >= DAY_S and at_rest(seeded)):
        world.run(_LOOK_S)
        operator(seeded)
        rest.look(world)
    coverage.look(world)
    found = passed + violations(world)
    found += [Violation(name, story) for name, check in REST.items() for story in check(world, rest)]
    found += [
        Violation("heartbeat_lost", story) for story in heartbeat_lost(world, rest.healed_s + HEARD_AFTER_S)
    ]
    found += [Violation("accepted_twice", story) for story in accepted_twice(seeded.production)]
    found += folds_differ(world, coverage)
    return Result(
        seed,
        found,
        seeded.site.count,
        coverage,
        world.trace_hash(),
        [*seeded.story(), *_history(seeded, found)] if found else [],
        len(world.source.handed_out()),
        coverage.events["BundlePlanned"],
        sum(coverage.events.values()),
        world.now_s,
        time.process_time() - begun_s,
    )


def folds_differ(world: World, coverage: Coverage) -> list[Violation]:
    """Daemons whose state is not what their events make, or that began with a snapshot that is not."""
    numbers = [daemon.number for daemon in world.daemons if coverage.differs(daemon)]
    return [
        *(Violation("fold_differs", f"the state of daemon {n} is not its events'") for n in numbers),
        *(Violation("fold_differs", f"daemon {n} began with another state") for n in world.misfolded),
    ]


def _history(seeded: Seeded, found: list[Violation]) -> list[str]:
    """What the trace says of the bundles, jobs and batch jobs that the violations name."""
    words = sorted({word for item in found[:STORIES_MAX] for word in _NAMED.findall(item.story)})
    pattern = re.compile("|".join(rf"\b{re.escape(word)}\b" for word in words))
    lines = [f"{at_s:10.1f} {what}" for at_s, what in seeded.world.trace if words and pattern.search(what)]
    lines = [line[:LINE_MAX] for line in lines if "EvidenceSeen" not in line and "Listing(" not in line]
    return ["", f"history of {', '.join(words)}:", *lines[-HISTORY_MAX:]]


def heal(seeded: Seeded) -> None:
    """No more faults: what is stopped goes on, what is dead is started, nodes are up. What was lost stays lost."""
    site, world = seeded.site, seeded.world
    for fault in list(site.active):
        site.active.remove(fault)
        fault.end()
    for number in world.torque.nodes:
        world.torque.node_back(world.now_s, number)
    site.restart(60.0)
    # The operator raises caps and common limits: what they held back goes on.
    uncapped = {name: replace(q, node_hours_day_max=None) for name, q in world.limits.queues.items()}
    world.limits = replace(world.limits, queues=uncapped, live_max=None)


def operator(seeded: Seeded) -> None:
    """What people do with what waits for them: a manager lets work run once more, an operator resumes a task and
    confirms orders that people gave."""
    production, daemon = seeded.production, seeded.site.daemon()
    if daemon is not None and any(task.stopped_at is not None for task in daemon.state.tasks.values()):
        daemon.commands.append(Command(RESUME_SERIAL, "resume", tasks=("all",)))
    if daemon is not None and daemon.memory.kills_held and _all_asked(seeded, daemon.memory.kills_held):
        daemon.commands.append(Command(RESUME_SERIAL, "confirm-kill"))
    if daemon is not None and daemon.state.holds:
        # An old copy of the state directory has a pause that was ended long ago.
        daemon.commands.append(Command(RESUME_SERIAL, "resume"))
    for step in production.steps.values():
        if step.status is StepStatus.MANUAL_CHECK or (
            step.status is StepStatus.FAILED and step.next_try_s is None
        ):
            production.try_again(step)
    for attempt in list(production.open_attempts()):
        if attempt.held in ("unknown-to-panda", "not-this-attempt"):
            production.give_up(attempt)


def _all_asked(seeded: Seeded, held: Iterable[JobKey]) -> bool:
    """The operator has asked who gave the orders that are held: people gave all of them."""
    told = seeded.world.source.told()
    return {panda_id_of(key) for key in held} <= {
        item.panda_id for item in told if item.state == ORDER and item.user != "watcher"
    }


def at_rest(seeded: Seeded) -> bool:
    """Nothing is open any more."""
    world = seeded.world
    daemon = seeded.site.daemon()
    if daemon is None or daemon.state.jobs or daemon.state.bundles:
        return False
    done = all(step.status is StepStatus.FINISHED for step in seeded.production.steps.values())
    return done and world.source.at_rest()
