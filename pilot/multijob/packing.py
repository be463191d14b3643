"""Jobs -> nodes: longest first, equal predicted work per node, walltime from the slowest node."""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass

from pilot.multijob.model import QueueSpec, WalltimePolicy
from pilot.ports import JobKey

# Of a node's memory: the calibration server with a full query cache (figure caldb.pss_mib); agent, warden and keeper
# take 15 MiB each, and what they pack of logs lies there, too.
SERVER_MIB = 128
AGENT_MIB = 128


@dataclass(frozen=True, slots=True)
class Sized:
    """A job with its predicted run time."""

    job: JobKey
    predicted_s: float


@dataclass(frozen=True, slots=True)
class Packing:
    """`nodes[i]`: jobs of node i, longest first. `walltime_s` is what the batch job asks for."""

    nodes: tuple[tuple[Sized, ...], ...]
    walltime_s: int


def planned_slots(slots: int, usable_mib: int | None, memory_mib: int | None, snapshot_mib: int) -> int:
    """How many of a node's slots its memory has room for; all where one of the figures is not known. 0: not for one.

    `usable_mib`: memory of the node less what the system takes; `memory_mib`: of one payload, with its files where the
    local directory is memory; `snapshot_mib`: the calibration snapshot, which lies in memory once.
    """
    if usable_mib is None or memory_mib is None:
        return slots
    served_mib = snapshot_mib + SERVER_MIB if snapshot_mib else 0
    return max(0, min(slots, (usable_mib - served_mib - AGENT_MIB) // memory_mib))


def pack(jobs: Sequence[Sized], queue: QueueSpec) -> Packing:
    """Spread at most `queue.bundle_jobs` jobs over as few nodes as hold them (at least one job is given)."""
    per_node = queue.slots * queue.jobs_per_slot
    count = min(queue.nodes, math.ceil(len(jobs) / per_node))
    longest_first = sorted(jobs, key=lambda job: (-job.predicted_s, job.job))
    heap = [(0.0, index) for index in range(count)]
    nodes: list[list[Sized]] = [[] for _ in range(count)]
    for job in longest_first:
        load, index = heapq.heappop(heap)
        nodes[index].append(job)
        if len(nodes[index]) < per_node:
            heapq.heappush(heap, (load + job.predicted_s, index))
    slowest_s = max(_makespan_s([job.predicted_s for job in node], queue.slots) for node in nodes)
    return Packing(tuple(tuple(node) for node in nodes), _walltime_s(slowest_s, queue.walltime))


def _makespan_s(predicted_s: Sequence[float], slots: int) -> float:
    ends = [0.0] * slots
    for length_s in predicted_s:
        heapq.heapreplace(ends, ends[0] + length_s)
    return max(ends)


def _walltime_s(slowest_s: float, policy: WalltimePolicy) -> int:
    return math.ceil(min(max(slowest_s + policy.margin_s, policy.min_s), policy.max_s))
