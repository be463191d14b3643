"""Sending steps to PanDA: what is due is planned, and committed before it is submitted (`answers`).

Several batches are committed in one transaction, so that the number of statements does not follow that of jobs.
"""

import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from itertools import chain
from typing import Any

from django.db import transaction
from django.db.models import Case, Count, Exists, F, Max, OuterRef, Q, Value, When

from prodsys_core.chunks import in_chunks
from prodsys_core.config import Config, Site
from prodsys_core.lifecycle import IN_PANDA, PANDA_KINDS, SENDING, RunStatus, StepKind, StepStatus
from prodsys_core.models import AttemptEnd, MergeInput, PandaAttempt, Run, SendBatch, Step
from prodsys_core.plan import BatchPlan, Homeless, QueueUse, Sendable, place_runs, plan_batches
from prodsys_core.ports import JobSink, PandaJob, Unavailable
from prodsys_core.selectors import runs_with_stragglers
from prodsys_core.services.answers import batches_submit
from prodsys_core.services.isolation import EndsService, alone, apart, put_off
from prodsys_core.services.jobs import NO_SITE, input_list, merge_inputs, no_site, prepare, priority
from prodsys_core.services.moves import Mover, move, move_each, note
from prodsys_core.services.rows import db_time, insert_rows
from prodsys_core.storage import SiteFilesystem

log = logging.getLogger(__name__)

DELIVERED = ~Q(job__undelivered__gt="")
"""Steps whose raw file no delivery list holds back."""


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
        log.warning("nothing sent: PanDA is %s", alive if alive is not False else "not alive")
        return 0
    sent, numbers = 0, _numbers(config)
    for site, together, merges in plans:
        inputs = _write_lists(site, merges, mover) if merges else {}
        made = Commit(config, site, inputs, numbers, mover).apart(together)
        taken, answers = batches_submit(sink, made, mover)
        sent += taken
        if not answers:
            break
    return sent


def _plan(config: Config, mover: Mover) -> list[tuple[Site, Sequence[BatchPlan], list[int]]]:
    """Batches that are committed together, and the merge steps among them."""
    due = Step.objects.filter(_due(mover), kind__in=PANDA_KINDS, task__status__in=SENDING)
    columns = "pk kind run_id run__site task__type task__sites job__n_events status reason"
    steps = list(due.values_list(*columns.split(), named=True))
    if not steps:
        return []
    room = _queue_rooms(config, mover)
    homes = _homes(config, steps, room, mover)
    merges = {step.pk for step in steps if step.kind != StepKind.RECONSTRUCT}
    plans = []
    for site in config.sites:
        rows = [
            step
            for step in steps
            if homes.get(step.run_id) == site.name and site.takes(step.task__type, mover.now)
        ]
        last = runs_with_stragglers({step.run_id for step in rows})
        sendable = []
        for step in rows:
            queue, urgency = site.queue_for(step.kind), priority(step.kind, step.task__type)
            sendable.append(Sendable(step.pk, queue, urgency, step.job__n_events, step.run_id in last))
        batches = plan_batches(sendable, room, config.panda.submit_chunk)
        for together in in_chunks(batches, config.panda.commit_batches):
            ids = [pk for batch in together for pk in batch.step_ids if pk in merges]
            plans.append((site, together, ids))
    return plans


Problems = defaultdict[str, dict[int, str]]
"""Why steps cannot be sent, by status and step."""


