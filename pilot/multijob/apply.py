"""The one door into state: `apply(state, event) -> state`. Replay and running use the same function.

`apply` owns the state it is given: it changes it in place and returns it. An event that does not fit the state
raises `ImpossibleEvent` with the story: that is a bug or a damaged journal, never the world.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from sys import intern
from typing import assert_never

from pilot.multijob.adopted import adopt, forget, remember
from pilot.multijob.events import (
    BatchJobAccepted,
    BatchJobEnded,
    BundleAdopted,
    BundleCancelled,
    BundleClosed,
    BundlePlanned,
    BundlePrepared,
    BundleRetired,
    BundleSettled,
    ClaimSeen,
    DrainOrdered,
    Event,
    FinalAccepted,
    JobBound,
    JobFetched,
    JobFoundOver,
    JobGivenBack,
    JobJudged,
    JobKept,
    JobOrphaned,
    JobRecalled,
    JobReturned,
    JobStarted,
    JobUnbound,
    JournalConsumed,
    KillOrdered,
    NodeFailed,
    NodeJournalDamaged,
    PauseOrdered,
    QueueResumed,
    RoundIntended,
    RoundVoided,
    RoundWon,
    SubmitRefused,
    TaskResumed,
    TaskStopped,
)
from pilot.multijob.jobkeys import UNNAMED, number_of, panda_id_of
from pilot.multijob.keptjob import short_work
from pilot.multijob.knownjobs import add_job, keep_small, key_of, move_job, name_server, retire
from pilot.multijob.model import (
    Bundle,
    BundleState,
    JobRecord,
    JobState,
    Judgement,
    QueueHold,
    QueueTotals,
    Round,
    RoundState,
    State,
)
from pilot.multijob.nodehours import count_use
from pilot.multijob.sicknodes import note_failure
from pilot.multijob.taskrecord import begin_try, break_or_mend, known_task, learn
from pilot.ports import BundleId, JobKey, JobStatus, PandaId


class ImpossibleEvent(Exception):
    """An event that cannot follow from this state."""

    def __init__(self, event: Event, story: str) -> None:
        super().__init__(f"impossible event {event!r}: {story}")


def replay(events: Iterable[Event]) -> State:
    """The state after these events, from nothing."""
    state = State()
    for event in events:
        apply(state, event)
    return state


def apply(state: State, event: Event) -> State:
    """Change `state` by one event and return it."""
    match event:
        case (
            JobFetched()
            | JobStarted()
            | JobJudged()
            | JobReturned()
            | KillOrdered()
            | JobOrphaned()
            | JobKept()
            | JobBound()
            | JobUnbound()
            | JobRecalled()
            | JobFoundOver()
            | FinalAccepted()
        ):
            _apply_job(state, event)
        case BundlePlanned():
            _plan(state, event)
        case BundleAdopted():
            _expect(event, event.bundle_id not in state.bundles, "bundle exists")
            adopt(state, event)
        case BundleRetired():
            _expect(event, state.bundles[event.bundle_id].state is BundleState.SETTLED, "not settled")
            retire(state, state.bundles[event.bundle_id])
            # Its own jobs, and those that followed one of them.
            kept = [i for i, r in state.jobs.items() if r.kept and r.bundle_id == event.bundle_id]
            for key in kept:
                forget(state, key)
        case (
            RoundIntended()
            | BatchJobAccepted()
            | SubmitRefused()
            | ClaimSeen()
            | RoundWon()
            | RoundVoided()
            | BatchJobEnded()
        ):
            _apply_round(_bundle(state, event.bundle_id, event), event)
        case (
            BundlePrepared()
            | BundleCancelled()
            | BundleSettled()
            | JournalConsumed()
            | NodeJournalDamaged()
            | JobGivenBack()
        ):
            _apply_bundle(state, _bundle(state, event.bundle_id, event), event)
        case BundleClosed():
            _close(state, _bundle(state, event.bundle_id, event), event)
        case NodeFailed():
            note_failure(state, event)
        case PauseOrdered():
            state.holds[event.queue] = QueueHold(event.at, drains=False)
        case DrainOrdered():
            state.holds[event.queue] = QueueHold(event.at, True, event.cancel_queued, event.until)
        case QueueResumed():
            _expect(event, event.queue in state.holds, "neither paused nor drained")
            del state.holds[event.queue]
        case TaskStopped() | TaskResumed():
            _expect(event, event.task in state.tasks, "no such task")
            break_or_mend(state.tasks[event.task], event)
        case _:
            assert_never(event)
    return state


def _expect(event: Event, holds: bool, story: str) -> None:
    if not holds:
        raise ImpossibleEvent(event, story)


def _bundle(state: State, bundle_id: BundleId, event: Event) -> Bundle:
    bundle = state.bundles.get(bundle_id)
    if bundle is None:
        raise ImpossibleEvent(event, "no such bundle")
    return bundle


def _record_of(state: State, server: str, panda_id: PandaId, event: Event) -> JobRecord:
    record = state.jobs.get(key_of(state, server, panda_id))
    if record is None:
        raise ImpossibleEvent(event, "no such job")
    return record


def _totals(state: State, queue: str) -> QueueTotals:
    return state.totals.setdefault(queue, QueueTotals())


def _plan(state: State, event: BundlePlanned) -> None:
    _expect(event, event.bundle_id not in state.bundles, "bundle exists")
    pool = state.pools.get(event.queue, {})
    nodes = tuple(
        tuple(_pooled(state, pool, panda_id, event).key for panda_id in node) for node in event.nodes
    )
    bundle = Bundle(event.bundle_id, event.queue, event.at, nodes, event.walltime_s, weak=event.weak)
    bundle.servers = tuple(sorted({number_of(key) for key in bundle.job_keys}))
    for index, node in enumerate(nodes):
        for key in node:
            _expect(event, key in pool, f"job {panda_id_of(key)} stands twice in it")
            del pool[key]
            record = state.jobs[key]
            move_job(state, record, JobState.BUNDLED)
            record.bundle_id, record.node_index = event.bundle_id, index
            record.turns += 1
            keep_small(state, record)
    _go_along(state, frozenset(bundle.job_keys))
    state.bundles[event.bundle_id] = bundle
    if event.canary is not None:
        begin_try(state.tasks[event.canary], event.bundle_id)
    _totals(state, event.queue).bundles += 1
    for queue, credit in event.credits:
        state.deficits[queue] = round(state.deficits.get(queue, 0.0) + credit, 3)


def _pooled(state: State, pool: Collection[JobKey], panda_id: PandaId, event: BundlePlanned) -> JobRecord:
    """The job of the pool with this number: of the server named, else one without a server's name."""
    for server in (event.server, UNNAMED):
        key = key_of(state, server, panda_id)
        if key in pool:
            return state.jobs[key]
    raise ImpossibleEvent(event, f"job {panda_id} is not in the pool")


