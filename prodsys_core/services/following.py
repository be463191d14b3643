"""Following PanDA's jobs: cheap status of all, full records of those that may have ended, verdicts stored."""

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from functools import partial
from operator import attrgetter
from typing import Any

from django.db.models import F, Q
from django.db.models.constants import OnConflict

from prodsys_core import lifecycle, tables
from prodsys_core.chunks import in_chunks
from prodsys_core.config import Config
from prodsys_core.lifecycle import IN_PANDA, NOT_IN_PANDA, WATCHED, StepKind, StepStatus, TaskStatus
from prodsys_core.models import AttemptEnd, LastLook, PandaAttempt, Step
from prodsys_core.ports import Description, Failure, JobSink
from prodsys_core.services.isolation import apart
from prodsys_core.services.moves import Mover, move, note
from prodsys_core.services.rows import db_time, insert_rows
from prodsys_core.verdicts import Ended, Expected, Held, Seen, judge_description, judge_status

log = logging.getLogger(__name__)

CANCEL_ASKED = "cancel-asked"
TAKE_BACK_ASKED = "take-back-asked"
Followed = Any
"""An open attempt: a row of these columns."""
COLUMNS = "pk panda_id step_id step__task_id step__task__status step__status step__reason"
EXPECTED = (
    "step__kind job_name number step__job__n_events step__charged step__uncharged step__task__max_attempts"
)
_expected = attrgetter(*EXPECTED.split())
"""In the order of Expected."""


def jobs_follow(config: Config, sink: JobSink, mover: Mover) -> int:
    """Ask PanDA about every open attempt when the last look is old enough; returns how many attempts ended."""
    last = LastLook.objects.filter(name="status").first()
    if last is not None and mover.now - last.at < timedelta(seconds=config.panda.status_every_s):
        return 0
    rows = PandaAttempt.objects.filter(end=None, step__task__status__in=WATCHED).exclude(panda_id=None)
    found = rows.values_list(*COLUMNS.split(), *EXPECTED.split(), named=True)
    followed = {row.panda_id: row for row in found.iterator(chunk_size=2000)}
    if not followed:
        return 0
    statuses = sink.statuses(sorted(followed))
    if isinstance(statuses, Failure):
        log.warning("no status of %d jobs: PanDA is %s", len(followed), statuses)
        return 0
    words = tables.panda_words()
    judged = {panda_id: judge_status(status, words) for panda_id, status in statuses.items()}
    waiting = {item.step__task_id for item in followed.values() if item.step__task__status == TaskStatus.SEND}
    running = [followed[panda_id] for panda_id, verdict in judged.items() if verdict == Seen(running=True)]
    _store_running(running, waiting, mover)
    asked = [followed[panda_id] for panda_id, verdict in judged.items() if isinstance(verdict, Held)]
    ended = 0

    def cannot_store(item: Followed, why: str) -> None:
        note("step", [item.step_id], item.step__status, "cannot-store", why)

    for part in in_chunks(asked, config.panda.record_chunk):
        records = sink.descriptions([item.panda_id for item in part])
        if isinstance(records, Failure):
            log.warning("no records of %d jobs: PanDA is %s", len(part), records)
            break
        ended += sum(apart(part, partial(_store_records, config, mover, records, waiting), cannot_store))
    if not LastLook.objects.filter(name="status").update(at=mover.now):
        LastLook.objects.create(name="status", at=mover.now)
    return ended


def _store_running(running: Iterable[Followed], waiting: set[int], mover: Mover) -> None:
    new = [item for item in running if item.step__status == StepStatus.SENT]
    if new:
        move(mover, "step", [item.step_id for item in new], StepStatus.SENT, StepStatus.RUNNING)
        _tasks_running(new, waiting, mover)


def _tasks_running(items: Iterable[Followed], waiting: set[int], mover: Mover) -> None:
    """send -> running: PanDA has reported one of the task's jobs running (or finished, which it did running).
    `waiting`: tasks that have not been moved yet."""
    tasks = waiting & {item.step__task_id for item in items}
    if tasks:
        move(mover, "task", sorted(tasks), TaskStatus.SEND, TaskStatus.RUNNING, reason="job-running")
        waiting -= tasks


def _store_records(
    config: Config,
    mover: Mover,
    records: Mapping[int, Description],
    all_waiting: set[int],
    part: Sequence[Followed],
) -> int:
    """Judge and store one chunk of full records. All of it is stored, and `all_waiting` changed, or nothing."""
    waiting = set(all_waiting)
    ends: list[tuple[Followed, Description, Ended]] = []
    running: list[Followed] = []
    held: dict[str, dict[int, str]] = {}
    for item in part:
        record = records.get(item.panda_id)
        expected = Expected(*_expected(item))
        verdict = judge_description(expected, record, tables.codes(), tables.panda_words(), config.retry)
        match verdict:
            case Ended() if record is not None:
                ends.append((item, record, _of_unwanted(item, record, verdict)))
            case Seen(running=True):
                running.append(item)
            case Held(reason, text) if item.step__reason not in (reason, CANCEL_ASKED, TAKE_BACK_ASKED):
                held.setdefault(reason, {})[item.step_id] = text
    _store_running(running, waiting, mover)
    for reason, texts in held.items():
        for status in IN_PANDA:
            note("step", list(texts), status, reason, texts)
    if ends:
        _store_ends(ends, waiting, mover)
    all_waiting &= waiting
    return len(ends)


