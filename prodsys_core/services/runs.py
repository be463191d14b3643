"""What follows when work of a run is complete: merge plan, cross-check, transfers, archive; and of its task."""

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from functools import partial

from django.db import transaction
from django.db.models import Count, Exists, F, Max, OuterRef, Q, QuerySet

from prodsys_core import lifecycle, tables
from prodsys_core.chunks import in_chunks
from prodsys_core.config import Config, Site
from prodsys_core.lifecycle import CHUNK_DONE, MERGES, RunStatus, StepKind, StepStatus, TaskStatus
from prodsys_core.models import AttemptEnd, MergeGroup, MergeInput, MergeLimit, MergePlan, Run, Step, Task
from prodsys_core.naming import work_key
from prodsys_core.plan import MergeInput as PlannedInput
from prodsys_core.plan import plan_groups
from prodsys_core.services.isolation import alone, apart, put_off
from prodsys_core.services.jobs import NO_SITE, no_site, run_site, step_names, task_names
from prodsys_core.services.moves import Mover, move, note
from prodsys_core.services.rows import insert_rows
from prodsys_core.storage import NotYet, OutsideRoot, SiteFilesystem, needed
from prodsys_core.verdicts import UNCHECKED

log = logging.getLogger(__name__)

ADVANCED = (TaskStatus.SEND, TaskStatus.RUNNING, TaskStatus.PAUSED, TaskStatus.DONE)
ARCHIVED = (TaskStatus.ARCHIVE, TaskStatus.ARCHIVING)


def runs_merge(config: Config, mover: Mover) -> int:
    """Plan the merges of every open run whose last chunk is finished; returns the number of runs planned. Chunks that
    a manager has left out (cancelled) are not waited for."""
    chunks = Step.objects.filter(run=OuterRef("pk"), kind=StepKind.RECONSTRUCT)
    unfinished = chunks.exclude(status__in=sorted(CHUNK_DONE))
    runs = Run.objects.filter(
        ~Exists(unfinished), mover.due, status=RunStatus.OPEN, task__status__in=ADVANCED
    )
    planned = 0
    for run in runs.select_related("task").order_by("pk"):
        with alone(partial(put_off, mover, "run", [run.pk], run.status, "cannot-plan")):
            site = run_site(config, run, run.task)
            if site is None:
                put_off(mover, "run", [run.pk], run.status, NO_SITE, no_site(run.site, run.task.sites))
                continue
            try:
                planned += _plan_run(config, site, run, mover)
            except (NotYet, OutsideRoot) as error:
                put_off(mover, "run", [run.pk], run.status, "no-size", str(error))
    return planned


def _plan_run(config: Config, site: Site, run: Run, mover: Mover) -> int:
    """The run's merge plan, groups, inputs and steps, in one transaction with its status."""
    inputs = _chunk_products(site, run)
    limits = {row.product: row for row in MergeLimit.objects.filter(task=run.task)}
    table = tables.products()
    with transaction.atomic():
        if not move(mover, "run", [run.pk], RunStatus.OPEN, RunStatus.MERGING, next_try_at=None):
            return 0
        chunks = Step.objects.filter(run=run, kind=StepKind.RECONSTRUCT).exclude(status=StepStatus.CANCELLED)
        wanted = set(chunks.values_list("job_id", flat=True))
        if wanted != {item.job_id for found in inputs.values() for item in found}:
            transaction.set_rollback(True)  # a manager left a chunk out or took one in meanwhile: next tick
            return 0
        last = MergePlan.objects.filter(run=run).aggregate(n=Max("generation"))["n"] or 0
        plan = MergePlan.objects.create(run=run, generation=last + 1, made_at=mover.now)
        for product in table.types[run.task.type]:
            empty = table.products[product].placeholder_size
            kind = table.products[product].step
            used = Step.objects.filter(run=run, kind=kind).aggregate(n=Max("attempt"))["n"] or 0
            for piece, members in enumerate(plan_groups(inputs[product], limits[product], empty)):
                group = MergeGroup.objects.create(plan=plan, product=product, piece=piece)
                rows = [(group.pk, item.job_id, item.lfn, item.size, item.n_written) for item in members]
                insert_rows(MergeInput, "group_id job_id lfn size n_events", rows)
                open_step(config, run, kind, mover, group, attempt=used)
    log.info("task %s: merges of run %d planned", run.task.name, run.number)
    return 1


