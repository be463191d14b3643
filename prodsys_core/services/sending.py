"""Sending steps to PanDA, and finding them again when the answer was lost.

A batch and its attempts are committed before the call. No answer means unknown: the server's list for the batch
number is read until it has not changed for `settle_s`; what is in it is adopted by name, the rest is taken back and
sent in a new batch under new names.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta

from django.db import transaction
from django.db.models import Count, Exists, F, Max, OuterRef, Q

from prodsys_core.chunks import in_chunks
from prodsys_core.config import Config, Site
from prodsys_core.lifecycle import (
    CHUNK_DONE,
    IN_PANDA,
    PANDA_KINDS,
    SENDING,
    RunStatus,
    StepKind,
    StepStatus,
    waiting_status,
)
from prodsys_core.models import AttemptEnd, PandaAttempt, Run, SendBatch, Step
from prodsys_core.plan import (
    BatchPlan,
    Homeless,
    Listed,
    QueueUse,
    Sendable,
    adopt,
    has_stragglers,
    place_runs,
    plan_batches,
    settle,
)
from prodsys_core.ports import Broken, JobSink, PandaJob, Refused, Submitted, Unavailable, describe
from prodsys_core.services.jobs import Prepared, input_list, panda_queue, prepare, priority
from prodsys_core.services.moves import Mover, move, move_each, note
from prodsys_core.storage import OutsideRoot, SiteFilesystem

log = logging.getLogger(__name__)

REFUSED_WAIT_S = 300.0
"""A refused batch (no role, wrong argument) needs a person; asking more often only makes names."""
PREPARE_WAIT_S = 60.0
"""A step whose job cannot be made up (site unwritable, no command) is looked at again after this."""

DELIVERED = ~Q(job__undelivered__gt="")
"""Steps whose raw file no delivery list holds back."""


class NumbersUsedUp(Exception):
    """The reserved range of batch numbers has no free number left."""


def steps_stage(mover: Mover) -> int:
    """defined -> staged: raw files of these sites were delivered by hand."""
    steps = Step.objects.filter(DELIVERED, status=StepStatus.DEFINED, task__status__in=SENDING)
    ids = list(steps.values_list("pk", flat=True))
    return len(move(mover, "step", ids, StepStatus.DEFINED, StepStatus.STAGED)) if ids else 0


def steps_send(config: Config, sink: JobSink, mover: Mover) -> int:
    """Send everything that is due; returns how many jobs PanDA has taken."""
    plans = _plan(config, mover)
    if not plans:
        return 0
    alive = sink.alive()
    if alive is not True:
        log.warning("nothing sent: PanDA is %s", describe(alive) if alive is not False else "not alive")
        return 0
    sent = 0
    for site, plan in plans:
        _write_lists(site, plan, mover)
        committed = _commit(config, site, plan, mover)
        if committed is None:
            continue
        batch, jobs = committed
        answer = sink.submit(jobs)
        sent += _record_answer(batch, answer, mover)
        if isinstance(answer, Unavailable | Broken):
            break
    return sent


def _plan(config: Config, mover: Mover) -> list[tuple[Site, BatchPlan]]:
    due = Step.objects.filter(_due(mover), kind__in=PANDA_KINDS, task__status__in=SENDING)
    steps = list(due.select_related("task", "run", "job"))
    if not steps:
        return []
    room = {
        queue: use.room(config.panda.active_max, config.panda.waiting_min)
        for queue, use in _queue_uses(config, mover).items()
    }
    homes = _homes(config, steps, room, mover)
    plans = []
    for site in config.sites:
        rows = [
            step
            for step in steps
            if homes.get(step.run_id) == site.name and site.takes(step.task.type, mover.now)
        ]
        last = _runs_with_stragglers({step.run_id for step in rows})
        sendable = (
            Sendable(
                step.pk,
                panda_queue(site, step.kind),
                priority(step),
                step.job.n_events if step.job else None,
                step.run_id in last,
            )
            for step in rows
        )
        plans += [(site, plan) for plan in plan_batches(sendable, room, config.panda.submit_chunk)]
    return plans


def _homes(config: Config, steps: Iterable[Step], room: Mapping[str, int], mover: Mover) -> dict[int, str]:
    """Sites of the steps' runs. A run is bound to its site with its first attempt; until then it is placed anew."""
    homes, left = {}, Counter(room)
    homeless: dict[int, list[Step]] = {}
    for step in steps:
        site = config.site(step.run.site)
        if not step.run.site:
            homeless.setdefault(step.run_id, []).append(step)
        elif site is not None:
            homes[step.run_id] = site.name
            left[panda_queue(site, step.kind)] -= 1
    runs = []
    for run_id, (step, *others) in sorted(homeless.items(), key=lambda one: (-priority(one[1][0]), one[0])):
        sites = config.open_sites(step.task.site_names, step.task.type, mover.now)
        choices = tuple((site.name, panda_queue(site, step.kind)) for site in sites)
        runs.append(Homeless(run_id, 1 + len(others), choices))
    return homes | place_runs(runs, left)