def _of_unwanted(item: Followed, record: Description, verdict: Ended) -> Ended:
    """The task was cancelled meanwhile: nothing is tried again, only success keeps its status. Taken back from a
    closed site: it waits again, and costs nothing."""
    if item.step__reason == TAKE_BACK_ASKED and record.status in ("cancelled", "closed"):
        status = lifecycle.waiting_status(item.step__kind)
        return Ended(status, "none", "taken-back", "its site was closed before it ran")
    if item.step__task__status != TaskStatus.CANCELLED or verdict.status == StepStatus.FINISHED:
        return verdict
    return Ended(StepStatus.CANCELLED, verdict.charge, verdict.reason, verdict.text)


def _store_ends(ends: Sequence[tuple[Followed, Description, Ended]], waiting: set[int], mover: Mover) -> None:
    """Ends and the statuses that follow, all or none. A step that was moved meanwhile keeps its status."""
    groups: dict[tuple[StepStatus, bool, str, float | None], dict[int, str]] = {}
    for item, _, verdict in ends:
        key = (verdict.status, verdict.charged, verdict.reason, verdict.retry_in_s)
        groups.setdefault(key, {})[item.step_id] = verdict.text
    rows = [_end_row(item, record, verdict, mover) for item, record, verdict in ends]
    insert_rows(AttemptEnd, END_COLUMNS, rows, OnConflict.IGNORE)  # one that has an end keeps it
    for (status, charged, reason, retry_in_s), texts in groups.items():
        next_try_at = None if retry_in_s is None else mover.now + timedelta(seconds=retry_in_s)
        counter = "charged" if charged else "uncharged"
        taken_back = reason == "taken-back"
        columns = {"reason": reason, "message": texts, "next_try_at": next_try_at}
        columns |= {} if taken_back else {counter: F(counter) + 1}
        left = set(texts)
        for old in IN_PANDA[:1] if taken_back else IN_PANDA:
            left -= set(move(mover, "step", sorted(left), old, status, **columns))
    _tasks_running([item for item, record, _ in ends if record.status == "finished"], waiting, mover)
    for item, _, verdict in ends:
        if verdict.status != StepStatus.FINISHED:
            wait_s = verdict.retry_in_s
            again = "no further attempt" if wait_s is None else f"again in {wait_s:g} s"
            again = "it waits again" if verdict.reason == "taken-back" else again
            why = f"{verdict.status}, {verdict.charge}, {verdict.reason}: {verdict.text} {verdict.diag}"
            log.warning("%s (PanDA %d): %s, %s", item.job_name, item.panda_id, why, again)


END_COLUMNS = "attempt_id status reason message charge n_read n_written node files ended_at"


def _end_row(item: Followed, record: Description, verdict: Ended, mover: Mover) -> tuple[Any, ...]:
    """Values in the order of END_COLUMNS."""
    finished = verdict.status == StepStatus.FINISHED
    files = {file.lfn: [file.size, file.adler32] for file in record.files if file.kind in ("output", "log")}
    return (
        item.pk,
        record.status,
        verdict.reason,
        f"{verdict.text} {verdict.diag}".strip(),
        verdict.charge,
        record.n_events if item.step__kind == StepKind.RECONSTRUCT else None,
        record.n_written,
        record.node,
        json.dumps(files) if finished else "{}",
        db_time(mover.now),
    )


def jobs_cancel(config: Config, sink: JobSink, mover: Mover) -> int:
    """Work of cancelled tasks: what is not in PanDA is cancelled now, what is there is asked to end, once; so are jobs
    of steps that a manager has cancelled, and those that wait at a site that is offline.

    Their steps follow when PanDA's record says that the job is over. Returns the requests made.
    """
    for old in NOT_IN_PANDA:
        ids = Step.objects.filter(task__status=TaskStatus.CANCELLED, status=old).values_list("pk", flat=True)
        move(mover, "step", list(ids), old, StepStatus.CANCELLED, reason="task-cancelled")
    unwanted = Q(step__task__status=TaskStatus.CANCELLED, step__status__in=IN_PANDA)
    unwanted |= Q(step__status=StepStatus.CANCELLED)
    offline = [site.name for site in config.sites if site.status_at(mover.now) == "offline"]
    waiting = Q(step__run__site__in=offline, step__status=StepStatus.SENT) & ~unwanted
    return _ask_to_end(sink, unwanted, CANCEL_ASKED) + _ask_to_end(sink, waiting, TAKE_BACK_ASKED)


def _ask_to_end(sink: JobSink, which: Q, reason: str) -> int:
    attempts = PandaAttempt.objects.filter(which, end=None).exclude(panda_id=None)
    asked = dict(attempts.exclude(step__reason=reason).values_list("panda_id", "step_id"))
    if not asked:
        return 0
    answer = sink.cancel(sorted(asked))
    if isinstance(answer, Failure):
        log.warning("%d jobs that are not wanted not ended yet: PanDA is %s", len(asked), answer)
        return 0
    for status in (*IN_PANDA, StepStatus.CANCELLED):
        note("step", [asked[panda_id] for panda_id in answer], status, reason)
    return len(answer)