def current_groups(**of: object) -> QuerySet[MergeGroup]:
    """Merge groups of runs' last generation: work of an older one was cancelled when a manager had it merged again."""
    return MergeGroup.objects.filter(**of).exclude(steps__status=StepStatus.CANCELLED)


def open_step(
    config: Config, run: Run, kind: str, mover: Mover, group: MergeGroup | None = None, attempt: int = 0
) -> None:
    """Make a step of a run or group, waiting to be done. Merges of a later generation go on counting `attempt`, which
    is in their files' names. A run's own step of an earlier generation is opened again."""
    subject = group.pk if group else run.pk
    work = work_key(config.instance, run.task_id, kind, subject)
    again = list(Step.objects.filter(work=work, status=StepStatus.CANCELLED).values_list("pk", flat=True))
    if again:
        columns = {"failures": 0, "next_try_at": None}
        move(mover, "step", again, StepStatus.CANCELLED, StepStatus.READY, reason="opened-again", **columns)
        return
    of = {"task": run.task, "run": run, "group": group, "kind": kind, "work": work}
    Step.objects.create(**of, status=StepStatus.READY, attempt=attempt, status_at=mover.now)


def _chunk_products(site: Site, run: Run) -> dict[str, list[PlannedInput]]:
    """Files of the finished attempts of a run, by product; raises NotYet where the size of one is not known."""
    names = task_names(run.task)
    ends = AttemptEnd.objects.filter(
        attempt__step__run=run, attempt__step__kind=StepKind.RECONSTRUCT, status="finished"
    )
    # An earlier attempt may have finished in PanDA, too, with other events than the catalogue's.
    last = Q(attempt__number=F("attempt__step__attempt"))
    steps = ends.filter(last, attempt__step__status=StepStatus.FINISHED)
    files = SiteFilesystem(site.files.root)
    inputs: dict[str, list[PlannedInput]] = {product: [] for product in names.table.types[names.type]}
    for end in steps.select_related("attempt__step__job", "attempt__step__task", "attempt__step__run"):
        step, sizes = end.attempt.step, json.loads(end.files)
        lfns = names.outputs(step_names(step), end.attempt.number)
        likely = next((n for n in (end.n_written, step.job.n_events, end.n_read) if n is not None), None)
        for product, found in inputs.items():
            lfn = lfns[product]
            path = names.file_path(product, lfn)
            size = sizes.get(lfn, [0])[0] or needed(files.size(path), path)  # PanDA's record may have none
            found.append(PlannedInput(step.job_id, step.job.chunk, lfn, size, likely, end.n_written))
    return inputs


def runs_advance(config: Config, mover: Mover) -> int:
    """Open the next kinds of work of every run and close what is complete; returns the number of steps opened."""
    runs = Run.objects.filter(status__in=(RunStatus.MERGING, RunStatus.CHECKED))
    of_tasks = runs.filter(mover.due, task__status__in=(*ADVANCED, *ARCHIVED))
    due = list(of_tasks.select_related("task").order_by("pk"))
    opened = 0

    def advance(part: Sequence[Run]) -> int:
        progress = load_progress(config, part)
        return sum(_advance(config, run, progress[run.pk], mover) for run in part)

    def cannot(run: Run, why: str) -> None:
        put_off(mover, "run", [run.pk], run.status, "cannot-advance", why)

    for part in in_chunks(due):
        opened += sum(apart(part, advance, cannot))
    tasks_close(config, mover)
    return opened


