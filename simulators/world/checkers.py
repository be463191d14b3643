"""Checkers: they compare what was said with what really happened. The truth is the world's own log and files.

Each returns violations; none means clean. They share no code with what they check.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from pilot.multijob.events import BundlePlanned, BundleSettled, Event, JobJudged, JobReturned, RoundVoided
from pilot.multijob.model import BundleState
from pilot.ports import BundleId, JobStatus
from simulators.world.truth import PayloadRun, Who
from simulators.world.wirechecks import (
    batch_id_wrong,
    ended_unasked,
    final_without_attempt,
    running_before_start,
)
from simulators.world.works import works_fetched, works_known
from simulators.world.world import World

# Payloads count until they end, the batch system's account until it takes them for ended: so far they may differ.
REACH_PART = 1.5


@dataclass(frozen=True, slots=True)
class Violation:
    """A property that did not hold. `checker` is its name in `CHECKERS`."""

    checker: str
    story: str


def run_twice(world: World) -> Iterator[str]:
    """S1: one attempt of one job was started more than once."""
    counts = Counter((*run.who, run.attempt_nr) for run in world.truth.payloads)
    for key, count in counts.items():
        if count > 1:
            runs = [r for r in world.truth.payloads if (*r.who, r.attempt_nr) == key]
            yield f"job {key} ran {count} times: {[(r.bundle_id, r.round, r.batch_id, r.start_s) for r in runs]}"


def output_replaced(world: World) -> Iterator[str]:
    """S2: another file took the place of an output."""
    for path in world.shared.bindings:
        if path.startswith(world.limits.site.output_root + "/") and not path.endswith(".part"):
            if world.shared.contents(path) > 1:
                yield f"{path} was {world.shared.contents(path)} different files"


def void_round_launched(world: World) -> Iterator[str]:
    """S3: a gate launched a round that was given up."""
    void = {
        (event.bundle_id, event.number)
        for daemon in world.daemons
        for _, event in daemon.events
        if isinstance(event, RoundVoided)
    }
    for gate in world.truth.gates:
        if gate.launch and (gate.bundle_id, gate.round) in void:
            yield f"{gate.batch_id} launched {gate.bundle_id}.{gate.round}, which is void"


def round_launched_twice(world: World) -> Iterator[str]:
    """One round has one owner: two starts of the gate launched it."""
    counts = Counter((gate.bundle_id, gate.round) for gate in world.truth.gates if gate.launch)
    for (bundle_id, number), count in counts.items():
        if count > 1:
            yield f"{bundle_id}.{number} was launched {count} times"


def returned_but_ran(world: World) -> Iterator[str]:
    """S4: *not started* was said of a job that ran in that bundle, before or later."""
    where: dict[Who, str] = {}
    ran: dict[str, set[Who]] = {}
    for run in world.truth.payloads:
        ran.setdefault(run.bundle_id, set()).add(run.who)
    for daemon in world.daemons:
        for at_s, event in daemon.events:
            if isinstance(event, BundleSettled):
                bundle_jobs = ran.get(event.bundle_id, set())
                back = {
                    _who(e) for t, e in daemon.events if isinstance(e, JobReturned) and t == at_s
                } & bundle_jobs
                where.update(dict.fromkeys(back, event.bundle_id))
    for (_, panda_id), bundle_id in where.items():
        yield f"job {panda_id} went back as not started, and ran in {bundle_id}"


def evidence_ignored(world: World) -> Iterator[str]:
    """S4: a job was judged lost although its end line had been durable for longer than visible_s.

    Where a client was shown a journal with holes, what it says is unknown: lost is right.
    """
    holed = {path.split("/")[-2] for path in world.shared.holed}
    lost = world.limits.experiment.codes["lost"].number
    ends = {
        run.who: run.end_line_s
        for run in world.truth.payloads
        if run.ended_by is None and run.bundle_id not in holed
    }
    for at_s, event in _counted(world):
        if isinstance(event, JobJudged) and event.verdict.code == lost:
            end_s = ends.get(_who(event))
            if end_s is not None and end_s <= at_s:
                yield f"job {event.panda_id} judged lost at {at_s:.0f} s, its end line is of {end_s:.0f} s"


def closed_while_live(world: World) -> Iterator[str]:
    """W1: `closed` was written while the claim's batch job lived."""
    for at_s, bundle_id, batch_id in world.truth.closed_while_live:
        yield f"{bundle_id} closed at {at_s:.0f} s while {batch_id} lived"


def owner_dropped_claim(world: World) -> Iterator[str]:
    """W2: a gate owned its claim, could read it, no door refused it, and it launched nothing."""
    for gate in world.truth.gates:
        told = "door" in gate.reason or "not claimed for sure" in gate.reason
        if gate.launch is False and gate.owner == (gate.batch_id, gate.nonce) and not told:
            yield f"{gate.batch_id} owns {gate.bundle_id}.{gate.round} and launched nothing: {gate.reason}"


def payload_outlived(world: World) -> Iterator[str]:
    """S1: a payload ran on, its agent not hanging, when its bundle was settled."""
    for at_s, run in world.truth.outlived:
        yield f"job {run.panda_id} still ran on {run.node} when {run.bundle_id} was settled at {at_s:.0f} s"


def submitted_twice(world: World) -> Iterator[str]:
    """One Intent, one qsub: a round's name was submitted more than once by the daemons."""
    counts = Counter(name for _, name, _ in world.truth.submissions)
    for name, count in counts.items():
        if count > 1:
            yield f"{name} was submitted {count} times"


