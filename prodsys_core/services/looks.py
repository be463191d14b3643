"""Looking before touching: what a change would do, line by line, and the call that does it to exactly what was shown.

The command line and the pages both go through here.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from django.db import transaction
from django.db.models import Count

from prodsys_core.catalogue import BadSource, plan_differences
from prodsys_core.delivery import delivery_problem, parse_delivery
from prodsys_core.lifecycle import CHUNK_DONE, IN_PANDA, PANDA_KINDS, StepKind, StepStatus, TaskStatus
from prodsys_core.models import MESSAGE_LENGTH, Job, Step, Task
from prodsys_core.ports import Stored, Unavailable
from prodsys_core.services import tasks
from prodsys_core.services.actions import ACTIONS, BadPick, Pick, pick_rows, row_line
from prodsys_core.services.moves import Mover, edge_problem, record
from prodsys_core.storage import OutsideRoot, SiteFilesystem


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
    steps = tasks.resend_candidates(task, status)
    lines = []
    for step in steps:
        product = f" {step.group.product}" if step.kind == StepKind.TRANSFER else ""
        of_group = f"{product} {step.group.piece}" if step.group else ""
        name = step.job.file if step.job else f"run {step.run.number} {step.kind}{of_group}"
        lines.append(f"{name}\tattempt {step.attempt}\t{step.reason}\t{step.message}".rstrip("\t"))
    return Look(tuple(lines), lambda mover: tasks.steps_resend(steps, mover))


def look_set(task: Task, status: str, mover: Mover) -> Look:
    """A task's next status. Before it is sent: how its jobs differ from what its source makes now. Before it is
    cancelled: what ends. Raises BadPick."""
    problem = edge_problem(mover, "task", task.status, status)
    if problem:
        raise BadPick(problem)
    lines: tuple[str, ...] = ()
    if status == TaskStatus.SEND:
        lines = _differences(task)
    elif status == TaskStatus.CANCELLED:
        live = Step.objects.filter(task=task, kind__in=PANDA_KINDS, status__in=IN_PANDA)
        counts = live.values_list("kind", "status").annotate(n=Count("pk")).order_by("kind", "status")
        lines = tuple(f"{n} {kind} {now}: PanDA is asked to end them" for kind, now, n in counts)
    return Look(
        lines, lambda mover: int(tasks.task_set(task.name, status, mover).status == status), not lines
    )


def _differences(task: Task) -> tuple[str, ...]:
    plan = tasks.read_source(task)
    if isinstance(plan, BadSource):
        return (f"the source cannot be read now: {plan.text}",)
    steps = Step.objects.filter(task=task, kind=StepKind.RECONSTRUCT).select_related("job")
    jobs = []
    for step in steps.order_by("run__number", "job__chunk"):
        why_not = step.reason if step.status == StepStatus.CANCELLED else step.job.undelivered
        jobs.append((step.job.file, step.job.n_events, step.job.home, why_not))
    return plan_differences(plan, jobs)


def look_delivery(task: Task, name: str, sizes_only: bool) -> Look:
    """A task's raw files against a delivery list: which are missing, short or damaged and will be held, which are held
    no more, which of the list are not the task's. Raises BadPick for a list that cannot be used."""
    try:
        listed = parse_delivery(tasks.read_source_file(Path(name)), name, task.files_home)
    except (OSError, ValueError) as error:
        raise BadPick(f"delivery list {name} cannot be read: {error}") from error
    if isinstance(listed, BadSource):
        raise BadPick(listed.text)
    of_task = Job.objects.filter(task=task).select_related("task").prefetch_related("steps")
    jobs = list(of_task.order_by("run__number", "chunk"))
    wanted = [job for job in jobs if job.steps.all()[0].status not in CHUNK_DONE]
    found = {job: delivery_problem(job.path, listed, _seen(job, listed, sizes_only)) for job in wanted}
    lines = [
        f"{job.file}: {text or 'delivered, held no more'}"
        for job, text in found.items()
        if text or job.undelivered
    ]
    surplus = listed.keys() - {job.path for job in jobs}
    lines += [f"{path}: surplus: not a file of this task" for path in sorted(surplus)]
    changed = {job: text[:MESSAGE_LENGTH] for job, text in found.items() if text != job.undelivered}
    return Look(tuple(lines), lambda mover: _hold_back(changed, mover))


def _seen(job: Job, listed: Mapping[str, Stored], sizes_only: bool) -> Stored | str:
    """The file at the site; read only where the list has a checksum to compare with."""
    files, file = SiteFilesystem(job.path.removesuffix(job.file)), listed.get(job.path)
    try:
        seen = files.checksum(job.path) if file and file.adler32 and not sizes_only else files.size(job.path)
    except OutsideRoot as error:
        return f"cannot be looked at: {error}"
    match seen:
        case int() as size:
            return Stored(size)
        case Stored():
            return seen
        case Unavailable(reason=reason):
            return f"cannot be looked at: {reason}"
    return "missing: not at the site"


def _hold_back(changed: Mapping[Job, str], mover: Mover) -> int:
    with transaction.atomic():
        for job, text in changed.items():
            job.undelivered = text
        Job.objects.bulk_update(changed, ["undelivered"], batch_size=300)
        groups: dict[tuple[str, str], list[int]] = {}
        for job, text in changed.items():
            (step,) = job.steps.all()
            groups.setdefault((step.status, "not-delivered" if text else "delivered"), []).append(step.pk)
        for (status, reason), ids in groups.items():
            record(mover, "step", ids, status, status, reason)
    return len(changed)
