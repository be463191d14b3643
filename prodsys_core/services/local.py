"""Work that prodsys does itself: cross-check, transfer to tape, packing of logs, removal of intermediates.

Each step is tried on its own: one that fails holds only itself, with a reason and a next try; after TRIES_MAX failures
in a row it waits for a person.
"""

import json
import logging
from collections.abc import Callable, Iterable
from datetime import timedelta

from django.db import transaction
from django.db.models import Q

from prodsys_core.config import Config, Site
from prodsys_core.crosscheck import count_units
from prodsys_core.lifecycle import MERGES, RunStatus, StepKind, StepStatus, TaskStatus
from prodsys_core.models import AttemptEnd, GroupCheck, MergeGroup, MergeInput, PandaAttempt, Step, Transfer
from prodsys_core.plan import GroupCount, backoff_s, crosscheck_problems
from prodsys_core.ports import Accepted, Broken, NotThere, Refused, Stored, Unavailable, UnderWay
from prodsys_core.services import jobs
from prodsys_core.services.isolation import AGAIN_S, NO_ROWS_FAULT
from prodsys_core.services.moves import Mover, move, note
from prodsys_core.services.runs import current_groups
from prodsys_core.storage import OutsideRoot, SiteFilesystem, below, open_tape

log = logging.getLogger(__name__)

TRIES_MAX = 6
"""A file that is still not there or not readable after so many looks will not come by itself."""
TRY_FIRST_S, TRY_LONGEST_S = 2.0, 600.0
FOLLOWED = (TaskStatus.SEND, TaskStatus.RUNNING, TaskStatus.PAUSED, TaskStatus.DONE)


Perform = Callable[[Config, Site, Step, Mover], bool]
"""Does one step; True if it is finished."""


class NotYet(Exception):
    """This step cannot be done now; the text says why."""


class NeedsPerson(Exception):
    """This step must not go on by itself. First argument: reason word, second: sentence."""


def steps_do(config: Config, mover: Mover) -> int:
    """Do every local step that is due; returns how many were finished."""
    done = 0
    for kind, perform in PERFORMED.items():
        due = Step.objects.filter(
            Q(next_try_at=None) | Q(next_try_at__lte=mover.now),
            kind=kind,
            status__in=(StepStatus.READY, StepStatus.SENT),
            task__status__in=(*FOLLOWED, TaskStatus.ARCHIVE, TaskStatus.ARCHIVING),
        )
        for step in due.select_related("task", "run", "group").order_by("pk"):
            done += _try(config, step, perform, mover)
    return done


def _try(config: Config, step: Step, perform: Perform, mover: Mover) -> bool:
    site = jobs.run_site(config, step.run, step.task)
    mover.hold()
    if site is None:  # it is waited for, however long
        wait = mover.now + timedelta(seconds=AGAIN_S)
        why = jobs.no_site(step.run.site, step.task.sites)
        note("step", [step.pk], step.status, jobs.NO_SITE, why, next_try_at=wait)
        return False
    try:
        return perform(config, site, step, mover)
    except NO_ROWS_FAULT:
        raise
    except NeedsPerson as error:
        log.error("%s (%s): %s", step.work, step.kind, error.args[1])
        _hold(step, error.args[0], error.args[1], mover)
    except Exception as error:  # whatever a bad row makes of code that expects a good one
        expected = isinstance(error, NotYet | OutsideRoot)
        text = str(error) if expected else f"{type(error).__name__}: {error}"
        failures = step.failures + 1
        log.warning("%s (%s): %s", step.work, step.kind, text, exc_info=not expected)
        if failures >= TRIES_MAX:
            _hold(step, "gave-up", f"{text} (looked {failures} times)", mover)
            return False
        wait = mover.now + timedelta(seconds=backoff_s(failures, TRY_FIRST_S, TRY_LONGEST_S))
        note("step", [step.pk], step.status, "not-yet", text, failures=failures, next_try_at=wait)
    return False


def _hold(step: Step, reason: str, message: str, mover: Mover) -> None:
    """manual check; a cross-check that cannot be made makes its run suspicious as one that failed does."""
    with transaction.atomic():
        move(mover, "step", [step.pk], step.status, StepStatus.MANUAL_CHECK, reason=reason, message=message)
        if step.kind == StepKind.CROSS_CHECK:
            columns = {"reason": reason, "message": message}
            move(mover, "run", [step.run_id], RunStatus.MERGING, RunStatus.SUSPICIOUS, **columns)


# --- cross-check ----------------------------------------------------------------------------------------------


def crosscheck(config: Config, site: Site, step: Step, mover: Mover) -> bool:
    """Count what is in the chunks and in the merged files of a run. A difference makes the run suspicious."""
    groups = list(current_groups(plan__run=step.run).order_by("product", "piece"))
    counted = [(group, _count_group(site, group)) for group in groups]
    problems = crosscheck_problems(count for _, count in counted)
    with transaction.atomic():
        GroupCheck.objects.filter(step=step).delete()
        columns = ("unit", "expected", "in_chunks", "in_merged", "agrees")
        for group, count in counted:
            values = {name: getattr(count, name) for name in columns}
            GroupCheck.objects.create(step=step, group=group, checked_at=mover.now, **values)
        if problems:
            text = "; ".join(problems)
            _hold(step, "counts-differ", text, mover)
            log.error("run %d of task %s is suspicious: %s", step.run.number, step.task.name, text)
            return False
        move(mover, "run", [step.run_id], RunStatus.MERGING, RunStatus.CHECKED)
        return bool(move(mover, "step", [step.pk], StepStatus.READY, StepStatus.FINISHED))