def finished_without_outputs(world: World) -> Iterator[str]:
    """A job was reported finished whose outputs are not all in place."""
    root = world.limits.site.output_root + "/"
    names = {path.rpartition("/")[2] for path in world.shared.paths(root)}
    for job in world.source.jobs():
        missing = [entry["lfn"] for entry in job.files if entry["lfn"] not in names]
        if job.final_state == "finished" and missing:
            yield f"job {job.panda_id} finished without {missing}"


def finished_though_bad(world: World) -> Iterator[str]:
    """A job was judged finished, and no run of its work was a success that nobody ended."""
    works = works_fetched(world)
    good = {works.get(r.who, "") for r in world.truth.payloads if r.good and r.ended_by is None}
    for event in _judged(world):
        work = works.get(_who(event))
        if event.verdict.status is JobStatus.FINISHED and work is not None and work not in good:
            yield f"job {event.panda_id} is finished, and no run of its work was a success"


def infrastructure_charged(world: World) -> Iterator[str]:
    """A job pays for its attempt, though all that it ran was good and others ended it, or it never ran."""
    codes = world.limits.experiment.codes
    # A person's order, and a job that a server hands out so that nobody can run it.
    own = (codes["killed"].number, codes["malformed-job"].number)
    runs: dict[tuple[Who, int], list[bool]] = {}
    for run in world.truth.payloads:
        runs.setdefault((run.who, run.attempt_nr), []).append(run.good)
    for event in _judged(world):
        verdict, ran = event.verdict, runs.get((_who(event), event.attempt_nr), [])
        failed = verdict.status is JobStatus.FAILED and verdict.charge == "own" and verdict.code not in own
        if failed and ran and all(ran):
            yield f"job {event.panda_id} pays for {verdict.code}: {verdict.reason}"


def work_run_twice(world: World) -> Iterator[str]:
    """S1 across PandaIDs: two attempts of one step ran at once."""
    steps = works_known(world)
    # What hangs on a node that nobody reaches is taken for lost: it may place nothing any more, but nobody ends it.
    frozen = {agent.task.client for agent in world.machine.agents() if agent.escaped}
    runs: dict[str, list[PayloadRun]] = {}
    for run in world.truth.payloads:
        if run.node not in frozen:
            runs.setdefault(steps.get(run.who, ""), []).append(run)
    runs.pop("", None)
    for work, found_runs in runs.items():
        last: PayloadRun | None = None
        for run in sorted(found_runs, key=lambda run: run.start_s):
            if last is not None and (last.end_s is None or run.start_s < last.end_s):
                yield f"{work}: job {run.panda_id} started at {run.start_s:.0f} s while job {last.panda_id} ran"
            last = run


def _who(event: JobJudged | JobReturned) -> Who:
    return event.server, int(event.panda_id)


def _judged(world: World) -> list[JobJudged]:
    return [event for _, event in _counted(world) if isinstance(event, JobJudged)]


def _counted(world: World) -> Iterator[tuple[float, Event]]:
    """Events with their times. What a daemon decides after a newer one has begun is in no journal that counts."""
    ends_s = [daemon.memory.started_s for daemon in world.daemons[1:]]
    for daemon, end_s in zip(world.daemons, [*ends_s, math.inf], strict=True):
        yield from ((at_s, event) for at_s, event in daemon.events if at_s < end_s)


def cap_passed(world: World) -> Iterator[str]:
    """Batch jobs of bundles planned on one day took more node-hours than a day may have (while the cap stands).

    What an old copy of the state directory has forgotten is used a second time: such a world is not asked.
    """
    if world.was_restored:
        return
    planned = {
        event.bundle_id: event
        for daemon in world.daemons
        for _, event in daemon.events
        if isinstance(event, BundlePlanned)
    }
    ends: dict[str, float] = {}
    for run in world.truth.payloads:
        ends[run.batch_id] = max(ends.get(run.batch_id, 0.0), run.end_s or world.now_s)
    used_h: dict[tuple[str, str], float] = {}
    for gate in world.truth.gates:
        event = planned.get(BundleId(gate.bundle_id))
        if not gate.launch or event is None or gate.batch_id not in ends:
            continue
        lasted_s = min(ends[gate.batch_id] - gate.start_s, event.walltime_s)
        key = event.queue, event.at[:10]
        used_h[key] = used_h.get(key, 0.0) + len(event.nodes) * lasted_s / 3600.0
    for (name, day), hours in used_h.items():
        cap_h = world.limits.queues[name].node_hours_day_max
        # Payloads out of the batch system's reach run on after its account of them has ended.
        if cap_h is not None and hours > REACH_PART * cap_h:
            yield f"{name}: {hours:.1f} node-hours of bundles planned on {day}, the cap is {cap_h:g}"


def forgotten(world: World) -> Iterator[str]:
    """L: at the end every job handed out is over, and every bundle is settled."""
    for job in world.source.open():
        yield f"job {job.panda_id} is {job.status} since {job.since_s:.0f} s and was never reported as over"
    for daemon in world.daemons:
        if daemon.alive:
            for bundle in daemon.state.bundles.values():
                if bundle.state is not BundleState.SETTLED:
                    yield f"{bundle.bundle_id} is still {bundle.state}"


CHECKERS: Mapping[str, Callable[[World], Iterator[str]]] = {
    check.__name__: check
    for check in (
        run_twice,
        output_replaced,
        void_round_launched,
        round_launched_twice,
        returned_but_ran,
        evidence_ignored,
        closed_while_live,
        owner_dropped_claim,
        payload_outlived,
        submitted_twice,
        finished_without_outputs,
        finished_though_bad,
        infrastructure_charged,
        work_run_twice,
        forgotten,
        running_before_start,
        final_without_attempt,
        batch_id_wrong,
        ended_unasked,
    )
}


def violations(world: World) -> list[Violation]:
    """All violations of a world at its end."""
    return [Violation(name, story) for name, check in CHECKERS.items() for story in check(world)]
