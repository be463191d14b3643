"""Starts that all queues share: limits of the whole site, the pause between two starts, and whose turn it is. Pure.

Where common limits leave room for fewer bundles than queues want to make, the queue with the largest deficit goes
first. A bundle costs its node-seconds (nodes x walltime): every queue that wanted a turn is credited with its share of
the cost, the one that had it pays the whole. What is left over is carried over, also by a restart, so that in the long
run queues that always want more get node-hours as their shares say, and a queue that wants nothing loses nothing.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence

from pilot.multijob.events import BundlePlanned
from pilot.multijob.jobkeys import panda_id_of
from pilot.multijob.memory import Memory
from pilot.multijob.model import Limits, QueueSpec, State
from pilot.multijob.recognise import Now
from pilot.multijob.space import held_by_space
from pilot.ports import BundleId
from pilot.rotation.census import is_live, is_queued
from pilot.rotation.policy import held_plan, next_packing
from pilot.rotation.tasks import choose_jobs


def decide_plans(
    state: State, memory: Memory, now: Now, limits: Limits, tags: Mapping[str, BundleId]
) -> Iterator[BundlePlanned]:
    """Bundles that are made now, at most one of each queue. Each must be applied before the next is asked for.

    `tags`: a fresh bundle id for each queue.
    """
    ready = [
        queue
        for queue in limits.queues.values()
        if queue.name in tags
        and tags[queue.name] not in state.bundles
        and held_plan(state, memory, queue, now, limits) is None
    ]
    if not ready:
        return
    room = free_starts(state, memory, now, limits)
    left = list(ready)
    for _ in range(len(ready) if room is None else min(room, len(ready))):
        queue = pick_turn(state.deficits, left)
        left.remove(queue)
        choice = choose_jobs(state, memory, queue, now.utc, limits)
        packing = next_packing(state, queue, choice.jobs)
        nodes = tuple(tuple(panda_id_of(item.job) for item in node) for node in packing.nodes)
        cost = len(nodes) * packing.walltime_s
        scarce = room is not None and room < len(ready)
        credits = render_credits(queue, ready, cost) if scarce else ()
        yield BundlePlanned(
            now.utc,
            tags[queue.name],
            queue.name,
            nodes,
            packing.walltime_s,
            credits,
            choice.canary,
            limits.protocol.weak,
            queue.server,
        )


def free_starts(state: State, memory: Memory, now: Now, limits: Limits) -> int | None:
    """How many bundles the limits that all queues share let start now; None: as many as there are."""
    rooms: list[int] = [0] if held_by_space(memory, limits) is not None else []
    if limits.spacing_s > 0.0:
        rooms.append(1 if now.mono_s >= memory.next_start_s else 0)
    if limits.live_max is not None:
        rooms.append(limits.live_max - sum(is_live(bundle) for bundle in state.bundles.values()))
    if limits.queued_max is not None:
        rooms.append(limits.queued_max - waiting_in_all(state, memory))
    return max(0, min(rooms)) if rooms else None


def waiting_in_all(state: State, memory: Memory) -> int:
    """Batch jobs of this user that wait in the batch system, or will: our bundles, and what is not ours."""
    own = sum(is_live(bundle) and is_queued(memory, bundle) for bundle in state.bundles.values())
    return own + memory.others_waiting


def held_in_common(state: State, memory: Memory, now: Now, limits: Limits) -> str | None:
    """Why no queue may start a bundle now, None if one may."""
    little = held_by_space(memory, limits)
    if little is not None:
        return little
    if limits.spacing_s > 0.0 and now.mono_s < memory.next_start_s:
        return f"the pause between two starts: {memory.next_start_s - now.mono_s:.0f} s more"
    if limits.live_max is not None:
        live = sum(is_live(bundle) for bundle in state.bundles.values())
        if live >= limits.live_max:
            return f"{live} pilots live in all, at most {limits.live_max}"
    if limits.queued_max is not None:
        waiting = waiting_in_all(state, memory)
        if waiting >= limits.queued_max:
            others = memory.others_waiting
            return f"{waiting} batch jobs of this user wait ({others} not ours), at most {limits.queued_max}"
    return None


def pick_turn(deficits: Mapping[str, float], queues: Sequence[QueueSpec]) -> QueueSpec:
    """The queue with the largest deficit; the first of the config among equals."""
    return max(queues, key=lambda queue: deficits.get(queue.name, 0.0))


def render_credits(
    turn: QueueSpec, wanted: Sequence[QueueSpec], cost: float
) -> tuple[tuple[str, float], ...]:
    """What the deficits of all that wanted a turn gain by this one; the sum is zero."""
    whole = sum(queue.share for queue in wanted)
    return tuple(
        (queue.name, round(cost * queue.share / whole - (cost if queue is turn else 0.0), 3))
        for queue in wanted
    )


def pause_after(tag: BundleId, limits: Limits) -> float:
    """Seconds until the next start: the spacing, lengthened by up to `jitter` of it as the drawn tag says."""
    drawn = zlib.crc32(tag.encode()) / 2**32
    return limits.spacing_s * (1.0 + limits.jitter * drawn)
