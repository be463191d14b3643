"""Looking before touching: what a change would do, line by line, and the call that does it to exactly what was shown.

The command line and the pages both go through here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from django.db.models import Count

from prodsys_core.catalogue import BadSource, JobSeen, plan_differences
from prodsys_core.lifecycle import IN_PANDA, PANDA_KINDS, StepKind, StepStatus, TaskStatus, check_edge
from prodsys_core.models import Step, Task
from prodsys_core.services.actions import ACTIONS, BadPick, Pick, pick_rows, row_line
from prodsys_core.services.moves import Mover
from prodsys_core.services.tasks import read_source, resend_candidates, steps_resend, task_set


@dataclass(frozen=True, slots=True)
class Look:
    """`lines`: what would be touched. `perform` returns how many were. `unasked`: nothing that needs a second look."""

    lines: tuple[str, ...]
    perform: Callable[[Mover], int]
    unasked: bool = False


def look_act(name: str, task: Task, pick: Pick) -> Look:
    """An action on jobs or runs. Raises BadPick."""
    action = ACTIONS[name]
    rows = pick_rows(action, task, pick)
    return Look(tuple(map(row_line, rows)), lambda mover: action.perform(rows, pick, mover))


def look_resend(task: Task, status: str) -> Look:
    """One more attempt for what is `failed` or `manual check is needed`."""
    steps = resend_candidates(task, status)
    lines = []
    for step in steps:
        name = step.job.file if step.job else f"run {step.run.number} {step.kind} {step.group.piece}"
        lines.append(f"{name}\tattempt {step.attempt}\t{step.reason}\t{step.message}".rstrip("\t"))
    return Look(tuple(lines), lambda mover: steps_resend(steps, mover))


def look_set(task: Task, status: str, mover: Mover) -> Look:
    """A task's next status. Before it is sent: how its jobs differ from what its source makes now. Before it is
    cancelled: what ends. Raises BadPick."""
    problem = check_edge("task", task.status, status, mover.role)
    if problem:
        raise BadPick(problem)
    lines: tuple[str, ...] = ()
    if status == TaskStatus.SEND:
        lines = _differences(task)
    elif status == TaskStatus.CANCELLED:
        live = Step.objects.filter(task=task, kind__in=PANDA_KINDS, status__in=IN_PANDA)
        counts = live.values_list("kind", "status").annotate(n=Count("pk")).order_by("kind", "status")
        lines = tuple(f"{n} {kind} {now}: PanDA is asked to end them" for kind, now, n in counts)
    return Look(lines, lambda mover: int(task_set(task.name, status, mover).status == status), not lines)


def _differences(task: Task) -> tuple[str, ...]:
    plan = read_source(task)
    if isinstance(plan, BadSource):
        return (f"the source cannot be read now: {plan.text}",)
    steps = Step.objects.filter(task=task, kind=StepKind.RECONSTRUCT).select_related("job")
    jobs = (
        JobSeen(step.job.file, step.job.n_events, step.job.home, _why_not(step))
        for step in steps.order_by("run__number", "job__chunk")
    )
    return plan_differences(plan, jobs)


def _why_not(step: Step) -> str:
    return step.reason if step.status == StepStatus.CANCELLED else ""
