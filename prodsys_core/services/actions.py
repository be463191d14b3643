"""What a manager does to jobs and runs of a task. Each action is a row of `ACTIONS`: it finds what it would touch,
which is shown, and then does it to exactly those rows, each from the status it was shown with.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from django.db import transaction
from django.db.models import Q, QuerySet

from prodsys_core.catalogue import EVENTS_MAX
from prodsys_core.chunks import in_chunks
from prodsys_core.lifecycle import NotPossible, RunStatus, StepKind, StepStatus, TaskStatus
from prodsys_core.models import REASON_LENGTH, Job, Run, Step, Task
from prodsys_core.services.moves import Mover, move, move_each
from prodsys_core.taskfile import check_home
from prodsys_core.verdicts import UNCHECKED
from prodsys_core.yamlfile import load_table

WHY_LENGTH = 40
FINISHED_CHUNK = {"kind": StepKind.RECONSTRUCT, "status": StepStatus.FINISHED}
IN_PANDA_YET = Q(attempts__end=None, attempts__isnull=False)
FINISHED_TASKS = (TaskStatus.CANCELLED, TaskStatus.ARCHIVED)


class BadPick(NotPossible):
    """What was named cannot be touched by this action; the text says what."""


@dataclass(frozen=True, slots=True)
class Pick:
    """Run numbers and raw files that were named, the manager's reason, and what to correct."""

    runs: tuple[int, ...] = ()
    files: tuple[str, ...] = ()
    why: str = ""
    events: int | None = None
    home: str | None = None

    @property
    def values(self) -> dict[str, Any]:
        """Columns of a job that are given."""
        count = {} if self.events is None else {"n_events": self.events, "corrected": True}
        return count | ({} if self.home is None else {"home": self.home})

    def reason(self, word: str) -> str:
        """Reason column: the action's word, then the manager's."""
        return f"{word}: {self.why}"[:REASON_LENGTH] if self.why else word


Rows = Sequence[Step] | Sequence[Run]
Find = Callable[[Task], QuerySet[Step] | QuerySet[Run]]
Perform = Callable[[Rows, Pick, Mover], int]


@dataclass(frozen=True, slots=True)
class Action:
    """A row of `data/actions.yaml`, with what can be touched (`find`; something of it must be named) and how. Finished
    chunks only by their files' names: `unfinished`. Values of jobs: `corrects`. Takes no files: `of_runs`."""

    find: Find
    perform: Perform
    text: str
    unfinished: bool = False
    corrects: bool = False
    of_runs: bool = False


def pick_rows(action: Action, task: Task, pick: Pick) -> list[Step] | list[Run]:
    """Rows that the action would touch. Raises BadPick if nothing or something impossible is named."""
    if not (pick.runs or pick.files):
        raise BadPick("name runs (--run) or files (--file)")
    if len(pick.why) > WHY_LENGTH or not pick.why.isprintable():
        raise BadPick(f"--why: expected at most {WHY_LENGTH} printable characters")
    _check_values(action, pick)
    found = action.find(task)
    if action.of_runs:
        if pick.files:
            raise BadPick("this action takes runs (--run), not files")
        rows = list(found.filter(number__in=pick.runs) if pick.runs else found)
        _all_found("run", pick.runs, {row.number for row in rows})
        return rows
    chosen = found.filter(run__number__in=pick.runs) if pick.runs else found
    if pick.files:
        chosen = chosen.filter(job__file__in=pick.files)
    elif action.unfinished:
        chosen = chosen.exclude(status=StepStatus.FINISHED)  # finished ones only by name
    rows = list(chosen.select_related("run", "job").order_by("run__number", "job__chunk"))
    _all_found("file", pick.files, {row.job.file for row in rows})
    _all_found("run", pick.runs, {row.run.number for row in rows})
    return rows


def _check_values(action: Action, pick: Pick) -> None:
    if bool(pick.values) != action.corrects:
        raise BadPick("give --events or --home" if action.corrects else "--events and --home are for correct")
    if pick.events is not None and not 1 <= pick.events <= EVENTS_MAX:
        raise BadPick(f"--events: expected 1 to {EVENTS_MAX}; a file without events is excluded")
    try:
        if pick.home is not None:
            check_home(pick.home)
    except ValueError as error:
        raise BadPick(f"--home: {error}") from error


def _all_found(kind: str, named: Sequence[object], found: set[object]) -> None:
    missing = [str(item) for item in dict.fromkeys(named) if item not in found]
    if missing:
        raise BadPick(f"nothing that this action may touch: {kind} {', '.join(missing[:20])}")


def row_line(row: Step | Run) -> str:
    """What is shown of a row before it is touched."""
    if isinstance(row, Run):
        name, of_run = f"run {row.number}", ""
    else:
        name, run = row.job.file, row.run
        of_run = "" if run.status == RunStatus.OPEN else f"run {run.number} is {run.status}"
    return "\t".join(part for part in (name, row.status, row.reason, row.message, of_run) if part)


# --- chunks of a run ------------------------------------------------------------------------------------------


MERGED_AGAIN = (RunStatus.MERGING, RunStatus.SUSPICIOUS)
"""Runs whose merges can still be made anew."""


def _chunks(task: Task, *more: RunStatus) -> QuerySet[Step]:
    """Reconstruct steps of runs that are not merged yet, or are as one of `more` says."""
    if task.status in FINISHED_TASKS:
        return Step.objects.none()
    return Step.objects.filter(task=task, kind=StepKind.RECONSTRUCT, run__status__in=(RunStatus.OPEN, *more))