def _go_along(state: State, moved: Collection[JobKey]) -> None:
    """What follows one of these jobs is where that one is now."""
    for key, leading in state.bound.items():
        if leading in moved:
            place = state.jobs[leading]
            record = state.jobs[key]
            record.bundle_id, record.node_index = place.bundle_id, place.node_index


def _fetch(state: State, event: JobFetched) -> None:
    server = name_server(state, event.server)
    key = key_of(state, server, event.job.panda_id)
    _expect(event, key not in state.jobs, "job is known")
    task = known_task(state, event.task, event.queue)
    work = short_work(event.work)
    add_job(
        state,
        JobRecord.of(key, server, event.job, intern(event.queue), intern(event.at), work=work, task=task),
    )
    remember(state, key, work)
    state.pools.setdefault(event.queue, {})[key] = None
    _totals(state, event.queue).fetched += 1


def _recall(state: State, event: JobRecalled) -> None:
    bundle, server = _bundle(state, event.bundle_id, event), name_server(state, event.server)
    key = key_of(state, server, event.job.panda_id)
    _expect(event, key not in state.jobs, "job is known")
    _expect(event, key in bundle.job_keys, "the bundle never had it")
    index = next(number for number, node in enumerate(bundle.nodes) if key in node)
    record = JobRecord.of(key, server, event.job, event.queue, event.at)
    record.state, record.bundle_id, record.node_index = JobState.BUNDLED, event.bundle_id, index
    add_job(state, record)
    bundle.recalled.add(key)
    bundle.offsets.clear()
    _totals(state, event.queue).fetched += 1


