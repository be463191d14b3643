"""Tasks: created from a file, set by a manager, turned into jobs."""

import logging
from collections.abc import Iterable
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

from django.db import IntegrityError, transaction
from django.db.models import CharField, F, Value
from django.db.models.functions import Cast, Concat

from prodsys_core import catalogue, tables
from prodsys_core.config import Config
from prodsys_core.lifecycle import PANDA_KINDS, Role, StepKind, StepStatus, TaskStatus, waiting_status
from prodsys_core.models import Job, MergeLimit, PandaAttempt, Run, Step, Task
from prodsys_core.naming import work_key
from prodsys_core.plan import backoff_s
from prodsys_core.services.isolation import alone
from prodsys_core.services.moves import Mover, move, move_each, note, record
from prodsys_core.services.rows import insert_from, insert_rows
from prodsys_core.taskfile import TaskFile

log = logging.getLogger(__name__)

CATALOGUE_MAX = 200_000_000
"""Bytes of a catalogue; 3,000,000 lines of the real one are 120 MB."""
SOURCE_FIRST_S, SOURCE_LONGEST_S = 5.0, 600.0
"""Waits before an unreadable source is read again."""


REPLACEABLE = (TaskStatus.DRAFT, TaskStatus.JOBS_READY, TaskStatus.CANCELLED)
"""No service makes anything of a task in one of these."""


class CannotCreate(Exception):
    """The task was not created; the text says why. Nothing was written."""


def task_create(config: Config, file: TaskFile, mover: Mover, replace: bool = False) -> Task:
    """Store a draft, `replace`: in place of a task of this name of which nothing was sent. Raises CannotCreate."""
    for name in file.site:
        _check_site(config, name, file)
    try:
        with transaction.atomic():
            if replace:
                _remove_unsent(file.name, mover)
            return _store(file, mover)
    except IntegrityError as error:
        raise CannotCreate(f"name: a task named {file.name!r} is there already") from error


def _remove_unsent(name: str, mover: Mover) -> None:
    old = Task.objects.select_for_update().filter(name=name).first()
    if old is None:
        return
    if old.status not in REPLACEABLE or PandaAttempt.objects.filter(step__task=old).exists():
        states = ", ".join(REPLACEABLE)
        raise CannotCreate(
            f"name: found task {name!r} in {old.status}, expected one of {states} of which nothing was sent"
        )
    record(mover, "task", [old.pk], old.status, "", "replaced")
    old.delete()


def _check_site(config: Config, name: str, file: TaskFile) -> None:
    site = config.site(name)
    if site is None:
        known = ", ".join(site.name for site in config.sites)
        raise CannotCreate(f"site: found {name!r}, expected one of the configured sites: {known}")
    if not Path(file.files_home_prefix).is_relative_to(site.files.root):
        raise CannotCreate(
            f"files_home_prefix: found {file.files_home_prefix!r}, expected a place below the site's {site.files.root}/"
        )
    kinds = {link.kind for link in tables.chains()[file.type]} & set(PANDA_KINDS)
    missing = sorted(kind for kind in kinds if site.command_for(kind, file.type) is None)
    if missing:
        raise CannotCreate(f"site: {site.name} has no command for {', '.join(missing)} of {file.type}")


def _store(file: TaskFile, mover: Mover) -> Task:
    fields = file.model_dump(exclude={"site", "runs", "files", "merge", "catalogue"})
    source = file.runs if file.files_source == "runs list" else file.files
    fields |= {"sites": " ".join(file.site), "source": "\n".join(map(str, source))}
    fields |= {"catalogue": file.catalogue or "", "created_at": mover.now, "status_at": mover.now}
    task = Task.objects.create(**fields, status=TaskStatus.DRAFT)
    merge = file.merge
    MergeLimit.objects.bulk_create(
        [
            MergeLimit(task=task, product="mdst", bytes_max=merge.mdst_bytes, events_max=merge.mdst_events),
            MergeLimit(task=task, product="hist", bytes_max=merge.hist_bytes),
            MergeLimit(task=task, product="dump", bytes_max=merge.dump_bytes, files_max=merge.dump_files),
        ]
    )
    record(mover, "task", [task.pk], "", task.status)
    return task


def task_set(name: str, status: str, mover: Mover) -> Task | None:
    """Set a task's status as its manager; None if there is no such task. Raises NotAllowed.

    Moves from the status that is stored now; when a service changed it in between, tries once more from the new one.
    """
    for _ in range(2):
        task = Task.objects.filter(name=name).first()
        if task is None:
            return None
        if move(mover, "task", [task.pk], task.status, status, next_try_at=None):
            break
    return Task.objects.get(pk=task.pk)