def _homes(config: Config, steps: Iterable[Any], room: Mapping[str, int], mover: Mover) -> dict[int, str]:
    """Sites of the steps' runs. A run is bound to its site with its first attempt; until then it is placed anew."""
    homes, left = {}, Counter(room)
    homeless: dict[int, list[Any]] = {}
    lost, back = Problems(dict), Problems(dict)
    for step in steps:
        site = config.site(step.run__site)
        if not any(map(config.site, [step.run__site] if step.run__site else step.task__sites.split())):
            lost[step.status][step.pk] = no_site(step.run__site, step.task__sites)
            continue
        if step.reason == NO_SITE:
            back[step.status][step.pk] = ""
        if not step.run__site:
            homeless.setdefault(step.run_id, []).append(step)
        elif site is not None:
            homes[step.run_id] = site.name
            left[site.queue_for(step.kind)] -= 1
    _put_off(lost, NO_SITE, mover)
    for status, texts in back.items():
        note("step", list(texts), status, "")
    runs = []
    first = sorted(homeless.values(), key=lambda of: (-priority(of[0].kind, of[0].task__type), of[0].run_id))
    for step, *others in first:
        sites = config.open_sites(step.task__sites.split(), step.task__type, mover.now)
        choices = tuple((site.name, site.queue_for(step.kind)) for site in sites)
        runs.append(Homeless(step.run_id, 1 + len(others), choices))
    return homes | place_runs(runs, left)


def runs_release(config: Config, mover: Mover) -> int:
    """Runs at a site that takes nothing now, of which no job has run and none is in PanDA, may go to another one."""
    closed = [site.name for site in config.sites if site.status_at(mover.now) in ("drain", "offline")]
    bound = PandaAttempt.objects.filter(step__run=OuterRef("pk")).exclude(end__charge="none")
    return Run.objects.filter(~Exists(bound), site__in=closed, status=RunStatus.OPEN).update(site="")


def _due(mover: Mover) -> Q:
    """Steps that may be sent now; a failed one only when its back-off is over, never without one."""
    over = Q(next_try_at__lte=mover.now)
    waiting = Q(status__in=(StepStatus.STAGED, StepStatus.READY)) & (over | Q(next_try_at=None))
    return DELIVERED & (waiting | (Q(status=StepStatus.FAILED) & over))


def _queue_rooms(config: Config, mover: Mover) -> dict[str, int]:
    panda = config.panda
    uses = queue_uses(config, mover.now)
    return {queue: use.room(panda.active_max, panda.waiting_min) for queue, use in uses.items()}


def queue_uses(config: Config, now: datetime) -> dict[str, QueueUse]:
    """Our jobs in each PanDA queue of a site, and in others that have some."""
    queues = {queue for site in config.sites for queue in (site.panda_queue, site.merge_queue)}
    counts = {queue: Counter[str]() for queue in queues}
    steps = Step.objects.filter(status__in=IN_PANDA, kind__in=PANDA_KINDS)
    rows = steps.values_list("batch__panda_queue", "status")
    for queue, status, n in rows.annotate(n=Count("pk")).order_by():
        counts.setdefault(queue, Counter())[status] += n
    since = now - timedelta(days=config.panda.queue_days)
    ends = AttemptEnd.objects.filter(ended_at__gte=since, status="finished")
    for queue, n in ends.values_list("attempt__batch__panda_queue").annotate(n=Count("pk")).order_by():
        counts.setdefault(queue, Counter())["ended"] += n
    return {
        queue: QueueUse(found[StepStatus.SENT], found[StepStatus.RUNNING], found["ended"])
        for queue, found in counts.items()
    }


def _write_lists(site: Site, step_ids: Sequence[int], mover: Mover) -> dict[int, list[MergeInput]]:
    """Input lists of merge steps; one that cannot be written puts its step off. Returns the inputs by group."""
    files, failed = SiteFilesystem(site.files.root), Problems(dict)
    steps = Step.objects.filter(pk__in=step_ids).select_related("task", "group")
    inputs = merge_inputs(steps)
    for step in steps:
        hold = partial(failed[step.status].__setitem__, step.pk)
        with alone(hold, logging.WARNING):
            written = files.write_text(*input_list(site, step, inputs[step.group_id]))
            if isinstance(written, Unavailable):
                log.warning("input list of %s cannot be written: %s", step.work, written.reason)
                hold(written.reason)
    _put_off(failed, "no-input-list", mover)
    return inputs


def _put_off(problems: Problems, reason: str, mover: Mover) -> None:
    for status, texts in problems.items():
        put_off(mover, "step", list(texts), status, reason, texts)


