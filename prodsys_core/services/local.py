"""Work that prodsys does itself: cross-check, transfer to tape, packing of logs, removal of intermediates.

Each step is tried on its own: one that fails holds only itself, with a reason and a next try; after TRIES_MAX failures
in a row it waits for a person.
"""

import json
import logging
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from typing import NamedTuple

from django.db import transaction

from prodsys_core.config import Config, Site
from prodsys_core.crosscheck import count_units
from prodsys_core.lifecycle import MERGES, PANDA_KINDS, RunStatus, StepKind, StepStatus
from prodsys_core.models import AttemptEnd, GroupCheck, MergeGroup, MergeInput, PandaAttempt, Step, Transfer
from prodsys_core.plan import GroupCount, backoff_s, crosscheck_problems
from prodsys_core.ports import Accepted, NotThere, Refused, Stored, UnderWay
from prodsys_core.services import jobs
from prodsys_core.services.isolation import NO_ROWS_FAULT, put_off
from prodsys_core.services.moves import Mover, move, note
from prodsys_core.services.runs import ADVANCED, ARCHIVED, current_groups
from prodsys_core.storage import NotYet, OutsideRoot, SiteFilesystem, below, needed, open_tape

log = logging.getLogger(__name__)

TRIES_MAX = 6
"""A file that is still not there or not readable after so many looks will not come by itself."""
TRY_FIRST_S, TRY_LONGEST_S = 2.0, 600.0
Perform = Callable[[Site, Step, Mover], bool]
"""Does one step; True if it is finished."""


class NeedsPerson(Exception):
    """This step must not go on by itself. First argument: reason word, second: sentence."""


def steps_do(config: Config, mover: Mover) -> int:
    """Do every local step that is due; returns how many were finished."""
    done = 0
    for kind, perform in PERFORMED.items():
        due = Step.objects.filter(
            mover.due,
            kind=kind,
            status__in=(StepStatus.READY, StepStatus.SENT),
            task__status__in=(*ADVANCED, *ARCHIVED),
        )
        for step in due.select_related("task", "run", "group").order_by("pk"):
            done += _try(config, step, perform, mover)
    return done


def _try(config: Config, step: Step, perform: Perform, mover: Mover) -> bool:
    site = jobs.run_site(config, step.run, step.task)
    mover.hold()
    if site is None:  # it is waited for, however long
        why = jobs.no_site(step.run.site, step.task.sites)
        put_off(mover, "step", [step.pk], step.status, jobs.NO_SITE, why)
        return False
    try:
        return perform(site, step, mover)
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


def crosscheck(site: Site, step: Step, mover: Mover) -> bool:
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
    unit = names.table.products[group.product].unit
    rows = list(MergeInput.objects.filter(group=group))
    expected = None
    if unit == "bytes":
        expected = sum(row.size for row in rows)
    elif unit == "events" and all(row.n_events is not None for row in rows):
        expected = sum(row.n_events for row in rows)
    lfn, path = _merged_file(merge)
    in_merged = _count(site, path, unit)
    in_chunks = sum(_count(site, names.file_path(group.product, row.lfn), unit) for row in rows)
    return GroupCount(lfn, unit, expected, in_chunks, in_merged)


def _count(site: Site, path: str, unit: str) -> int:
    return needed(count_units(below(site.files.root, path), unit), path)


def merge_step(group: MergeGroup) -> Step:
    """The step that made a group's merged file."""
    return Step.objects.select_related("task", "run", "group").get(group=group, kind__in=MERGES)


def _merged_file(merge: Step) -> tuple[str, str]:
    """LFN and path of the merged file that counts."""
    product = merge.group.product
    lfn = jobs.step_outputs(merge, merge.attempt)[product]
    return lfn, jobs.task_names(merge.task).file_path(product, lfn, merged=True)


# --- transfer and archive -------------------------------------------------------------------------------------


def transfer(site: Site, step: Step, mover: Mover) -> bool:
    """Copy a merged file to tape; finished when the tape has its size and checksum."""
    if step.status == StepStatus.SENT:
        return _confirm(site, step, mover)
    merge, names = merge_step(step.group), jobs.task_names(step.task)
    lfn, path = _merged_file(merge)
    target = names.tape_path(step.group.product, names.final_name(jobs.step_names(step)))
    _send_to_tape(site, step, path, target, _reported(merge, lfn), mover)
    return False