def _advance(config: Config, run: Run, progress: lifecycle.RunProgress, mover: Mover) -> int:
    chain, asked = tables.chains()[run.task.type], run.task.status in ARCHIVED
    if run_site(config, run, run.task) is None:
        put_off(mover, "run", [run.pk], run.status, NO_SITE, no_site(run.site, run.task.sites))
        return 0
    if run.next_try_at is not None:  # it was held, and goes on
        note("run", [run.pk], run.status, "", next_try_at=None)
    if run.status == RunStatus.CHECKED and asked and lifecycle.run_complete(chain, progress, asked_too=True):
        move(mover, "run", [run.pk], RunStatus.CHECKED, RunStatus.ARCHIVED)
        return 0
    if asked and progress.unchecked and run.reason != UNCHECKED:
        text = f"{progress.unchecked} event counts could not be compared: prodsys act accept-events"
        note("run", [run.pk], run.status, UNCHECKED, text)
    opened = 0
    for kind in lifecycle.kinds_to_open(chain, progress, asked):
        if kind in MERGES:
            continue  # planned by runs_merge, with the run's status
        groups: Iterable[MergeGroup | None] = [None]
        if kind == StepKind.TRANSFER:
            groups = current_groups(plan__run=run).exclude(steps__kind=kind).order_by("pk")
        with transaction.atomic():
            for group in groups:
                open_step(config, run, kind, mover, group)
                opened += 1
    return opened


def load_progress(config: Config, runs: Iterable[Run]) -> Mapping[int, lifecycle.RunProgress]:
    """Counts of steps of runs that have a merge plan; cancelled ones are not wanted any more and do not count."""
    by_pk = {run.pk: run for run in runs}
    counts: dict[int, dict[StepKind, tuple[int, int]]] = {}
    for pk, run in by_pk.items():
        merges = [link.kind for link in tables.chains()[run.task.type] if link.kind in MERGES]
        counts[pk] = dict.fromkeys((StepKind.RECONSTRUCT, *merges), (0, 0))
    wanted = Step.objects.filter(run__in=by_pk).exclude(status=StepStatus.CANCELLED)
    done = Count("pk", filter=Q(status=StepStatus.FINISHED))
    rows = wanted.values_list("run_id", "kind").annotate(n=Count("pk"), done=done)
    for run_id, kind, *found in rows.order_by():
        counts[run_id][StepKind(kind)] = (found[0], found[1])
    groups = current_groups(plan__run__in=by_pk).values_list("plan__run_id")
    n_groups = dict(groups.annotate(n=Count("pk")).order_by())
    for pk, run in by_pk.items():
        site, kinds, n_files = run_site(config, run, run.task), counts[pk], n_groups.get(pk, 0)
        # Transfers count as opened when there is one for each merged file, or none is wanted: no tape, no file.
        if (site is not None and site.tape is None) or n_files == 0:
            if lifecycle.RunProgress(kinds).complete(StepKind.CROSS_CHECK):
                kinds[StepKind.TRANSFER] = (0, 0)
        elif kinds.get(StepKind.TRANSFER, (0, 0))[0] < n_files:
            kinds.pop(StepKind.TRANSFER, None)
    unchecked = wanted.filter(kind=StepKind.RECONSTRUCT, status=StepStatus.FINISHED, reason=UNCHECKED)
    n_unchecked = dict(unchecked.values_list("run_id").annotate(n=Count("pk")).order_by())
    return {pk: lifecycle.RunProgress(kinds, n_unchecked.get(pk, 0)) for pk, kinds in counts.items()}


def tasks_close(config: Config, mover: Mover) -> None:
    """running -> done when all runs are checked and their merged files safe; archiving -> archived."""
    for task in Task.objects.filter(status=TaskStatus.RUNNING):
        with alone(partial(note, "task", [task.pk], task.status, "cannot-close")):
            chain = tables.chains()[task.type]
            runs = list(Run.objects.filter(task=task).select_related("task"))
            if not runs or any(run.status != RunStatus.CHECKED for run in runs):
                continue
            found = (load_progress(config, part).values() for part in in_chunks(runs))
            if all(lifecycle.run_complete(chain, one, asked_too=False) for part in found for one in part):
                move(mover, "task", [task.pk], TaskStatus.RUNNING, TaskStatus.DONE, reason="all-runs-checked")
    begun = Run.objects.filter(task=OuterRef("pk"), steps__kind=StepKind.ARCHIVE_LOGS)
    for task in Task.objects.filter(Exists(begun), status=TaskStatus.ARCHIVE):
        move(mover, "task", [task.pk], TaskStatus.ARCHIVE, TaskStatus.ARCHIVING)
    left = Run.objects.filter(task=OuterRef("pk")).exclude(status=RunStatus.ARCHIVED)
    for task in Task.objects.filter(~Exists(left), status=TaskStatus.ARCHIVING):
        move(mover, "task", [task.pk], TaskStatus.ARCHIVING, TaskStatus.ARCHIVED)
