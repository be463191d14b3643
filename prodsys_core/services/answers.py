"""Submitting committed batches, storing what PanDA answered, and finding jobs again when the answer was lost.

No answer means unknown: the server's list for the batch number is read until it has not changed for `settle_s`; what
is in it is adopted by name, the rest is taken back and sent in a new batch under new names.
"""

import logging
from collections import deque
from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import partial

from django.db import transaction
from django.db.models import Case, Exists, OuterRef, Subquery, Value, When
from django.db.models.functions import Coalesce

from prodsys_core.config import Config
from prodsys_core.lifecycle import StepStatus, waiting_status
from prodsys_core.models import MESSAGE_LENGTH, AttemptEnd, PandaAttempt, SendBatch, Step
from prodsys_core.plan import Listed, adopt, settle
from prodsys_core.ports import Failure, JobSink, PandaJob, Refused, Unavailable
from prodsys_core.services.isolation import alone
from prodsys_core.services.moves import Mover, move
from prodsys_core.services.rows import db_time, insert_rows

log = logging.getLogger(__name__)

Attempts = Sequence[PandaAttempt]
REFUSED_WAIT_S = 300.0
"""A refused batch (no role, wrong argument) needs a person; asking more often only makes names."""


def batches_submit(
    sink: JobSink, made: Sequence[tuple[SendBatch, Sequence[PandaJob]]], mover: Mover
) -> tuple[int, bool]:
    """Submit batches that are committed; the ids of each are stored before the next call. Returns how many jobs PanDA
    has taken, and whether it went on answering: if not, the batches that were left are taken back."""
    taken, complete, left = 0, [], deque(made)
    lost = False
    while left and not lost:
        batch, jobs = left.popleft()
        mover.hold()
        answer = sink.submit(jobs)
        if not isinstance(answer, Failure):
            n, whole = _store_answer(batch, jobs, answer, mover)
            taken += n
            complete += [batch] if whole else []
        else:
            _store_failure(batch, answer, mover)
            lost = not isinstance(answer, Refused)
    if left:
        uncalled = [batch for batch, _ in left]
        take_back(_open(uncalled), "not-called", "PanDA did not answer the call before", mover)
        _close(uncalled, "void", "never called")
    _finish(complete, "answered")
    return taken, not lost


def _store_answer(
    batch: SendBatch, jobs: Sequence[PandaJob], answer: Mapping[str, int | None], mover: Mover
) -> tuple[int, bool]:
    """Ids first. Returns how many jobs were taken, and whether the answer says of every job what became of it."""
    names = {job.job_name for job in jobs}
    ids = {name: panda_id for name, panda_id in answer.items() if name in names}
    found = {name: panda_id for name, panda_id in ids.items() if panda_id is not None}
    _store_ids(batch, found, mover)
    denied = ids.keys() - found.keys()
    if denied:
        attempts = [attempt for attempt in _open([batch]) if attempt.job_name in denied]
        take_back(attempts, "not-stored", "PanDA says that it has not stored this job", mover)
    missing = len(names) - len(ids)
    if missing:
        _close([batch], "unknown", f"answer names {len(ids)} of {len(names)} jobs")
    text = "batch %d: %d jobs sent to %s, %d without an answer"
    log.info(text, batch.number, len(found), batch.panda_queue, missing)
    return len(found), not missing


def _store_failure(batch: SendBatch, answer: Failure, mover: Mover) -> None:
    match answer:
        case Refused(reason):
            log.error("batch %d refused by PanDA: %s", batch.number, reason)
            take_back(_open([batch]), "refused", reason, mover, wait_s=REFUSED_WAIT_S)
            _close([batch], "refused", reason)
        case Unavailable(reason, reached=False):
            take_back(_open([batch]), "not-reached", reason, mover)
            _close([batch], "void", reason)
        case _:
            log.warning("batch %d: answer lost (%s); looking for its jobs", batch.number, answer)
            _close([batch], "unknown", str(answer))


def batches_settle(config: Config, sink: JobSink, mover: Mover) -> int:
    """Look for the jobs of batches without a complete answer; returns the number of jobs found.

    A batch that is still `made` was committed by a tick that ended before its answer was all stored: the same case.
    """
    found, complete = 0, []
    batches = list(SendBatch.objects.filter(status__in=("made", "unknown")).order_by("number"))
    attempts: dict[int, dict[str, PandaAttempt]] = {batch.pk: {} for batch in batches}
    for attempt in _open(batches) if batches else ():
        attempts[attempt.batch_id][attempt.job_name] = attempt
    for batch in batches:
        with alone(partial(_close, [batch], "unknown")):
            n, settled = _settle(config, sink, batch, attempts[batch.pk], mover)
            found += n
            complete += [batch] if settled else []
    _finish(complete, "settled")
    return found