def correct(rows: Rows, pick: Pick, mover: Mover) -> int:
    """Give jobs another place of their files or number of events; it stays when they are generated again."""
    jobs = {step.pk: step.job_id for step in rows}
    with transaction.atomic():
        reason = pick.reason(f"corrected {' and '.join(sorted(pick.values.keys() - {'corrected'}))}")
        moved = move(mover, "step", list(jobs), StepStatus.DEFINED, StepStatus.DEFINED, reason=reason)
        for part in in_chunks(moved):
            Job.objects.filter(pk__in=[jobs[pk] for pk in part]).update(**pick.values)
    return len(moved)


def _with_chunks(status: StepStatus, word: str) -> Perform:
    """Leave chunks out of their runs, or take them in again. While their runs are locked no merge plan is made of them;
    PanDA jobs of what is left out are ended by the next tick. A run that is being merged is merged again without them:
    in one transaction, or the next tick would plan it with them."""

    def perform(rows: Rows, pick: Pick, mover: Mover) -> int:
        with transaction.atomic():
            merging = {step.run_id: step.run for step in rows if step.run.status in MERGED_AGAIN}
            merge_again(list(merging.values()), pick, mover)
            still_open: set[int] = set()
            for part in in_chunks(sorted({step.run_id for step in rows})):
                runs = Run.objects.select_for_update().filter(pk__in=part, status=RunStatus.OPEN)
                still_open.update(runs.values_list("pk", flat=True))
            steps = [step for step in rows if step.run_id in still_open]
            columns = {"reason": pick.reason(word), "next_try_at": None}
            return move_each(mover, "step", steps, lambda _: status, **columns)

    return perform


def accept_events(rows: Rows, pick: Pick, mover: Mover) -> int:
    """Steps stay finished; the transition says who took their event counts as they are."""
    return move_each(mover, "step", rows, lambda _: StepStatus.FINISHED, reason=pick.reason("accepted"))


# --- runs -----------------------------------------------------------------------------------------------------


def _runs(*statuses: str) -> Find:
    def find(task: Task) -> QuerySet[Run]:
        runs = Run.objects.filter(task=task, status__in=statuses).order_by("number")
        return runs.exclude(task__status__in=FINISHED_TASKS)

    return find


def _with_crosscheck(run_status: str, step_status: str, word: str) -> Perform:
    """Move runs, and their cross-checks that wait for a person with them."""

    def perform(rows: Rows, pick: Pick, mover: Mover) -> int:
        held = Step.objects.filter(kind=StepKind.CROSS_CHECK, status=StepStatus.MANUAL_CHECK)
        moved = 0
        for run in rows:
            with transaction.atomic():
                columns = {"reason": pick.reason(word), "failures": 0, "next_try_at": None}
                move_each(mover, "step", held.filter(run=run), lambda _: step_status, **columns)
                moved += move_each(mover, "run", [run], lambda _: run_status, reason=pick.reason(word))
        return moved

    return perform


def merge_again(rows: Rows, pick: Pick, mover: Mover) -> int:
    """Cancel what was made of the runs' merge plans; the next tick plans the next generation. Files of the older one
    keep their names (the attempt is in them) until the run is cleaned."""
    moved = 0
    for run in rows:
        with transaction.atomic():
            reason = pick.reason("merge-again")
            reopened = move_each(mover, "run", [run], lambda _: RunStatus.OPEN, reason=reason)
            if reopened:
                old = Step.objects.filter(run=run).exclude(kind=StepKind.RECONSTRUCT)
                columns = {"reason": "merged-again", "next_try_at": None}
                steps = list(old.exclude(status=StepStatus.CANCELLED))
                move_each(mover, "step", steps, lambda _: StepStatus.CANCELLED, **columns)
            moved += reopened
    return moved


FOUND_AND_DONE: dict[str, tuple[Find, Perform]] = {
    "exclude": (
        lambda task: _chunks(task, *MERGED_AGAIN).exclude(status=StepStatus.CANCELLED),
        _with_chunks(StepStatus.CANCELLED, "left-out"),
    ),
    "include": (  # once PanDA is done with them
        lambda task: _chunks(task).filter(status=StepStatus.CANCELLED).exclude(IN_PANDA_YET),
        _with_chunks(StepStatus.DEFINED, "taken-in"),
    ),
    "correct": (
        lambda task: _chunks(task).filter(status=StepStatus.DEFINED, task__status=TaskStatus.JOBS_READY),
        correct,
    ),
    "accept-events": (
        lambda task: Step.objects.filter(task=task, **FINISHED_CHUNK, reason=UNCHECKED),
        accept_events,
    ),
    "accept-run": (
        _runs(RunStatus.SUSPICIOUS),
        _with_crosscheck(RunStatus.CHECKED, StepStatus.FINISHED, "accepted"),
    ),
    "check-again": (
        _runs(RunStatus.SUSPICIOUS),
        _with_crosscheck(RunStatus.MERGING, StepStatus.READY, "check-again"),
    ),
    "merge-again": (_runs(*MERGED_AGAIN), merge_again),
}
ACTIONS = {
    name: Action(*FOUND_AND_DONE[name], **row)
    for name, row in load_table("actions.yaml", dict[str, dict[str, Any]]).items()
}