def runs_release(config: Config, mover: Mover) -> int:
    """Runs at a site that takes nothing now, of which no job has run and none is in PanDA, may go to another one."""
    closed = [site.name for site in config.sites if site.status_at(mover.now) in ("drain", "offline")]
    bound = PandaAttempt.objects.filter(step__run=OuterRef("pk")).exclude(end__charge="none")
    return Run.objects.filter(~Exists(bound), site__in=closed, status=RunStatus.OPEN).update(site="")


def _runs_with_stragglers(wanted: set[int]) -> set[int]:
    found: set[int] = set()
    for part in in_chunks(sorted(wanted)):
        chunks = Step.objects.filter(run__in=part, kind=StepKind.RECONSTRUCT).values("run_id").order_by()
        done = Count("pk", filter=Q(status__in=sorted(CHUNK_DONE)))
        rows = chunks.annotate(n=Count("pk"), done=done)
        found.update(row["run_id"] for row in rows if has_stragglers(row["n"], row["n"] - row["done"]))
    return found


def _due(mover: Mover) -> Q:
    """Steps that may be sent now; a failed one only when its back-off is over, never without one."""
    over = Q(next_try_at__lte=mover.now)
    waiting = Q(status__in=(StepStatus.STAGED, StepStatus.READY)) & (over | Q(next_try_at=None))
    return DELIVERED & (waiting | (Q(status=StepStatus.FAILED) & over))


def _queue_uses(config: Config, mover: Mover) -> dict[str, QueueUse]:
    counts = {
        queue: Counter[str]() for site in config.sites for queue in (site.panda_queue, site.merge_queue)
    }
    steps = Step.objects.filter(status__in=IN_PANDA, kind__in=PANDA_KINDS)
    rows = steps.values_list("batch__panda_queue", "status")
    for queue, status, n in rows.annotate(n=Count("pk")).order_by():
        counts.setdefault(queue, Counter())[status] += n
    since = mover.now - timedelta(days=config.panda.queue_days)
    ends = AttemptEnd.objects.filter(ended_at__gte=since, status="finished")
    for queue, n in ends.values_list("attempt__batch__panda_queue").annotate(n=Count("pk")).order_by():
        counts.setdefault(queue, Counter())["ended"] += n
    return {
        queue: QueueUse(found[StepStatus.SENT], found[StepStatus.RUNNING], found["ended"])
        for queue, found in counts.items()
    }


def _commit(
    config: Config, site: Site, plan: BatchPlan, mover: Mover
) -> tuple[SendBatch, Sequence[PandaJob]] | None:
    """Batch, attempts and the steps' status `sent`, in one transaction, before the call. None: nothing was left."""
    with transaction.atomic():
        batch = SendBatch.objects.create(
            number=_next_number(config),
            site=site.name,
            panda_queue=plan.panda_queue,
            status="made",
            n_jobs=0,
            made_at=mover.now,
        )
        here = Q(run__site__in=("", site.name))  # no other site has taken the run meanwhile
        due = Step.objects.filter(_due(mover), here, pk__in=plan.step_ids).only("pk", "status")
        columns = {"batch": batch, "attempt": F("attempt") + 1, "next_try_at": None}
        move_each(mover, "step", due, lambda _: StepStatus.SENT, **columns)
        rows = Step.objects.filter(batch=batch).select_related("task", "run", "job__task", "group")
        order = {step_id: place for place, step_id in enumerate(plan.step_ids)}
        steps = sorted(rows, key=lambda step: order[step.pk])
        prepared = _prepare_all(config, site, steps, batch, mover)
        PandaAttempt.objects.bulk_create(
            PandaAttempt(
                step_id=item.step_id,
                number=item.job.attempt_nr,
                job_name=item.job.job_name,
                batch=batch,
                made_at=mover.now,
            )
            for item in prepared
        )
        made = {item.step_id for item in prepared}
        runs = {step.run_id for step in steps if step.pk in made and not step.run.site}
        Run.objects.filter(pk__in=runs, site="").update(site=site.name)
        batch.n_jobs = len(prepared)
        if not prepared:
            batch.delete()
            return None
        batch.save(update_fields=["n_jobs"])
    return batch, [item.job for item in prepared]


