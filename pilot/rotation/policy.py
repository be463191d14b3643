"""How many pilots should live, what to fetch, when to make a bundle: per queue, pure.

"Cannot see" means "start nothing": without a fresh listing, or while the journal cannot be written, nothing is
fetched and no bundle is planned. Every "nothing was done" has a reason (`Held`) that status and `why` show.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from pilot.multijob.actions import Action, FetchJobs
from pilot.multijob.adoption import held_pool
from pilot.multijob.credential import outlives, unusable_credential
from pilot.multijob.events import BundleCancelled, Event, QueueResumed
from pilot.multijob.jobkeys import panda_id_of
from pilot.multijob.memory import Memory
from pilot.multijob.model import (
    Bundle,
    BundleState,
    Limits,
    QueueSpec,
    QueueTotals,
    RoundState,
    State,
)
from pilot.multijob.packing import Packing, Sized, pack
from pilot.multijob.recognise import Now
from pilot.multijob.reporting import first_unheard
from pilot.multijob.runtime import predict_s
from pilot.multijob.script import events_of
from pilot.multijob.verdict import failed, judged
from pilot.ports import JobKey
from pilot.rotation.caps import capped as capped_queue
from pilot.rotation.caps import held_by_caps
from pilot.rotation.census import is_queued, live_bundles
from pilot.rotation.tasks import choose_jobs, keeps_waiting
from pilot.windows import closing


def held_by_order(state: State, queue: str) -> str | None:
    """The order of a person that keeps this queue from new work, None if there is none."""
    hold = state.holds.get(queue)
    if hold is None:
        return None
    ends = f"until {hold.until}" if hold.until else "until `pilot resume`"
    return f"{'drained' if hold.drains else 'paused'} by order of {hold.at}, {ends}"


def held_by_window(queue: QueueSpec, now: Now) -> str | None:
    """The time of no start that is on for this queue, None if there is none."""
    on = closing(queue.no_start, datetime.fromisoformat(now.utc))
    return (
        None if on is None else f"no starts in {on[0].text} UTC: until {on[1].isoformat(timespec='minutes')}"
    )


def held_fetch(state: State, memory: Memory, queue: QueueSpec, now: Now, limits: Limits) -> str | None:
    """Why nothing may be fetched for this queue now, None if it may."""
    blind = blindness(memory, now, limits) or memory.undecided()
    if blind is not None:
        return blind
    ordered = held_by_order(state, queue.name) or held_by_window(queue, now)
    if ordered is not None:
        return ordered
    if limits.once and state.totals.get(queue.name, QueueTotals()).bundles > 0:
        return "the one bundle of this run is made"
    unusable = unusable_credential(memory, queue.server, now.utc, limits)
    if unusable is not None:
        return unusable
    pooled = len(state.pools.get(queue.name, {}))
    if pooled >= 2 * pool_depth(queue, limits):
        waiting = choose_jobs(state, memory, queue, now.utc, limits).waiting
        return f"{pooled} jobs in the pool, {waiting} of them of tasks that are tried first or stopped"
    capped = capped_queue(queue) and held_by_cap(
        state, queue, choose_jobs(state, memory, queue, now.utc, limits).jobs, now
    )
    if capped:
        return capped
    waiting = sum(_waits_for_qsub(bundle) for bundle in state.bundles.values())
    if waiting >= limits.waiting_for_qsub_max:
        return f"{waiting} bundles wait for qsub"
    unheard = first_unheard(state, memory, queue.name, now.utc, limits)
    if unheard is not None:
        return f"job {panda_id_of(unheard)} has been unreported for {limits.unreported_hold_s:.0f} s"
    return None


def blindness(memory: Memory, now: Now, limits: Limits) -> str | None:
    """Why the daemon cannot see, None if it can."""
    if "journal-not-writable" in memory.alarms:
        return "the journal cannot be written"
    if memory.listing_ok_s is None:
        return "no listing of the batch system yet"
    if now.mono_s - memory.listing_ok_s > limits.blind_after_s:
        return f"no listing of the batch system for {now.mono_s - memory.listing_ok_s:.0f} s"
    return None


def _waits_for_qsub(bundle: Bundle) -> bool:
    current = bundle.current
    if bundle.state is BundleState.PLANNED or (bundle.state is BundleState.OPEN and current is None):
        return True
    return current is not None and current.state is RoundState.INTENDED and bundle.state is BundleState.OPEN


def _age_s(at: str, now: Now) -> float:
    return (datetime.fromisoformat(now.utc) - datetime.fromisoformat(at)).total_seconds()


def pool_depth(queue: QueueSpec, limits: Limits) -> int:
    """Jobs that are fetched ahead."""
    return queue.bundle_jobs * (1 if limits.once else queue.pool_bundles)


def decide_fetch(
    state: State, memory: Memory, queue: QueueSpec, now: Now, limits: Limits
) -> Iterator[Action]:
    """Fill the pool of one queue up to its depth."""
    pooled, depth = len(state.pools.get(queue.name, {})), pool_depth(queue, limits)
    missing = depth - pooled
    if missing <= 0 and keeps_waiting(state, queue, now.utc, limits):
        # Jobs of tasks that must wait keep no others out, but no more of them pile up than a pool holds.
        waiting = choose_jobs(state, memory, queue, now.utc, limits).waiting
        missing = min(missing + waiting, 2 * depth - pooled)
    if missing <= 0 or queue.wanted <= 0 or memory.waiting(("fetch", queue.name), now.mono_s):
        return
    if held_fetch(state, memory, queue, now, limits) is None:
        yield FetchJobs(queue.name, queue.server, queue.panda_queue, missing)


def decide_leftover(
    state: State, memory: Memory, queue: QueueSpec, now: Now, limits: Limits
) -> Iterator[Event]:
    """Jobs that no bundle will take any more end as not started; prodsys does not charge that.

    `--once`: those that came back from its one bundle. A drain: all that wait in the pool.
    """
    hold = state.holds.get(queue.name)
    made = state.totals.get(queue.name, QueueTotals()).bundles
    over = all(b.state is BundleState.SETTLED for b in state.bundles.values() if b.queue == queue.name)
    if not (limits.once and made and over) and not (hold is not None and hold.drains):
        return
    if held_pool(state, memory, queue.name) is not None:
        return
    for key in list(state.pools.get(queue.name, {})):
        yield judged(state.jobs[key], failed(limits.experiment.codes["not-started"]), now.utc)


def decide_hold(state: State, queue: QueueSpec, now: Now) -> Iterator[Event]:
    """What a drain of this queue wants now: its end at its time, or the cancel of bundles that have not started."""
    hold = state.holds.get(queue.name)
    if hold is None:
        return
    if hold.until is not None and datetime.fromisoformat(now.utc) >= datetime.fromisoformat(hold.until):
        yield QueueResumed(now.utc, queue.name, "its time is over")
    elif hold.cancel_queued:
        for bundle in live_bundles(state, queue.name):
            current = bundle.current
            started = current is not None and current.state is RoundState.CLAIMED
            if bundle.cancel_reason is None and not started:
                yield BundleCancelled(now.utc, bundle.bundle_id, "drained before it started")


def held_plan(state: State, memory: Memory, queue: QueueSpec, now: Now, limits: Limits) -> str | None:
    """Why no bundle is made of the pool now, None if one should be."""
    blind = blindness(memory, now, limits) or held_pool(state, memory, queue.name)
    if blind is not None:
        return blind
    ordered = held_by_order(state, queue.name) or held_by_window(queue, now)
    if ordered is not None:
        return ordered
    pool = state.pools.get(queue.name, {})
    if not pool:
        return "the pool is empty"
    live = live_bundles(state, queue.name)
    if len(live) >= queue.wanted:
        return f"{len(live)} of {queue.wanted} wanted pilots live"
    queued = sum(is_queued(memory, bundle) for bundle in live)
    if queued >= queue.queued_max:
        return f"{queued} bundles wait in the batch system, at most {queue.queued_max}"
    if limits.once and state.totals.get(queue.name, QueueTotals()).bundles > 0:
        return "the one bundle of this run is made"
    pause = held_fruitless(memory, queue.name, now, limits)
    if pause is not None:
        return pause
    choice = choose_jobs(state, memory, queue, now.utc, limits)
    if not choice.jobs:
        return choice.reason()
    if len(choice.jobs) < queue.bundle_jobs and choice.canary is None:
        waited_s = max(_age_s(state.jobs[key].fetched_at, now) for key in choice.jobs)
        if waited_s < queue.fill_wait_s:
            few = f"{len(choice.jobs)} of {queue.bundle_jobs} jobs"
            waits = f"{few}, waiting {queue.fill_wait_s:.0f} s for a full bundle"
            return "; ".join(filter(None, (waits, choice.reason())))
    capped = held_by_cap(state, queue, choice.jobs, now)
    if capped is not None:
        return capped
    if queue.server not in limits.credentials:
        return None
    return outlives(memory, queue.server, next_packing(state, queue, choice.jobs).walltime_s, now.utc, limits)


def held_by_cap(state: State, queue: QueueSpec, jobs: Sequence[JobKey], now: Now) -> str | None:
    """Why a bundle of these jobs of the pool would pass a cap of node-hours, None if it would not.

    Without jobs: why none could be made.
    """

    def packed() -> float:
        if not jobs:
            return 0.0
        packing = next_packing(state, queue, jobs)
        return float(len(packing.nodes) * packing.walltime_s)

    return held_by_caps(state, queue, now.utc, len(jobs), packed)


def next_packing(state: State, queue: QueueSpec, chosen: Sequence[JobKey]) -> Packing:
    """The chosen jobs of the pool, packed for one bundle."""
    predicted = predict_s([events_of(state, key) for key in chosen], queue.walltime)
    return pack([Sized(i, s) for i, s in zip(chosen, predicted, strict=True)], queue)


def held_fruitless(memory: Memory, queue: str, now: Now, limits: Limits) -> str | None:
    """The quick-exit ladder: a wait after a bundle that started no job, twice as long after each further one in a row.

    The bundle that is made then is the probe.
    """
    count, since_s = memory.fruitless.get(queue, (0, 0.0))
    if not count:
        return None
    wait_s = min(limits.fruitless_wait_s * 2.0 ** min(count - 1, 16), limits.fruitless_wait_max_s)
    left_s = since_s + wait_s - now.mono_s
    return f"{count} bundles in a row started no job: the next one in {left_s:.0f} s" if left_s > 0 else None
