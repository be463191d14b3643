"""Node-hour caps of a queue: no bundle is planned that would pass them. Pure.

A bundle is counted at its most (nodes x walltime) before it is planned, so that what is used never passes a cap,
unless somebody lengthens the walltime of a batch job by hand.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from pilot.multijob.memory import Memory
from pilot.multijob.model import QueueSpec, State
from pilot.multijob.nodehours import HOUR_S, Account, account, day_of


def capped(queue: QueueSpec) -> bool:
    """Whether this queue has a cap at all."""
    return queue.node_hours_day_max is not None or queue.node_hours_max is not None


def bounds_node_s(queue: QueueSpec, jobs: int) -> tuple[float, float]:
    """Least and most that a bundle of so many jobs may take; known without packing it."""
    nodes = min(queue.nodes, max(1, math.ceil(jobs / (queue.slots * queue.jobs_per_slot))))
    return float(nodes * queue.walltime.min_s), float(nodes * queue.walltime.max_s)


def held_by_caps(
    state: State, queue: QueueSpec, utc: str, jobs: int, packed: Callable[[], float]
) -> str | None:
    """Why a bundle of `jobs` jobs would pass a cap now, None if it would not. `packed()`: its node-seconds, exact.

    It is asked for only where the bounds do not tell.
    """
    if not capped(queue):
        return None
    known = account(state, queue.name, day_of(utc))
    least_s, most_s = bounds_node_s(queue, jobs)
    if _passed(known, queue, most_s) is None:
        return None
    return _passed(known, queue, least_s) or _passed(known, queue, packed())


def _passed(known: Account, queue: QueueSpec, need_s: float) -> str | None:
    for what, used_s, committed_s, cap_h in _limits(known, queue):
        if cap_h is not None and used_s + committed_s + need_s > cap_h * HOUR_S:
            return (
                f"{what}: {used_s / HOUR_S:.2f} node-hours used and {committed_s / HOUR_S:.2f} committed of "
                f"{cap_h:g}, the next bundle may take {need_s / HOUR_S:.2f}"
            )
    return None


def _limits(known: Account, queue: QueueSpec) -> Iterator[tuple[str, float, float, float | None]]:
    yield "cap of all node-hours", known.used_s, known.committed_s, queue.node_hours_max
    yield "cap of this UTC day", known.used_day_s, known.committed_day_s, queue.node_hours_day_max


def note_caps(state: State, memory: Memory, queue: QueueSpec, utc: str, now_s: float) -> None:
    """Raise or clear the alarm of a queue whose caps only a person can mend: no bundle fits any more, on any day."""
    if not capped(queue):
        return
    known, (least_s, _) = account(state, queue.name, day_of(utc)), bounds_node_s(queue, 1)
    reason = None
    if queue.node_hours_max is not None and known.committed_s == 0.0:
        left_s = queue.node_hours_max * HOUR_S - known.used_s
        if least_s > left_s:
            reason = f"{known.used_s / HOUR_S:.2f} of {queue.node_hours_max:g} node-hours are used"
    if queue.node_hours_day_max is not None and least_s > queue.node_hours_day_max * HOUR_S:
        reason = f"the smallest bundle takes more than the {queue.node_hours_day_max:g} node-hours of a day"
    if reason is None:
        memory.clear_alarm(f"node-hours-used-up-{queue.name}")
    else:
        memory.raise_alarm(f"node-hours-used-up-{queue.name}", reason, now_s)


def shown(state: State, queue: QueueSpec, utc: str) -> dict[str, float | None]:
    """Node-hours used, committed and left, for `status`; `left` None: no cap."""
    known = account(state, queue.name, day_of(utc))
    found: dict[str, float | None] = {}
    for name, (_, used_s, committed_s, cap_h) in zip(("", "_today"), _limits(known, queue), strict=True):
        left_h = None if cap_h is None else round(cap_h - (used_s + committed_s) / HOUR_S, 3)
        found |= {
            f"used{name}": round(used_s / HOUR_S, 3),
            f"committed{name}": round(committed_s / HOUR_S, 3),
            f"left{name}": left_h,
        }
    return found
