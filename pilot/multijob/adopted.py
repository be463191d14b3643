"""What an adoption does to the state: the part of `apply` about bundles that a journal had forgotten, and its jobs."""

from __future__ import annotations

from pilot.multijob.events import AdoptedJob, BundleAdopted
from pilot.multijob.jobkeys import number_of
from pilot.multijob.keptjob import short_work
from pilot.multijob.knownjobs import add_job, drop_job, keep_small, key_of, move_job, name_server
from pilot.multijob.model import (
    Bundle,
    BundleState,
    JobRecord,
    JobState,
    QueueTotals,
    Round,
    RoundState,
    State,
)
from pilot.multijob.taskrecord import known_task
from pilot.ports import JobKey


def adopt(state: State, event: BundleAdopted) -> None:
    """The bundle as its manifest has it; each of its jobs goes to the bundle that had it last."""
    name_server(state, event.server)
    # Jobs that are known without their server's name are themselves, not others.
    servers = {item.job.panda_id: item.server for item in event.jobs}
    keys = tuple(
        tuple(key_of(state, servers.get(panda_id, event.server), panda_id) for panda_id in node)
        for node in event.nodes
    )
    bundle = Bundle(event.bundle_id, event.queue, event.at, keys, event.walltime_s, BundleState.OPEN)
    bundle.servers = tuple(sorted({number_of(key) for key in bundle.job_keys}))
    bundle.adopted, bundle.weak = True, event.weak
    for number in range(1, event.rounds + 1):
        void = number < event.rounds
        round_state = RoundState.VOID if void else RoundState.INTENDED
        bundle.rounds[number] = Round(number, round_state, event.at, pilot_owns=void)
    state.bundles[event.bundle_id] = bundle
    totals = state.totals.setdefault(event.queue, QueueTotals())
    totals.bundles += 1
    index_of = {key: index for index, node in enumerate(keys) for key in node}
    for item in event.jobs:
        server = name_server(state, item.server)
        key = key_of(state, server, item.job.panda_id)
        record = state.jobs.get(key)
        if record is None:
            task = known_task(state, item.task, event.queue)
            work = short_work(item.work)
            record = JobRecord.of(key, server, item.job, event.queue, event.at, work=work, task=task)
            add_job(state, record)
            remember(state, key, work)
            totals.fetched += 1
        elif not _is_later(state, record, item):
            continue
        state.pools.get(record.queue, {}).pop(key, None)
        state.bound.pop(key, None)
        move_job(state, record, JobState.BUNDLED)
        record.bundle_id, record.node_index = event.bundle_id, index_of[key]
        keep_small(state, record)
        record.turns = item.turn
        if item.orphaned:
            record.orders = record.orders._replace(orphaned=True)


def _is_later(state: State, record: JobRecord, item: AdoptedJob) -> bool:
    """Whether the bundle that was found had this job after everything that the journal tells of it."""
    if record.state in (JobState.POOLED, JobState.BOUND):
        return item.turn >= record.turns
    if record.state is JobState.BUNDLED and item.turn == record.turns and record.bundle_id in state.bundles:
        # Two bundles had it in the same turn, so two copies of the journal were in use: it never goes back from here.
        state.bundles[record.bundle_id].recalled.add(record.key)
    return record.state is JobState.BUNDLED and item.turn > record.turns


def remember(state: State, key: JobKey, work: bytes | None) -> None:
    """The first one that may deliver this work; another one only once that is forgotten."""
    if work is not None and state.works.get(work) in (None, key):
        state.works[work] = key


def forget(state: State, key: JobKey) -> None:
    """Nothing of this job stays, wherever it is."""
    record = drop_job(state, key)
    state.pools.get(record.queue, {}).pop(key, None)
    state.bound.pop(key, None)
    if record.bundle_id in state.bundles:
        state.bundles[record.bundle_id].recalled.discard(key)
    if record.work is not None and state.works.get(record.work) == key:
        del state.works[record.work]