def resend_candidates(task: Task, status: str) -> list[Step]:
    """Steps of a task that wait for a person: their PanDA job is over and no further attempt is due, or work done here
    was given up. Cross-checks follow their suspicious run (`check-again`)."""
    steps = Step.objects.filter(task=task, status=status).exclude(kind=StepKind.CROSS_CHECK)
    if status == StepStatus.FAILED:
        steps = steps.filter(next_try_at=None)
    return list(steps.select_related("job", "run", "group").order_by("pk"))


def steps_resend(steps: Iterable[Step], mover: Mover) -> int:
    """Give each of these steps one more attempt, whatever it has been charged; returns how many."""
    again = {"reason": "resent", "next_try_at": None, "failures": 0}
    return move_each(mover, "step", steps, lambda step: waiting_status(step.kind), **again)


def tasks_generate(config: Config, mover: Mover) -> int:
    """Make the jobs of every task in `ready`; returns how many jobs were added. A bad source holds only its task."""
    due = Task.objects.filter(mover.due, status=TaskStatus.READY)
    added = 0
    for task in due.order_by("pk"):
        with alone(partial(_put_off, mover, task)):
            added += _generate(config, task, mover)
    return added


def _put_off(mover: Mover, task: Task, why: str) -> None:
    failures = task.source_failures + 1
    wait = timedelta(seconds=backoff_s(failures, SOURCE_FIRST_S, SOURCE_LONGEST_S))
    log.warning("task %s not released: %s", task.name, why)
    retry = {"source_failures": failures, "next_try_at": mover.now + wait}
    note("task", [task.pk], TaskStatus.READY, "bad-source", why, **retry)


def _generate(config: Config, task: Task, mover: Mover) -> int:
    plan = read_source(task)
    if isinstance(plan, catalogue.BadSource):
        _put_off(mover, task, plan.text)
        return 0
    with transaction.atomic():
        added = store_jobs(config, task, plan, mover.now)
        columns = {"files_skipped": len(plan.skipped), "source_failures": 0, "next_try_at": None}
        move(mover, "task", [task.pk], TaskStatus.READY, TaskStatus.JOBS_READY, **columns)
    log.info("task %s: %d jobs added, %d zero-event files skipped", task.name, added, len(plan.skipped))
    return added


def read_source_file(path: Path) -> str:
    """Text of a list that a person gave; raises OSError, or ValueError for one that is too large or not ASCII."""
    if path.stat().st_size > CATALOGUE_MAX:
        raise ValueError(f"more than {CATALOGUE_MAX} bytes")
    return path.read_text(encoding="ascii")


def read_source(task: Task) -> catalogue.JobPlan | catalogue.BadSource:
    """Jobs that the task's lists and catalogue say; reads the catalogue file."""
    entries: tuple[catalogue.CatalogueEntry, ...] | None = None
    if task.catalogue:
        try:
            parsed = catalogue.parse_catalogue(read_source_file(Path(task.catalogue)), task.catalogue)
        except (OSError, ValueError) as error:
            return catalogue.BadSource((f"catalogue {task.catalogue} cannot be read: {error}",))
        if isinstance(parsed, catalogue.BadSource):
            return parsed
        entries = parsed
    lines = task.source.split()
    if task.files_source == "runs list":
        return catalogue.plan_from_runs([int(line) for line in lines], entries or ())
    return catalogue.plan_from_files(lines, entries)


def store_jobs(config: Config, task: Task, plan: catalogue.JobPlan, now: datetime) -> int:
    """Add runs, jobs and reconstruct steps that are not there yet; event counts follow the source except where a
    manager has corrected them. Returns the number of jobs added."""
    numbers = {entry.run for entry in plan.jobs}
    known_runs = Run.objects.filter(task=task).values_list("number", flat=True)
    new = sorted(numbers.difference(known_runs))
    Run.objects.bulk_create(Run(task=task, number=number, status_at=now) for number in new)
    runs = dict(Run.objects.filter(task=task).values_list("number", "pk"))
    known = {job.file: job for job in Job.objects.filter(task=task)}
    changed = []
    for entry in plan.jobs:
        job = known.get(entry.file)
        if job is not None and not job.corrected and job.n_events != entry.n_events:
            job.n_events = entry.n_events
            changed.append(job)
    Job.objects.bulk_update(changed, ["n_events"], batch_size=300)
    rows = [(task.pk, runs[e.run], e.file, e.chunk, e.n_events) for e in plan.jobs if e.file not in known]
    insert_rows(Job, "task_id run_id file chunk n_events", rows)
    kind = StepKind.RECONSTRUCT.value
    return insert_from(
        Step,
        Job.objects.filter(task=task, steps=None).order_by("pk"),
        task_id=F("task_id"),
        run_id=F("run_id"),
        job_id=F("pk"),
        kind=Value(kind),
        work=Concat(Value(work_key(config.instance, task.pk, kind, "")), Cast("pk", CharField())),
        status=Value(StepStatus.DEFINED.value),
        status_at=Value(now),
    )


def as_manager(who: str, now: datetime) -> Mover:
    """A person at the command line or a page."""
    return Mover(who, Role.MANAGER, now)