def _numbers(config: Config) -> Iterator[int]:
    """Batch numbers that were never used."""
    numbers = config.panda.batch_numbers
    ours = SendBatch.objects.filter(number__range=(numbers.first, numbers.last))
    used = ours.aggregate(n=Max("number"))["n"]
    yield from range(numbers.first if used is None else used + 1, numbers.last + 1)
    raise EndsService(f"panda.batch_numbers: {numbers.first} to {numbers.last} are used up")


Made = list[tuple[SendBatch, list[PandaJob]]]


@dataclass(frozen=True, slots=True)
class Commit:
    """Commits batches to one site before they are submitted. `inputs`: of merges, by group."""

    config: Config
    site: Site
    inputs: Mapping[int, Sequence[MergeInput]]
    numbers: Iterator[int]
    mover: Mover

    def apart(self, plans: Sequence[BatchPlan]) -> Made:
        """All of the plans; a step that cannot be stored is put off alone."""

        def hold(pk: int, why: str) -> None:
            statuses = (StepStatus.STAGED, StepStatus.READY, StepStatus.FAILED)
            for status in statuses:
                put_off(self.mover, "step", [pk], status, "cannot-send", why)

        def split(plan: BatchPlan, why: str) -> None:
            parts = apart(plan.step_ids, lambda ids: self.together([replace(plan, step_ids=ids)]), hold)
            made.extend(chain(*parts))

        made: Made = []
        return [*chain(*apart(plans, self.together, split)), *made]

    def together(self, plans: Sequence[BatchPlan]) -> Made:
        """Batches, attempts and the steps' status `sent`, all or none. Nothing, when somebody has changed a step
        meanwhile: the next tick plans again. A step whose job cannot be made up holds only itself."""
        here = Q(run__site__in=("", self.site.name))  # no other site has taken the run meanwhile
        due = Step.objects.filter(_due(self.mover), here).select_related("task", "run", "job__task", "group")
        steps = due.in_bulk([pk for plan in plans for pk in plan.step_ids])
        failed, made = Problems(dict), []
        for plan in plans:
            number = next(self.numbers)
            jobs: dict[int, PandaJob] = {}
            for step in (steps[pk] for pk in plan.step_ids if pk in steps):
                with alone(partial(failed[step.status].__setitem__, step.pk), logging.WARNING):
                    inputs = self.inputs.get(step.group_id, ())
                    jobs[step.pk] = prepare(self.config, self.site, step, number, inputs)
            if jobs:
                columns = {"site": self.site.name, "panda_queue": plan.panda_queue, "n_jobs": len(jobs)}
                batch = SendBatch(number=number, status="made", made_at=self.mover.now, **columns)
                made.append((batch, jobs))
        _put_off(failed, "cannot-send", self.mover)
        if made and not self._store(steps, made):
            transaction.set_rollback(True)
            return []
        return [(batch, list(jobs.values())) for batch, jobs in made]

    def _store(
        self, steps: Mapping[int, Step], made: Sequence[tuple[SendBatch, Mapping[int, PandaJob]]]
    ) -> bool:
        """False if a step was not in the status any more that it was read with."""
        SendBatch.objects.bulk_create(batch for batch, _ in made)
        stored = SendBatch.objects.in_bulk([batch.number for batch, _ in made], field_name="number")
        for batch, _ in made:
            batch.pk = stored[batch.number].pk  # MariaDB returns none
        sent = [steps[pk] for _, jobs in made for pk in jobs]
        batches = (When(pk__in=list(jobs), then=Value(batch.pk)) for batch, jobs in made)
        columns = {"batch": Case(*batches), "attempt": F("attempt") + 1, "next_try_at": None}
        moved = move_each(self.mover, "step", sent, lambda _: StepStatus.SENT, **columns)
        at = db_time(self.mover.now)
        rows = [(pk, job.attempt_nr, job.job_name, b.pk, at) for b, jobs in made for pk, job in jobs.items()]
        insert_rows(PandaAttempt, "step_id number job_name batch_id made_at", rows)
        runs = {step.run_id for step in sent if not step.run.site}
        if runs:
            Run.objects.filter(pk__in=runs, site="").update(site=self.site.name)
        return moved == len(sent)