def _count_group(site: Site, group: MergeGroup) -> GroupCount:
    merge = merge_step(group)
    names = jobs.task_names(merge.task)
    product = names.table.products[group.product]
    rows = list(MergeInput.objects.filter(group=group))
    chunks = [names.chunk_path(group.product, row.lfn) for row in rows]
    lfn = jobs.step_outputs(merge, merge.attempt)[group.product]
    in_merged = _count(site, names.merged_path(group.product, lfn), product.unit)
    expected = None
    if product.unit == "bytes":
        expected = sum(row.size for row in rows)
    elif product.unit == "events" and all(row.n_events is not None for row in rows):
        expected = sum(row.n_events for row in rows)
    in_chunks = sum(_count(site, path, product.unit) for path in chunks)
    return GroupCount(lfn, product.unit, expected, in_chunks, in_merged)


def _count(site: Site, path: str, unit: str) -> int:
    match count_units(below(site.files.root, path), unit):
        case int() as count:
            return count
        case NotThere():
            raise NotYet(f"{path} is not there")
        case Unavailable(reason=reason) | Broken(reason=reason):
            raise NotYet(reason)


def merge_step(group: MergeGroup) -> Step:
    """The step that made a group's merged file."""
    return Step.objects.select_related("task", "run", "group").get(group=group, kind__in=MERGES)


# --- transfer and archive -------------------------------------------------------------------------------------


def transfer(config: Config, site: Site, step: Step, mover: Mover) -> bool:
    """Copy a merged file to tape; finished when the tape has its size and checksum."""
    if step.status == StepStatus.SENT:
        return _confirm(site, step, mover)
    merge, names, product = merge_step(step.group), jobs.task_names(step.task), step.group.product
    lfn = jobs.step_outputs(merge, merge.attempt)[product]
    target = names.tape_path(product, names.final_name(jobs.step_names(step)))
    _send_to_tape(site, step, names.merged_path(product, lfn), target, _reported(merge, lfn), mover)
    return False


def archive_logs(config: Config, site: Site, step: Step, mover: Mover) -> bool:
    """Pack the job logs of a run into one file and copy it to tape, where there is one."""
    if step.status == StepStatus.SENT:
        return _confirm(site, step, mover)
    needed, others = _logs(step)
    files = SiteFilesystem(site.files.root)
    missing = [path for path in needed if not isinstance(files.size(path), int)]
    if missing:
        raise NotYet(f"{len(missing)} logs of finished jobs are not there, first {missing[0]}")
    names = jobs.task_names(step.task)
    name = names.packed_log_name(step.run.number)
    source = names.chunk_path("log", name)
    packed = files.pack(source, sorted({*needed, *others}))
    if isinstance(packed, Unavailable):
        raise NotYet(packed.reason)
    if site.tape is None:
        return bool(move(mover, "step", [step.pk], StepStatus.READY, StepStatus.FINISHED))
    _send_to_tape(site, step, source, names.tape_path("log", name), packed, mover)
    return False


def _logs(step: Step) -> tuple[list[str], list[str]]:
    """Paths of the run's job logs: of finished attempts, which must be there, and of all others, which may be."""
    names = jobs.task_names(step.task)
    needed, others = [], []
    for other in panda_steps(step):
        for attempt in range(1, other.attempt + 1):
            path = names.chunk_path("log", jobs.step_outputs(other, attempt)["log"])
            (needed if attempt == _counted(other) else others).append(path)
    return needed, others


def _counted(step: Step) -> int:
    """The attempt whose files count; 0 where none does: left out by a manager, or merged again."""
    return 0 if step.status == StepStatus.CANCELLED else step.attempt


def panda_steps(step: Step) -> Iterable[Step]:
    """All steps of the step's run that had PanDA jobs."""
    rows = Step.objects.filter(run=step.run, kind__in=(StepKind.RECONSTRUCT, *MERGES), attempt__gt=0)
    return rows.select_related("task", "run", "job", "group").order_by("pk")