def _write_lists(site: Site, plan: BatchPlan, mover: Mover) -> None:
    """Input lists of the plan's merge steps; one that cannot be written puts its step off."""
    files = SiteFilesystem(site.files.root)
    steps = Step.objects.filter(pk__in=plan.step_ids).exclude(group=None).select_related("task", "group")
    for step in steps:
        inputs = input_list(site, step)
        try:
            written = files.write_text(inputs.path, inputs.text)
        except OutsideRoot as error:
            written = Unavailable(str(error))
        if isinstance(written, Unavailable):
            log.warning("input list of %s cannot be written: %s", step.work, written.reason)
            wait = mover.now + timedelta(seconds=PREPARE_WAIT_S)
            note("step", [step.pk], step.status, "no-input-list", written.reason, next_try_at=wait)


def _next_number(config: Config) -> int:
    numbers = config.panda.batch_numbers
    ours = SendBatch.objects.filter(number__range=(numbers.first, numbers.last))
    used = ours.aggregate(n=Max("number"))["n"]
    number = numbers.first if used is None else used + 1
    if number > numbers.last:
        raise NumbersUsedUp(f"panda.batch_numbers: {numbers.first} to {numbers.last} are used up")
    return number


def _prepare_all(
    config: Config, site: Site, steps: Iterable[Step], batch: SendBatch, mover: Mover
) -> list[Prepared]:
    """Attempts of all steps; a step whose job cannot be made up holds only itself."""
    prepared = []
    for step in steps:
        try:
            prepared.append(prepare(config, site, step, batch.number, step.attempt))
            continue
        except (KeyError, ValueError) as error:
            problem = f"{type(error).__name__}: {error}"
        log.warning("step %s cannot be sent: %s", step.work, problem)
        wait = mover.now + timedelta(seconds=PREPARE_WAIT_S)
        back = {"attempt": F("attempt") - 1, "batch": None, "next_try_at": wait}
        status = waiting_status(step.kind)
        move(mover, "step", [step.pk], StepStatus.SENT, status, reason="cannot-send", message=problem, **back)
    return prepared


def _record_answer(
    batch: SendBatch, answer: tuple[Submitted, ...] | Unavailable | Refused | Broken, mover: Mover
) -> int:
    """Store what the server said about a batch; returns the number of jobs taken."""
    open_attempts = {attempt.job_name: attempt for attempt in _open(batch)}
    match answer:
        case Refused(reason):
            log.error("batch %d refused by PanDA: %s", batch.number, reason)
            take_back(open_attempts.values(), "refused", reason, mover, wait_s=REFUSED_WAIT_S)
            _close(batch, "refused", reason)
            return 0
        case Unavailable(reason, reached=False):
            take_back(open_attempts.values(), "not-reached", reason, mover)
            _close(batch, "void", reason)
            return 0
        case Unavailable() | Broken():
            log.warning("batch %d: answer lost (%s); looking for its jobs", batch.number, describe(answer))
            _close(batch, "unknown", describe(answer))
            return 0
    ids = {item.job_name: item.panda_id for item in answer if item.job_name in open_attempts}
    found = {name: panda_id for name, panda_id in ids.items() if panda_id is not None}
    store_ids(open_attempts, found)
    denied = [open_attempts[name] for name in ids.keys() - found.keys()]
    take_back(denied, "not-stored", "PanDA says that it has not stored this job", mover)
    missing = len(open_attempts.keys() - ids.keys())
    if missing:
        _close(batch, "unknown", f"answer names {len(ids)} of {len(open_attempts)} jobs")
    else:
        _close(batch, "answered", "")
    text = "batch %d: %d jobs sent to %s, %d without an answer"
    log.info(text, batch.number, len(found), batch.panda_queue, missing)
    return len(found)