def _bind(state: State, record: JobRecord, event: JobBound | JobUnbound) -> None:
    pool = state.pools.setdefault(record.queue, {})
    if isinstance(event, JobBound):
        leading = _record_of(state, event.to_server, event.to, event)
        _expect(event, record.state is JobState.POOLED, f"job is {record.state}")
        pool.pop(record.key, None)
        move_job(state, record, JobState.BOUND)
        state.bound[record.key] = leading.key
        record.bundle_id, record.node_index = leading.bundle_id, leading.node_index
        return
    _expect(event, record.state is JobState.BOUND, f"job is {record.state}")
    del state.bound[record.key]
    pool[record.key] = None
    move_job(state, record, JobState.POOLED)
    record.bundle_id = record.node_index = None
    if record.work is not None:
        state.works[record.work] = record.key


def _judge(state: State, record: JobRecord, event: JobJudged) -> None:
    _expect(event, record.state is not JobState.JUDGED, "job has a verdict")
    state.pools.get(record.queue, {}).pop(record.key, None)
    if state.bound.pop(record.key, None) is None:
        learn(state, record, event.verdict)
    if record.bundle_id in state.bundles:
        state.bundles[record.bundle_id].recalled.discard(record.key)
    move_job(state, record, JobState.JUDGED)
    record.judgement = Judgement(event.at, event.verdict, event.outcome)
    totals = _totals(state, record.queue)
    if event.verdict.status is JobStatus.FINISHED:
        totals.finished += 1
    else:
        totals.failed += 1
        bundle = state.bundles.get(record.bundle_id) if record.bundle_id else None
        if bundle is not None:
            bundle.failures += 1


def _apply_job(
    state: State,
    event: JobFetched
    | JobStarted
    | JobJudged
    | JobReturned
    | KillOrdered
    | JobOrphaned
    | JobKept
    | JobBound
    | JobUnbound
    | JobRecalled
    | JobFoundOver
    | FinalAccepted,
) -> None:
    if isinstance(event, JobFetched):
        _fetch(state, event)
        return
    if isinstance(event, JobRecalled):
        _recall(state, event)
        return
    record = _record_of(state, event.server, event.panda_id, event)
    match event:
        case JobStarted():
            _expect(event, record.state is JobState.BUNDLED, f"job is {record.state}")
            move_job(state, record, JobState.STARTED)
            record.started_at = intern(event.at)
            bundle = state.bundles.get(event.bundle_id)
            if bundle is not None:
                bundle.started += 1
        case JobJudged():
            _judge(state, record, event)
        case JobReturned():
            _expect(event, record.state is JobState.BUNDLED, f"job is {record.state}")
            move_job(state, record, JobState.POOLED)
            record.bundle_id = record.node_index = None
            state.pools.setdefault(record.queue, {})[record.key] = None
            _go_along(state, (record.key,))
            _totals(state, record.queue).returned += 1
        case KillOrdered():
            record.orders = record.orders._replace(kill_ordered=True)
            if record.bundle_id is not None:
                state.bundles[record.bundle_id].orders += 1
        case JobOrphaned():
            record.orders = record.orders._replace(orphaned=True)
        case JobKept():
            _expect(event, record.state is JobState.JUDGED, f"job is {record.state}")
            record.orders = record.orders._replace(kept=True)
        case JobBound() | JobUnbound():
            _bind(state, record, event)
        case JobFoundOver():
            _expect(event, record.state is not JobState.JUDGED, "job has a verdict")
            forget(state, record.key)
        case FinalAccepted():
            _expect(event, record.state is JobState.JUDGED, f"job is {record.state}")
            forget(state, record.key)
        case _:
            assert_never(event)