def archive_logs(site: Site, step: Step, mover: Mover) -> bool:
    """Pack the job logs of a run into one file and copy it to tape, where there is one."""
    if step.status == StepStatus.SENT:
        return _confirm(site, step, mover)
    logs = [made for made in _made(site, step) if made.product == "log"]
    files, names = SiteFilesystem(site.files.root), jobs.task_names(step.task)
    missing = [made.path for made in logs if made.counts and not isinstance(files.size(made.path), int)]
    if missing:
        raise NotYet(f"{len(missing)} logs of finished jobs are not there, first {missing[0]}")
    name = names.packed_log_name(step.run.number)
    source = names.file_path("log", name)
    packed = needed(files.pack(source, sorted({made.path for made in logs})))
    if site.tape is None:
        return bool(move(mover, "step", [step.pk], StepStatus.READY, StepStatus.FINISHED))
    _send_to_tape(site, step, source, names.tape_path("log", name), packed, mover)
    return False


class Made(NamedTuple):
    """A file that was made for a step, or may have been. `counts`: of the attempt that counts, not left out by a
    manager and not merged again."""

    path: str
    product: str
    merged: bool
    counts: bool


def _made(site: Site, step: Step) -> Iterator[Made]:
    """All files of the PanDA steps of the step's run, lists of inputs among them."""
    names = jobs.task_names(step.task)
    for other in panda_steps(step):
        if other.kind != StepKind.RECONSTRUCT:
            yield Made(jobs.input_list_path(site, other), "list", False, False)
        for attempt in range(1, other.attempt + 1):
            counts = attempt == other.attempt and other.status != StepStatus.CANCELLED
            for product, lfn in jobs.step_outputs(other, attempt).items():
                merged = other.kind != StepKind.RECONSTRUCT and product != "log"
                yield Made(names.file_path(product, lfn, merged), product, merged, counts)


def panda_steps(step: Step) -> Iterable[Step]:
    """All steps of the step's run that had PanDA jobs."""
    rows = Step.objects.filter(run=step.run, kind__in=PANDA_KINDS, attempt__gt=0)
    return rows.select_related("task", "run", "job", "group").order_by("pk")


def _send_to_tape(
    site: Site, step: Step, source: str, target: str, reported: Stored | None, mover: Mover
) -> None:
    """Ask for the transfer and remember size and checksum of the source, which must be what the job reported."""
    seen = needed(SiteFilesystem(site.files.root).checksum(source), source)
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
    match open_tape(site.tape).confirm(row.target):
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
        case failure:
            note("step", [step.pk], StepStatus.SENT, "tape-unavailable", failure.reason)
            return False


def _reported(merge: Step, lfn: str) -> Stored | None:
    """Size and checksum of a merged file as its PanDA job reported them; None where PanDA has no checksum."""
    end = AttemptEnd.objects.get(attempt__step=merge, attempt__number=merge.attempt)
    size, adler32 = json.loads(end.files).get(lfn, (0, None))
    return Stored(size, adler32) if size and adler32 else None


# --- removal --------------------------------------------------------------------------------------------------


def clean(site: Site, step: Step, mover: Mover) -> bool:
    """Remove the run's intermediate files by name: chunk products, job logs, merged files of attempts that did not
    count, input lists. The chain lets this happen only after everything of the run was confirmed."""
    unconfirmed = Transfer.objects.filter(step__run=step.run, confirmed_at=None)
    if unconfirmed.exists():
        raise NeedsPerson("not-confirmed", "a file of this run is not confirmed on tape; nothing removed")
    files = SiteFilesystem(site.files.root)
    merges = Step.objects.filter(run=step.run, kind__in=MERGES, status=StepStatus.FINISHED)
    # Without tape the merged files on the site are the only ones.
    for merge in merges.select_related("task", "run", "group") if site.tape is None else ():
        lfn, path = _merged_file(merge)
        seen, reported = files.checksum(path), _reported(merge, lfn)
        if not isinstance(seen, Stored) or (reported is not None and seen != reported):
            raise NeedsPerson("merged-missing", f"{path} is not as its job reported it; nothing removed")
    intermediates = {made.path for made in _made(site, step) if not (made.merged and made.counts)}
    own = PandaAttempt.objects.filter(step__in=panda_steps(step), panda_id__isnull=False)
    directories = sorted({path.rpartition("/")[0] for path in intermediates})
    parts = files.parts(directories, set(own.values_list("panda_id", flat=True)))
    intermediates.update(needed(parts))
    removed = needed(files.remove(sorted(intermediates)))
    log.info("run %d of task %s: %d intermediate files removed", step.run.number, step.task.name, removed)
    return bool(move(mover, "step", [step.pk], StepStatus.READY, StepStatus.FINISHED))


PERFORMED: dict[StepKind, Perform] = {
    StepKind.CROSS_CHECK: crosscheck,
    StepKind.TRANSFER: transfer,
    StepKind.ARCHIVE_LOGS: archive_logs,
    StepKind.CLEAN: clean,
}