def _settle(
    config: Config, sink: JobSink, batch: SendBatch, open_attempts: Mapping[str, PandaAttempt], mover: Mover
) -> tuple[int, bool]:
    """How many jobs were found, and whether nothing of the batch is unknown any more."""
    if not open_attempts:
        return 0, True
    ids = sink.job_ids(batch.number)
    records = sink.descriptions(ids) if isinstance(ids, tuple) else ids
    if isinstance(records, Failure):
        _close([batch], "unknown", str(records))
        return 0, False
    found, doubles = adopt(open_attempts, ((record.panda_id, record.job_name) for record in records.values()))
    _store_ids(batch, found, mover)
    if doubles:
        log.error("batch %d: ending jobs that PanDA stored twice: %s", batch.number, doubles)
        sink.cancel(doubles)
    missing = [attempt for name, attempt in open_attempts.items() if name not in found]
    if not missing:
        return len(found), True
    before = Listed(batch.listed_digest, batch.listed_since) if batch.listed_since else None
    listed = settle(before, ids, len(records), mover.now, config.panda.settle_s)
    if listed is None:
        log.warning("batch %d: %d jobs were never stored; sent again", batch.number, len(missing))
        take_back(missing, "not-stored", "not in PanDA's settled list of the batch", mover)
    else:
        batch.listed_digest, batch.listed_since = listed.digest, listed.since
        batch.save(update_fields=["listed_digest", "listed_since"])
    return len(found), listed is None


def _open(batches: Sequence[SendBatch]) -> list[PandaAttempt]:
    """Attempts without an id and without an end."""
    attempts = PandaAttempt.objects.filter(batch__in=batches, panda_id=None, end=None)
    return list(attempts.select_related("step"))


def _store_ids(batch: SendBatch, found: Mapping[str, int], mover: Mover) -> None:
    """Give open attempts of a batch their PanDA ids, by job name, in one statement. One that is given the id of another
    attempt waits for a person."""
    known = PandaAttempt.objects.filter(panda_id__in=found.values()).values_list("panda_id", "job_name")
    owners = dict(known) if found else {}
    chosen = {name: panda_id for name, panda_id in found.items() if owners.setdefault(panda_id, name) == name}
    clashes = found.keys() - chosen.keys()
    if clashes:
        log.error("PanDA gave ids that other attempts have: %s", sorted(found[name] for name in clashes)[:20])
        for attempt in _open([batch]):
            if attempt.job_name in clashes:
                panda_id = found[attempt.job_name]
                text = f"PanDA gave it id {panda_id}, which {owners[panda_id]} has"
                take_back([attempt], "id-of-another", text, mover, held=True)
    if chosen:
        ended = AttemptEnd.objects.filter(attempt=OuterRef("pk"))
        attempts = PandaAttempt.objects.filter(~Exists(ended), batch=batch, panda_id=None)
        ids = (When(job_name=name, then=Value(panda_id)) for name, panda_id in chosen.items())
        attempts.filter(job_name__in=chosen).update(panda_id=Case(*ids))


def _finish(batches: Sequence[SendBatch], status: str) -> None:
    """Nothing of these batches is unknown any more: their steps know the ids, too."""
    if batches:
        of_batch = PandaAttempt.objects.filter(step=OuterRef("pk"), batch=OuterRef("batch"))
        ids = Coalesce(Subquery(of_batch.values("panda_id")), "panda_id")
        with transaction.atomic():
            Step.objects.filter(batch__in=batches).update(panda_id=ids)
            _close(batches, status, "")


def take_back(
    attempts: Attempts, reason: str, message: str, mover: Mover, wait_s: float = 0.0, held: bool = False
) -> None:
    """End attempts that PanDA certainly does not have; their steps wait again, nothing is charged. `held`: it may have
    them, a person must look."""
    until = mover.now + timedelta(seconds=wait_s) if wait_s else None
    by_status: dict[str, list[int]] = {}
    for attempt in attempts:
        status = StepStatus.MANUAL_CHECK if held else waiting_status(attempt.step.kind)
        by_status.setdefault(status, []).append(attempt.step_id)
    columns, at = "attempt_id status reason message charge node files ended_at", db_time(mover.now)
    end, charge = ("not known", "infrastructure") if held else ("not sent", "none")
    ends = [(a.pk, end, reason, message, charge, "", "{}", at) for a in attempts]
    with transaction.atomic():
        insert_rows(AttemptEnd, columns, ends)
        for status, ids in by_status.items():
            back = {"reason": reason, "message": message, "next_try_at": until, "batch": None}
            move(mover, "step", ids, StepStatus.SENT, status, **back)


def _close(batches: Sequence[SendBatch], status: str, message: str) -> None:
    pks = [batch.pk for batch in batches]
    SendBatch.objects.filter(pk__in=pks).update(status=status, message=message[:MESSAGE_LENGTH])