def _apply_round(
    bundle: Bundle,
    event: RoundIntended
    | BatchJobAccepted
    | SubmitRefused
    | ClaimSeen
    | RoundWon
    | RoundVoided
    | BatchJobEnded,
) -> None:
    if isinstance(event, RoundIntended):
        current = bundle.current
        _expect(event, bundle.state is BundleState.OPEN, f"bundle is {bundle.state}")
        _expect(event, current is None or current.state is RoundState.VOID, "a round is open")
        _expect(event, event.number == (current.number + 1 if current else 1), "numbers have no gaps")
        bundle.rounds[event.number] = Round(event.number, RoundState.INTENDED, event.at)
        return
    found = bundle.rounds.get(event.number)
    if found is None:
        raise ImpossibleEvent(event, "no such round")
    match event:
        case BatchJobAccepted():
            if event.batch_id not in found.batch_ids:
                found.batch_ids += (event.batch_id,)
            if found.state is RoundState.INTENDED:
                found.state = RoundState.ACCEPTED
        case SubmitRefused():
            found.refused = event.reason
        case ClaimSeen():
            _expect(event, not found.pilot_owns, "the pilot owns this round")
            found.claim, found.state = event.claim, RoundState.CLAIMED
            found.ended = {batch_id: how for batch_id, how in found.ended.items() if how == "over"}
            found.ends = {batch_id: end for batch_id, end in found.ends.items() if batch_id in found.ended}
            named = event.claim.named
            found.batch_ids = (*(known for known in found.batch_ids if known not in named), *reversed(named))
        case RoundWon():
            _expect(event, found.state is not RoundState.CLAIMED, "a batch job owns this round")
            found.pilot_owns = True
        case RoundVoided():
            _expect(event, found.pilot_owns, "only a round that the pilot owns can be void")
            found.state = RoundState.VOID
        case BatchJobEnded():
            found.ended[event.batch_id] = event.how
            found.ends[event.batch_id] = event.at, event.used_s
            found.over_walltime |= event.over_walltime
        case _:
            assert_never(event)


def _close(state: State, bundle: Bundle, event: BundleClosed) -> None:
    """From here on it counts by what it used and no longer by what it may use: once, whatever was known first."""
    current = bundle.current
    _expect(event, bundle.state is BundleState.OPEN, f"bundle is {bundle.state}")
    _expect(event, current is not None and current.batch_job_over, "its batch job is not over")
    bundle.state = BundleState.CLOSED
    count_use(state, bundle, event.at)


def _apply_bundle(
    state: State,
    bundle: Bundle,
    event: BundlePrepared
    | BundleCancelled
    | BundleSettled
    | JournalConsumed
    | NodeJournalDamaged
    | JobGivenBack,
) -> None:
    match event:
        case BundlePrepared():
            _expect(event, bundle.state is BundleState.PLANNED, f"bundle is {bundle.state}")
            bundle.state = BundleState.OPEN
        case BundleCancelled():
            bundle.cancel_reason = event.reason
        case BundleSettled():
            bundle.state, bundle.settled_at = BundleState.SETTLED, event.at
        case JournalConsumed():
            bundle.offsets[event.file] = max(event.end, bundle.offsets.get(event.file, 0))
        case NodeJournalDamaged():
            bundle.unreadable.setdefault(event.node_index, event.reason)
        case JobGivenBack():
            bundle.given_back[key_of(state, event.server, event.panda_id)] = event.reason
        case _:
            assert_never(event)
