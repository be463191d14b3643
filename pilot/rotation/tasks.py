"""Canary and breaker: which jobs of a pool may enter the next bundle, by how the jobs of their task have ended here.

A task is seen from here as the kind of work (PanDA's transformation) and the base of its outputs, within one queue.
A new one starts with one small bundle, the canary; others follow once jobs of it have finished, and no fewer than
failed. Where that fails, or too many of its last jobs failed by their own doing, it is stopped: nothing of it is
submitted until a probe (again a small bundle, after a wait that doubles) has gone well, or the operator says so. Pure.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any

from pilot.multijob.events import Event, TaskStopped
from pilot.multijob.inputs import held_by_inputs
from pilot.multijob.memory import Memory
from pilot.multijob.model import BundleState, Limits, QueueSpec, State, TaskRecord
from pilot.ports import JobKey


@dataclass(frozen=True, slots=True)
class Choice:
    """Jobs for the next bundle, oldest first, never more than it holds.

    `canary`: the task that this bundle tries, and nothing else is in it. `held`: jobs of the pool that must wait, by
    reason; `waiting` of them for their task.
    """

    jobs: tuple[JobKey, ...]
    canary: str | None
    held: dict[str, int]
    waiting: int

    def reason(self) -> str:
        """Why nothing is chosen of a pool that is not empty."""
        return "; ".join(f"{count} jobs wait: {text}" for text, count in self.held.items())


def task_id(task: str) -> str:
    """A short name of a task for people and commands."""
    return f"t{zlib.crc32(task.encode()):08x}"


def choose_jobs(state: State, memory: Memory | None, queue: QueueSpec, utc: str, limits: Limits) -> Choice:
    """The jobs that the next bundle of this queue is made of. `memory` None: what was seen of inputs is not known."""
    chosen: list[JobKey] = []
    held: dict[str, int] = {}
    canary: str | None = None
    known: dict[str | None, tuple[bool, str | None]] = {}
    most, waiting = queue.bundle_jobs, 0
    for key in state.pools.get(queue.name, {}):
        task = state.jobs[key].task
        if task not in known:
            known[task] = standing(state, task, utc, limits)
        tries, reason = known[task]
        if reason is not None:
            waiting += 1
        elif memory is not None:
            reason = held_by_inputs(memory, key)
        if reason is not None:
            held[reason] = held.get(reason, 0) + 1
        elif len(chosen) < most:
            if tries and not chosen:
                canary, most = task, min(most, canary_jobs(queue, limits))
            if task == canary or (canary is None and not tries):
                chosen.append(key)
    return Choice(tuple(chosen), canary, held, waiting)


def keeps_waiting(state: State, queue: QueueSpec, utc: str, limits: Limits) -> bool:
    """Whether any task of this queue makes its jobs wait now. Cheap: there are few tasks and many jobs."""
    return any(
        record.queue == queue.name and standing(state, task, utc, limits)[1] is not None
        for task, record in state.tasks.items()
    )


def canary_jobs(queue: QueueSpec, limits: Limits) -> int:
    """Jobs of a canary, or of a probe."""
    return min(queue.nodes, limits.canary_nodes or 1) * queue.slots * queue.jobs_per_slot


def standing(state: State, task: str | None, utc: str, limits: Limits) -> tuple[bool, str | None]:
    """Whether the next bundle of this task is a try (canary, probe), and why none may be made now."""
    record = state.tasks.get(task) if task is not None else None
    if task is None or record is None or record.proven:
        return False, None
    if record.stopped_at is None and (limits.canary_nodes is None or limits.once):
        return False, None
    if _is_under_way(state, record):
        what = "canary" if record.stopped_at is None else "probe"
        return True, f"task {task_id(task)} is new or was stopped: its {what} {record.canary} comes first"
    if record.stopped_at is not None:
        left_s = probe_wait_s(record, limits) - _age_s(record.stopped_at, utc)
        if left_s > 0:
            return True, f"task {task_id(task)} is stopped: {record.reason}; a probe in {left_s:.0f} s"
    return True, None


def _is_under_way(state: State, record: TaskRecord) -> bool:
    bundle = state.bundles.get(record.canary) if record.canary is not None else None
    return bundle is not None and bundle.state is not BundleState.SETTLED


def probe_wait_s(record: TaskRecord, limits: Limits) -> float:
    """Wait before a probe, twice as long after each one that failed."""
    return min(limits.task_probe_s * 2.0 ** min(record.stops - 1, 16), limits.task_probe_max_s)


def _age_s(at: str, utc: str) -> float:
    return (datetime.fromisoformat(utc) - datetime.fromisoformat(at)).total_seconds()


def decide_tasks(
    state: State, memory: Memory, queue: QueueSpec, utc: str, now_s: float, limits: Limits
) -> Iterator[Event]:
    """Stop tasks whose jobs keep failing, or whose try failed; one alarm for the queue while any is stopped."""
    stopped = []
    for task, record in state.tasks.items():
        if record.queue != queue.name:
            continue
        reason = _fails(state, record, limits)
        if reason is not None:
            yield TaskStopped(utc, task, reason)
        if record.stopped_at is not None:
            stopped.append(f"{task_id(task)} ({task[:120]!a}): {record.reason}")
    if stopped:
        memory.raise_alarm(f"task-stopped-{queue.name}", "; ".join(stopped)[:600], now_s)
    else:
        memory.clear_alarm(f"task-stopped-{queue.name}")


def _fails(state: State, record: TaskRecord, limits: Limits) -> str | None:
    """Why this task must be stopped now, None if it need not be."""
    tried = record.tried_failed + record.tried_finished
    if not record.proven and record.tried_failed and not _is_under_way(state, record):
        return f"{record.tried_failed} of the {tried} jobs that tried it in {record.canary} failed"
    if record.stopped_at is not None:
        return None
    last = list(islice(reversed(record.recent), limits.task_window))
    failed = sum(last)
    return f"{failed} of its last {len(last)} jobs failed" if failed >= limits.task_failed_max else None


def shown_tasks(state: State, utc: str, limits: Limits) -> list[dict[str, Any]]:
    """Every task for `status`."""
    return [
        {
            "task": task_id(task),
            "name": task,
            "queue": record.queue,
            "failed": sum(record.recent),
            "ended": len(record.recent),
            "proven": record.proven,
            "stopped_at": record.stopped_at,
            "waits_because": standing(state, task, utc, limits)[1],
        }
        for task, record in state.tasks.items()
    ]