def batches_settle(config: Config, sink: JobSink, mover: Mover) -> int:
    """Look for the jobs of batches without a complete answer; returns the number of jobs found.

    A batch that is still `made` was committed by a tick that ended before its answer: the same case.
    """
    found = 0
    for batch in SendBatch.objects.filter(status__in=("made", "unknown")).order_by("number"):
        found += _settle(config, sink, batch, mover)
    return found


def _settle(config: Config, sink: JobSink, batch: SendBatch, mover: Mover) -> int:
    ids = sink.job_ids(batch.number)
    records = sink.descriptions(ids) if isinstance(ids, tuple) else ids
    if isinstance(records, Unavailable | Refused | Broken):
        _close(batch, "unknown", describe(records))
        return 0
    open_attempts = {attempt.job_name: attempt for attempt in _open(batch)}
    adoption = adopt(open_attempts, ((record.panda_id, record.job_name) for record in records.values()))
    store_ids(open_attempts, adoption.found)
    if adoption.doubles:
        log.error("batch %d: ending jobs that PanDA stored twice: %s", batch.number, adoption.doubles)
        sink.cancel(adoption.doubles)
    missing = [attempt for name, attempt in open_attempts.items() if name not in adoption.found]
    if not missing:
        _close(batch, "settled", "")
        return len(adoption.found)
    before = Listed(batch.listed_digest, batch.listed_since) if batch.listed_since else None
    verdict = settle(before, ids, len(records), mover.now, config.panda.settle_s)
    batch.listed_digest, batch.listed_since = verdict.listed.digest, verdict.listed.since
    batch.save(update_fields=["listed_digest", "listed_since"])
    if verdict.settled:
        log.warning("batch %d: %d jobs were never stored; sent again", batch.number, len(missing))
        take_back(missing, "not-stored", "not in PanDA's settled list of the batch", mover)
        _close(batch, "settled", f"{len(missing)} jobs were never stored")
    return len(adoption.found)


def _open(batch: SendBatch) -> list[PandaAttempt]:
    return list(PandaAttempt.objects.filter(batch=batch, panda_id=None, end=None).select_related("step"))


def store_ids(attempts: dict[str, PandaAttempt], found: dict[str, int]) -> None:
    """Give attempts their PanDA ids, by job name."""
    known = PandaAttempt.objects.filter(panda_id__in=found.values()).values_list("panda_id", flat=True)
    clashes = set(known)
    if clashes:
        log.error("PanDA gave ids that earlier attempts have: %s", sorted(clashes)[:20])
    chosen = [attempts[name] for name, panda_id in found.items() if panda_id not in clashes]
    if not chosen:
        return
    steps = []
    for attempt in chosen:
        attempt.panda_id = attempt.step.panda_id = found[attempt.job_name]
        steps.append(attempt.step)
    with transaction.atomic():
        PandaAttempt.objects.bulk_update(chosen, ["panda_id"], batch_size=300)
        Step.objects.bulk_update(steps, ["panda_id"], batch_size=300)


def take_back(
    attempts: Iterable[PandaAttempt], reason: str, message: str, mover: Mover, wait_s: float = 0.0
) -> None:
    """End attempts that PanDA certainly does not have; their steps wait again, nothing is charged."""
    chosen = list(attempts)
    if not chosen:
        return
    until = mover.now + timedelta(seconds=wait_s) if wait_s else None
    by_status: dict[str, list[int]] = {}
    for attempt in chosen:
        by_status.setdefault(waiting_status(attempt.step.kind), []).append(attempt.step_id)
    with transaction.atomic():
        AttemptEnd.objects.bulk_create(
            AttemptEnd(
                attempt=attempt,
                status="not sent",
                reason=reason,
                message=message[:500],
                charge="none",
                ended_at=mover.now,
            )
            for attempt in chosen
        )
        for status, ids in by_status.items():
            columns = {"next_try_at": until, "batch": None}
            move(mover, "step", ids, StepStatus.SENT, status, reason=reason, message=message, **columns)


def _close(batch: SendBatch, status: str, message: str) -> None:
    SendBatch.objects.filter(pk=batch.pk).update(status=status, message=message[:500])
