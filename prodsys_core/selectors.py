"""Reads for commands, pages and services. Nothing here writes."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from django.db.models import Count, F, Q, Sum

from prodsys_core.chunks import in_chunks
from prodsys_core.lifecycle import CHUNK_DONE, PANDA_KINDS, StepKind
from prodsys_core.models import AttemptEnd, GroupCheck, PandaAttempt, Run, Step, Task, Transfer
from prodsys_core.plan import has_stragglers

STEP = "status attempt charged uncharged panda_id reason message next_try_at"


def task_rows(names: Iterable[str] = ()) -> list[dict[str, Any]]:
    """Tasks with counts: jobs by status, runs by status, steps by kind and status, attempts, charged."""
    tasks = Task.objects.filter(name__in=names) if names else Task.objects.all()
    columns = "name type production status status_at reason message next_try_at files_skipped"
    rows: dict[int, dict[str, Any]] = {}
    for task in tasks.order_by("pk"):
        counts = {"jobs": {}, "runs": {}, "steps": {}, "attempts": {"all": 0, "reconstruct": 0}}
        charges = {"attempts_charged": 0, "attempts_uncharged": 0}
        rows[task.pk] = _columns(task, columns) | {"sites": task.site_names} | counts | charges
    _add_counts(rows, Step.objects.filter(kind=StepKind.RECONSTRUCT), "status", "jobs")
    _add_counts(rows, Run.objects.all(), "status", "runs")
    others = Step.objects.filter(task__in=rows).exclude(kind=StepKind.RECONSTRUCT)
    for row in others.values("task_id", "kind", "status").annotate(n=Count("pk")).order_by():
        rows[row["task_id"]]["steps"].setdefault(row["kind"], {})[row["status"]] = row["n"]
    attempts = PandaAttempt.objects.filter(step__task__in=rows).exclude(panda_id=None)
    first = Count("pk", filter=Q(step__kind=StepKind.RECONSTRUCT))
    for row in attempts.values("step__task_id").annotate(all=Count("pk"), reconstruct=first).order_by():
        rows[row.pop("step__task_id")]["attempts"] = row
    steps = Step.objects.filter(task__in=rows, kind=StepKind.RECONSTRUCT).values("task_id").order_by()
    for row in steps.annotate(attempts_charged=Sum("charged"), attempts_uncharged=Sum("uncharged")):
        rows[row.pop("task_id")] |= row
    return list(rows.values())


def _columns(row: Any, names: str) -> dict[str, Any]:
    values = ((name, getattr(row, name)) for name in names.split())
    return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in values}


def _add_counts(rows: dict[int, dict[str, Any]], query: Any, column: str, key: str) -> None:
    counted = query.filter(task__in=rows).values("task_id", column).annotate(n=Count("pk")).order_by()
    for row in counted:
        rows[row["task_id"]][key][row[column]] = row["n"]


def job_rows(task: Task) -> list[dict[str, Any]]:
    """Jobs of a task in the order of run and chunk; the status is that of the reconstruct step."""
    steps = Step.objects.filter(task=task, kind=StepKind.RECONSTRUCT).select_related("job", "run")
    ends = AttemptEnd.objects.filter(attempt__step__task=task, attempt__number=F("attempt__step__attempt"))
    counts = {pk: found for pk, *found in ends.values_list("attempt__step_id", "n_read", "n_written")}
    rows = []
    for step in steps.order_by("run__number", "job__chunk"):
        job, (read, written) = step.job, counts.get(step.pk, (None, None))
        row = {"file": job.file, "run": step.run.number, "chunk": job.chunk, "events": job.n_events}
        row |= {"read": read, "written": written}
        held = {"reason": "not-delivered", "message": job.undelivered} if job.undelivered else {}
        rows.append(row | _columns(step, STEP) | held)
    return rows


def run_rows(task: Task) -> list[dict[str, Any]]:
    """Runs of a task with their steps, merged files, cross-check counts and transfers."""
    rows: dict[int, dict[str, Any]] = {}
    for run in Run.objects.filter(task=task).order_by("number"):
        lists: dict[str, Any] = {"steps": [], "counts": [], "tape": []}
        rows[run.pk] = {"run": run.number, **_columns(run, "site status reason message next_try_at"), **lists}
    steps = Step.objects.filter(task=task).exclude(kind=StepKind.RECONSTRUCT).select_related("group")
    for step in steps.order_by("pk"):
        name = _columns(step.group, "product piece") if step.group else {}
        columns = STEP if step.kind in PANDA_KINDS else "status reason message next_try_at"
        rows[step.run_id]["steps"].append({"kind": step.kind, **name, **_columns(step, columns)})
    for count in GroupCheck.objects.filter(step__task=task).select_related("group", "step").order_by("pk"):
        counted = _columns(count, "unit expected in_chunks in_merged agrees")
        rows[count.step.run_id]["counts"].append(_columns(count.group, "product piece") | counted)
    for row in Transfer.objects.filter(step__task=task).select_related("step").order_by("pk"):
        file = {"file": row.target, "bytes": row.size} | _columns(row, "adler32 confirmed_at")
        rows[row.step.run_id]["tape"].append(file)
    return list(rows.values())


def runs_with_stragglers(wanted: set[int]) -> set[int]:
    """Those of these runs of which so little is left that it goes first."""
    found: set[int] = set()
    for part in in_chunks(sorted(wanted)):
        chunks = Step.objects.filter(run__in=part, kind=StepKind.RECONSTRUCT).values("run_id").order_by()
        done = Count("pk", filter=Q(status__in=sorted(CHUNK_DONE)))
        rows = chunks.annotate(n=Count("pk"), done=done)
        found.update(row["run_id"] for row in rows if has_stragglers(row["n"], row["n"] - row["done"]))
    return found