def _send_to_tape(
    site: Site, step: Step, source: str, target: str, reported: Stored | None, mover: Mover
) -> None:
    """Ask for the transfer and remember size and checksum of the source, which must be what the job reported."""
    seen = SiteFilesystem(site.files.root).checksum(source)
    if not isinstance(seen, Stored):
        raise NotYet(f"{source}: {seen.reason if isinstance(seen, Unavailable) else 'not there'}")
    if reported is not None and seen != reported:
        raise NeedsPerson("source-changed", f"{source} has {seen}, its job reported {reported}")
    answer = open_tape(site.tape).put(str(below(site.files.root, source)), target)
    if isinstance(answer, Refused):
        raise NeedsPerson("tape-refused", answer.reason)
    if not isinstance(answer, Accepted):
        raise NotYet(f"tape: {answer.reason}")
    values = {"source": source, "target": target, "size": seen.size, "adler32": seen.adler32}
    with transaction.atomic():
        Transfer.objects.update_or_create(step=step, defaults={**values, "asked_at": mover.now})
        move(mover, "step", [step.pk], StepStatus.READY, StepStatus.SENT, failures=0, next_try_at=None)


def _confirm(site: Site, step: Step, mover: Mover) -> bool:
    """Ask the tape what it has. Only its own size and checksum finish the step."""
    row = Transfer.objects.get(step=step)
    tape = open_tape(site.tape)
    match tape.confirm(row.target):
        case Stored(size, adler32):
            if (size, adler32) != (row.size, row.adler32):
                text = f"{row.target}: tape has {size} bytes, {adler32}; source {row.size}, {row.adler32}"
                raise NeedsPerson("copy-differs", text)
            Transfer.objects.filter(pk=row.pk).update(confirmed_at=mover.now)
            return bool(move(mover, "step", [step.pk], StepStatus.SENT, StepStatus.FINISHED))
        case UnderWay():
            return False
        case NotThere():
            if mover.now - row.asked_at >= timedelta(seconds=site.tape.again_after_s):
                move(mover, "step", [step.pk], StepStatus.SENT, StepStatus.READY, reason="tape-lost-it")
            return False
        case Unavailable(reason=reason) | Refused(reason=reason) | Broken(reason=reason):
            note("step", [step.pk], StepStatus.SENT, "tape-unavailable", reason)
            return False


def _reported(merge: Step, lfn: str) -> Stored | None:
    """Size and checksum of a merged file as its PanDA job reported them; None where PanDA has no checksum."""
    end = AttemptEnd.objects.get(attempt__step=merge, attempt__number=merge.attempt)
    size, adler32 = json.loads(end.files).get(lfn, (0, None))
    return Stored(size, adler32) if size and adler32 else None


# --- removal --------------------------------------------------------------------------------------------------


def clean(config: Config, site: Site, step: Step, mover: Mover) -> bool:
    """Remove the run's intermediate files by name: chunk products, job logs, merged files of attempts that did not
    count, input lists. The chain lets this happen only after everything of the run was confirmed."""
    unconfirmed = Transfer.objects.filter(step__run=step.run, confirmed_at=None)
    if unconfirmed.exists():
        raise NeedsPerson("not-confirmed", "a file of this run is not confirmed on tape; nothing removed")
    if site.tape is None:
        _check_merged(site, step)
    files = SiteFilesystem(site.files.root)
    intermediates = set(_intermediates(site, step))
    own = PandaAttempt.objects.filter(step__in=panda_steps(step), panda_id__isnull=False)
    directories = sorted({path.rpartition("/")[0] for path in intermediates})
    parts = files.parts(directories, set(own.values_list("panda_id", flat=True)))
    if isinstance(parts, Unavailable):
        raise NotYet(parts.reason)
    removed = files.remove(sorted(intermediates.union(parts)))
    if isinstance(removed, Unavailable):
        raise NotYet(removed.reason)
    log.info("run %d of task %s: %d intermediate files removed", step.run.number, step.task.name, removed)
    return bool(move(mover, "step", [step.pk], StepStatus.READY, StepStatus.FINISHED))


def _check_merged(site: Site, step: Step) -> None:
    """Without tape the merged files on the site are the only ones: each must be there as its job reported it."""
    names, files = jobs.task_names(step.task), SiteFilesystem(site.files.root)
    merges = Step.objects.filter(run=step.run, kind__in=MERGES, status=StepStatus.FINISHED)
    for merge in merges.select_related("task", "run", "group"):
        product = merge.group.product
        lfn = jobs.step_outputs(merge, merge.attempt)[product]
        path = names.merged_path(product, lfn)
        seen, reported = files.checksum(path), _reported(merge, lfn)
        if not isinstance(seen, Stored) or (reported is not None and seen != reported):
            raise NeedsPerson("merged-missing", f"{path} is not as its job reported it; nothing removed")


def _intermediates(site: Site, step: Step) -> Iterable[str]:
    names = jobs.task_names(step.task)
    for other in panda_steps(step):
        merged = other.kind != StepKind.RECONSTRUCT
        if merged:
            yield jobs.input_list_path(site, other)
        for attempt in range(1, other.attempt + 1):
            for product, lfn in jobs.step_outputs(other, attempt).items():
                if not merged or product == "log":
                    yield names.chunk_path(product, lfn)
                elif attempt != _counted(other):
                    yield names.merged_path(product, lfn)


PERFORMED: dict[StepKind, Perform] = {
    StepKind.CROSS_CHECK: crosscheck,
    StepKind.TRANSFER: transfer,
    StepKind.ARCHIVE_LOGS: archive_logs,
    StepKind.CLEAN: clean,
}
