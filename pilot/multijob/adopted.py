"""What an adoption does to the state: the part of `apply` about bundles that a journal had forgotten, and its jobs."""

from __future__ import annotations

from pilot.multijob.events import AdoptedJob, BundleAdopted
from pilot.multijob.keptjob import short_work
from pilot.multijob.model import (
    Bundle,
    BundleState,
    JobRecord,
    JobState,
    QueueTotals,
    Round,
    RoundState,
    State,
    add_job,
    drop_job,
    keep_small,
    move_job,
)
from pilot.multijob.taskrecord import known_task
from pilot.ports import PandaId


def adopt(state: State, event: BundleAdopted) -> None:
    """The bundle as its manifest has it; each of its jobs goes to the bundle that had it last."""
    bundle = Bundle(event.bundle_id, event.queue, event.at, event.nodes, event.walltime_s, BundleState.OPEN)
    bundle.adopted, bundle.weak = True, event.weak
    for number in range(1, event.rounds + 1):
        void = number < event.rounds
        round_state = RoundState.VOID if void else RoundState.INTENDED
        bundle.rounds[number] = Round(number, round_state, event.at, pilot_owns=void)
    state.bundles[event.bundle_id] = bundle
    totals = state.totals.setdefault(event.queue, QueueTotals())
    totals.bundles += 1
    index_of = {panda_id: index for index, node in enumerate(event.nodes) for panda_id in node}
    for item in event.jobs:
        panda_id = item.job.panda_id
        record = state.jobs.get(panda_id)
        if record is None:
            task = known_task(state, item.task, event.queue)
            work = short_work(item.work)
            record = JobRecord(item.job, event.queue, event.at, work=work, task=task)
            add_job(state, record)
            remember(state, panda_id, work)
            totals.fetched += 1
        elif not _is_later(state, record, item):
            continue
        state.pools.get(record.queue, {}).pop(panda_id, None)
        state.bound.pop(panda_id, None)
        move_job(state, record, JobState.BUNDLED)
        record.bundle_id, record.node_index = event.bundle_id, index_of[panda_id]
        keep_small(state, record)
        record.turns, record.orphaned = item.turn, record.orphaned or item.orphaned


def _is_later(state: State, record: JobRecord, item: AdoptedJob) -> bool:
    """Whether the bundle that was found had this job after everything that the journal tells of it."""
    if record.state in (JobState.POOLED, JobState.BOUND):
        return item.turn >= record.turns
    if record.state is JobState.BUNDLED and item.turn == record.turns and record.bundle_id in state.bundles:
        # Two bundles had it in the same turn, so two copies of the journal were in use: it never goes back from here.
        state.bundles[record.bundle_id].recalled.add(item.job.panda_id)
    return record.state is JobState.BUNDLED and item.turn > record.turns


def remember(state: State, panda_id: PandaId, work: bytes | None) -> None:
    """The first one that may deliver this work; another one only once that is forgotten."""
    if work is not None and state.works.get(work) in (None, panda_id):
        state.works[work] = panda_id


def forget(state: State, panda_id: PandaId) -> None:
    """Nothing of this job stays, wherever it is."""
    record = drop_job(state, panda_id)
    state.pools.get(record.queue, {}).pop(panda_id, None)
    state.bound.pop(panda_id, None)
    if record.bundle_id in state.bundles:
        state.bundles[record.bundle_id].recalled.discard(panda_id)
    if record.work is not None and state.works.get(record.work) == panda_id:
        del state.works[record.work]
