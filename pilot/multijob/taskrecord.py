"""How the fold learns of tasks: ends of their jobs, canaries, the breaker (what is decided of it: rotation.tasks)."""

from __future__ import annotations

from pilot.multijob.events import TaskResumed, TaskStopped
from pilot.multijob.model import JobRecord, State, TaskRecord, Verdict
from pilot.ports import BundleId, JobStatus


def known_task(state: State, task: str | None, queue: str) -> str | None:
    """The record of this task is there; returns its name, one text for all jobs of it."""
    return None if task is None else state.tasks.setdefault(task, TaskRecord(task, queue)).name


def begin_try(task: TaskRecord, bundle_id: BundleId | None) -> None:
    """From now on this bundle tries it (None: none does)."""
    task.canary, task.tried_finished, task.tried_failed = bundle_id, 0, 0


def learn(state: State, record: JobRecord, verdict: Verdict) -> None:
    """What this end says of its task: nothing where others ended the job, or it never ran."""
    task = state.tasks.get(record.task) if record.task is not None else None
    finished = verdict.status is JobStatus.FINISHED
    if task is None or record.kill_ordered or not (finished or verdict.charge == "own"):
        return
    task.recent.append(not finished)
    if task.canary is None or record.bundle_id != task.canary:
        return
    task.tried_finished += finished
    task.tried_failed += not finished
    if not task.proven and task.tried_finished and task.tried_finished >= task.tried_failed:
        _is_well(task)


def break_or_mend(task: TaskRecord, event: TaskStopped | TaskResumed) -> None:
    """Stopped, or resumed by a person: what was counted before says nothing any more."""
    task.recent.clear()
    begin_try(task, None)
    if isinstance(event, TaskStopped):
        task.proven, task.stopped_at, task.reason = False, event.at, event.reason
        task.stops += 1
    else:
        _is_well(task)


def _is_well(task: TaskRecord) -> None:
    task.proven, task.stopped_at, task.reason, task.stops = True, None, "", 0
    task.recent.clear()
