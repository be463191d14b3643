"""What the server must hear, when, in which order; and what its answers tell.

Order (DESIGN 2): `starting` of newly fetched jobs, heartbeats older than the urgent age, final reports, other
heartbeats. An order to end a job is a request: the pilot asks for the job's status first.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta

from pilot.multijob.actions import AskStatus, ReportJobs
from pilot.multijob.adoption import ALIVE, recognise_told
from pilot.multijob.events import (
    BundleAdopted,
    Event,
    FinalAccepted,
    JobBound,
    JobFetched,
    JobJudged,
    JobKept,
    JobOrphaned,
    JobRecalled,
    JobReturned,
    JobStarted,
    JobUnbound,
    KillOrdered,
)
from pilot.multijob.jobkeys import panda_id_of
from pilot.multijob.knownjobs import find_key, key_of
from pilot.multijob.memory import Memory, Reported
from pilot.multijob.model import JobRecord, JobState, Limits, State
from pilot.multijob.verdict import failed, judged
from pilot.ports import Ack, BatchId, JobKey, JobStatus, PandaId, ServerStatus, Update

STARTING_RANK, URGENT_RANK, FINAL_RANK, HEARTBEAT_RANK = 0, 1, 2, 3
NOTHING_REPORTED = Reported()
# Fewer jobs with the same order may be those that a person meant.
ALIKE_MIN = 3
_OVER = frozenset({"cancelled", "closed"})


def wanted_status(record: JobRecord, leading: JobRecord | None = None) -> JobStatus:
    """What the server should know about this job now. `leading`: the job that it follows."""
    if record.verdict is not None:
        return record.verdict.status
    if leading is not None:
        # One that came to nothing is let go of: what followed it waits again.
        done = leading.verdict is not None and leading.verdict.status is JobStatus.FINISHED
        at_work = done or leading.state is JobState.STARTED
        return JobStatus.RUNNING if at_work else JobStatus.STARTING
    return JobStatus.RUNNING if record.state is JobState.STARTED else JobStatus.STARTING


def due_reports(state: State, memory: Memory, utc: str, now_s: float, limits: Limits) -> list[ReportJobs]:
    """Reports that are due, in chunks of one server and one rank, most urgent first."""
    due: dict[tuple[int, str], list[JobRecord]] = {}
    agenda = memory.agenda
    agenda.rules_are((limits.report, frozenset(limits.queues)), lambda: _by_queue(state))
    for key in state.bound:
        # What it follows decides what is told of it.
        agenda.note(key)
    busy = _busy(memory, limits)
    agenda.at_once = limits.looks_at_once
    agenda.unpark(busy)
    for key in agenda.take(now_s):
        record = state.jobs.get(key)
        if record is None:
            continue
        known = memory.reported.get(key)
        rank = _rank(record, wanted_status(record, _leading(state, key)), known, now_s, limits)
        if rank is None:
            _look_again(memory, record, known, now_s, limits)
            continue
        if not memory.may_be_reported(key):
            agenda.note(key)
            continue
        server = limits.queues[record.queue].server
        told = known is not None and known.status is not None
        if server in busy and (rank == HEARTBEAT_RANK or (rank == URGENT_RANK and not told)):
            agenda.park(server, key)
            continue
        due.setdefault((rank, server), []).append(record)
    actions = []
    for (rank, server), records in sorted(due.items(), key=lambda item: item[0]):
        chunk = min(queue.chunk for queue in limits.queues.values() if queue.server == server)
        for start in range(0, len(records), chunk):
            part = records[start : start + chunk]
            under_way: dict[Reported, Reported] = {}
            for record in part:
                known = memory.reported.get(record.key, NOTHING_REPORTED)
                memory.reported[record.key] = under_way.setdefault(known, known._replace(under_way=True))
            updates = tuple(render_update(state, record, utc, limits) for record in part)
            actions.append(ReportJobs(server, updates, rank, rank == FINAL_RANK))
    return actions


def _busy(memory: Memory, limits: Limits) -> frozenset[str]:
    """Servers that have not answered enough reports: heartbeats that are made now would only wait in memory."""
    counts = Counter(key[1] for key in memory.in_flight if key[0] == "report")
    return frozenset(server for server, count in counts.items() if count >= limits.report.under_way_max)


def _by_queue(state: State) -> Mapping[str, list[JobKey]]:
    found: defaultdict[str, list[JobKey]] = defaultdict(list)
    for key, record in state.jobs.items():
        found[record.queue].append(key)
    return found


def note_event(state: State, memory: Memory, event: Event) -> None:
    """Have the jobs looked at that this event, just applied, is about."""
    match event:
        case JobFetched() | JobRecalled():
            memory.agenda.note_new(event.queue, key_of(state, event.server, event.job.panda_id))
        case BundleAdopted():
            for item in event.jobs:
                record = state.jobs.get(key_of(state, item.server, item.job.panda_id))
                if record is not None:
                    memory.agenda.note_new(record.queue, record.key)
        case (
            JobStarted() | JobJudged() | JobOrphaned() | JobUnbound() | JobBound() | JobReturned() | JobKept()
        ):
            memory.agenda.note(key_of(state, event.server, event.panda_id))
        case _:
            pass


def first_unheard(state: State, memory: Memory, queue: str, utc: str, limits: Limits) -> JobKey | None:
    """The oldest job of this queue that its server has not heard of, if it should have for `unreported_hold_s`."""
    before = datetime.fromisoformat(utc) - timedelta(seconds=limits.unreported_hold_s)
    done, found = [], None
    for key in memory.agenda.unheard_of(queue):
        record, known = state.jobs.get(key), memory.reported.get(key)
        told = known is not None and known.status is not None
        if record is None or told or record.verdict is not None or record.orphaned:
            done.append(key)
        else:
            # They stand as they came: what follows is younger, and there may be 150,000.
            found = key if datetime.fromisoformat(record.fetched_at) < before else None
            break
    for key in done:
        memory.agenda.heard(queue, key)
    return found


def _look_again(
    memory: Memory, record: JobRecord, known: Reported | None, now_s: float, limits: Limits
) -> None:
    """Nothing is due for this job now: look at it when something may be, unless an event or an answer comes first."""
    if known is None or known.under_way:
        return
    if now_s < known.retry_s:
        memory.agenda.note_at(record.key, known.retry_s)
    elif record.state is not JobState.JUDGED and not record.orphaned and record.queue in limits.queues:
        next_s = min(limits.report.urgent_s, _period_s(record, limits))
        memory.agenda.note_at(record.key, known.accepted_s + next_s)


def _period_s(record: JobRecord, limits: Limits) -> float:
    """Between two heartbeats of one job: spread, so that the jobs of one fetch are not all due at once."""
    return limits.report.heartbeat_s - record.panda_id % max(1, int(limits.report.spread_s))


def _leading(state: State, key: JobKey) -> JobRecord | None:
    return state.jobs.get(state.bound[key]) if key in state.bound else None


def _rank(
    record: JobRecord, wanted: JobStatus, reported: Reported | None, now_s: float, limits: Limits
) -> int | None:
    known = reported or NOTHING_REPORTED
    if known.under_way or now_s < known.retry_s or record.queue not in limits.queues:
        return None
    if record.state is JobState.JUDGED:
        return None if record.kept else FINAL_RANK
    if record.orphaned:
        return None
    if known.status is None:
        # One that runs was told of by an older run of the daemon, nobody knows how long ago.
        return STARTING_RANK if wanted is JobStatus.STARTING else URGENT_RANK
    age_s = now_s - known.accepted_s
    if age_s >= limits.report.urgent_s:
        return URGENT_RANK
    if known.status is not wanted or age_s >= _period_s(record, limits):
        return HEARTBEAT_RANK
    return None


def render_update(state: State, record: JobRecord, utc: str, limits: Limits) -> Update:
    """The report of one job as it stands. `utc`: now, which may be earlier than what was noted before the clock was
    set back."""
    status = wanted_status(record, _leading(state, record.key))
    job, outcome, now = record.job, record.outcome, datetime.fromisoformat(utc)
    started = None if record.started_at is None else min(datetime.fromisoformat(record.started_at), now)
    update = Update(
        job.panda_id,
        job.attempt_nr,
        status,
        limits.queues[record.queue].panda_queue,
        batch_id=_batch_id(state, record) if status is not JobStatus.STARTING else None,
        node=f"{record.bundle_id}/{record.node_index}" if record.bundle_id else None,
        start_time=started,
    )
    if record.verdict is None or record.judged_at is None:
        return update
    end = min(datetime.fromisoformat(record.judged_at), now)
    start = end - timedelta(seconds=outcome.wall_s) if outcome.wall_s is not None else started
    return Update(
        job.panda_id,
        job.attempt_nr,
        status,
        update.panda_queue,
        batch_id=update.batch_id,
        node=update.node,
        # Not before the fetch, whatever the node measured; not after the end, whatever the clock did.
        start_time=min(max(start or end, datetime.fromisoformat(record.fetched_at)), end),
        end_time=end,
        pilot_error_code=record.verdict.code,
        pilot_error_diag=record.verdict.reason,
        trans_exit_code=outcome.exit_code,
        n_events=outcome.n_events,
        cpu_s=None if outcome.cpu_s is None else round(outcome.cpu_s),
        max_rss_kib=None if outcome.rss_mib is None else round(outcome.rss_mib * 1024),
        report=outcome.report,
        # nEvents is what was read; a merge reads no events, so there it is what was written.
        job_metrics="" if outcome.n_written is None else f"eventsWritten={outcome.n_written}",
    )


def _batch_id(state: State, record: JobRecord) -> BatchId | None:
    bundle = state.bundles.get(record.bundle_id) if record.bundle_id else None
    current = bundle.current if bundle else None
    # Several may have the round's name (a person's qsub): only the claim says in which of them it runs.
    return current.owners[0] if current and len(current.owners) == 1 else None


def recognise_acks(
    state: State,
    memory: Memory,
    action: ReportJobs,
    acks: tuple[Ack, ...],
    utc: str,
    now_s: float,
    limits: Limits,
) -> Iterator[Event]:
    """Events of one report's answers. An update without an answer was not accepted."""
    followed = frozenset(state.bound.values())
    answered = {(ack.panda_id, ack.attempt_nr): ack for ack in acks}
    accepted: dict[JobStatus, Reported] = {}
    for update in action.updates:
        key = find_key(state, action.server, update.panda_id, limits)
        memory.agenda.note(key)
        ack = answered.get((update.panda_id, update.attempt_nr))
        record = state.jobs.get(key)
        if record is None:
            memory.reported.pop(key, None)
        elif ack is None or not ack.accepted:
            _retry(memory, key, now_s, limits)
        elif update.status in (JobStatus.FINISHED, JobStatus.FAILED):
            memory.reported.pop(key, None)
            _not_held(memory, key)
            wanted = "tobekilled" in ack.command or key in followed
            # Kept for as long as its bundle is: what has none any more has no evidence either.
            here = record.work is not None and record.bundle_id in state.bundles
            if wanted and here and update.status is JobStatus.FINISHED:
                yield JobKept(utc, update.panda_id, record.server)
            else:
                yield FinalAccepted(utc, update.panda_id, update.attempt_nr, record.server)
        else:
            value = accepted.setdefault(update.status, Reported(update.status, now_s))
            memory.reported[key] = value
            memory.agenda.heard(record.queue, key)
            if "tobekilled" not in ack.command:
                _not_held(memory, key)
            elif not (record.kill_ordered or record.orphaned):
                memory.questioned[key] = record.queue
                server = action.server
                if memory.compared.pop(key, None) is not None and not memory.compared:
                    # All that were to be compared have come with orders of their own: that says nothing of the others.
                    memory.compared_s.pop(server, None)
                _compare(state, memory, server, now_s, limits)


def _compare(state: State, memory: Memory, server: str, now_s: float, limits: Limits) -> None:
    """Have some more live jobs of this server asked for, once a cycle: orders come one by one, each with its job's
    next heartbeat, and one that many other jobs have, too, is no person's."""
    if now_s - memory.compared_s.get(server, -limits.listing_every_s) < limits.listing_every_s:
        return
    live = [
        key
        for key, record in state.jobs.items()
        if _may_be_ordered(record)
        and key not in memory.questioned
        and record.queue in limits.queues
        and limits.queues[record.queue].server == server
    ]
    if live:
        memory.compared_s[server] = now_s
    every = -(-len(live) // limits.tobekilled_sample) or 1
    memory.compared.update((key, state.jobs[key].queue) for key in live[::every])


def _may_be_ordered(record: JobRecord) -> bool:
    return not (record.state is JobState.JUDGED or record.kill_ordered or record.orphaned)


def retry_reports(state: State, memory: Memory, action: ReportJobs, now_s: float, limits: Limits) -> None:
    """No update of this report was accepted: each is due again after a pause that grows."""
    for update in action.updates:
        key = find_key(state, action.server, update.panda_id, limits)
        if key in memory.reported:
            memory.agenda.note(key)
            _retry(memory, key, now_s, limits)


def _retry(memory: Memory, key: JobKey, now_s: float, limits: Limits) -> None:
    """Not accepted: again after a pause that grows."""
    known = memory.reported.get(key, NOTHING_REPORTED)
    pause_s = limits.report.retry_s * 2.0 ** min(known.failures, 8)
    retry_s = now_s + min(pause_s, limits.report.retry_max_s)
    memory.reported[key] = known._replace(under_way=False, failures=known.failures + 1, retry_s=retry_s)


def questions(memory: Memory, limits: Limits) -> list[AskStatus]:
    """Status questions by server: for jobs that it wants to see ended, those compared with them, and those that an
    old journal tells of."""
    by_server: dict[str, dict[PandaId, None]] = {}
    marked = ((queue, panda_id_of(key)) for key, queue in {**memory.questioned, **memory.compared}.items())
    for queue, panda_id in (*marked, *memory.to_ask):
        if queue in limits.queues:
            by_server.setdefault(limits.queues[queue].server, {})[panda_id] = None
    return [AskStatus(server, tuple(ids)[:400]) for server, ids in sorted(by_server.items())]


def recognise_statuses(
    state: State,
    memory: Memory,
    action: AskStatus,
    statuses: tuple[ServerStatus, ...],
    utc: str,
    now_s: float,
    limits: Limits,
) -> Iterator[Event]:
    """What the server's status says about an order to end a job: a person's order, or given up by the server."""
    queues = [queue.name for queue in limits.queues.values() if queue.server == action.server]
    told = [(find_key(state, action.server, item.panda_id, limits), item) for item in statuses]
    for key, item in told:
        if any((queue, item.panda_id) in memory.to_ask for queue in queues):
            yield from recognise_told(state, memory, key, queues, item, utc)
    asked = {key: item for key, item in told if key in memory.questioned}
    compared = {key: item for key, item in told if memory.compared.pop(key, None) is not None}
    alike = {key: item for key, item in compared.items() if _person_asked(item) and _live(state, key)}
    orders = {key for key, item in asked.items() if _person_asked(item)} | alike.keys()
    share = len(alike) / len(compared) if len(alike) >= ALIKE_MIN else 0.0
    held = _hold_if_mass(state, memory, orders, share, now_s, limits)
    for key, item in (*asked.items(), *alike.items()):
        memory.questioned.pop(key, None)
        record = state.jobs.get(key)
        if record is None or record.state is JobState.JUDGED:
            _not_held(memory, key)
        elif record.state is JobState.POOLED and memory.undecided():
            # It may be at work in a directory that is not read yet; the next heartbeat brings the order again.
            _not_held(memory, key)
        elif key not in orders:
            _not_held(memory, key)
            yield JobOrphaned(utc, item.panda_id, f"server says {item.status[:40]}", record.server)
            if record.state is JobState.POOLED:
                verdict = failed(limits.experiment.codes["lost"], "given up by the server while waiting")
                yield judged(record, verdict, utc)
        elif not held:
            yield from _obey(record, utc, limits, confirmed=False)


def _live(state: State, key: JobKey) -> bool:
    record = state.jobs.get(key)
    return record is not None and _may_be_ordered(record)


def _hold_if_mass(
    state: State, memory: Memory, orders: set[JobKey], share: float, now_s: float, limits: Limits
) -> bool:
    """Whether these orders to end jobs wait for a person: too many within one cycle, or others wait already.

    `share` of all live jobs is taken to have the order, too.
    """
    recent = memory.orders_obeyed
    while recent and recent[0][0] <= now_s - limits.listing_every_s:
        recent.popleft()
    live = sum(record.state is not JobState.JUDGED for record in state.jobs.values()) if orders else 0
    count = max(len(orders), share * live) + sum(number for _, number in recent)
    many = count >= limits.tobekilled_floor and count > limits.tobekilled_share * live
    if not orders or not (memory.kills_held or count > limits.tobekilled_max or many):
        if orders:
            recent.append((now_s, len(orders)))
        return False
    memory.kills_held |= orders
    memory.raise_alarm("mass-kill", _held_text(memory), now_s)
    return True


def _held_text(memory: Memory) -> str:
    return f"{len(memory.kills_held)} jobs ordered to end at once: none of them is ended without `pilot confirm-kill`"


def _not_held(memory: Memory, key: JobKey) -> None:
    """This job is not, or no longer, ordered to end; the alarm goes with the last one."""
    if key in memory.kills_held:
        memory.kills_held.discard(key)
        if not memory.kills_held:
            memory.clear_alarm("mass-kill")
        elif "mass-kill" in memory.alarms:
            memory.alarms["mass-kill"].reason = _held_text(memory)


def _obey(record: JobRecord, utc: str, limits: Limits, *, confirmed: bool) -> Iterator[Event]:
    yield KillOrdered(utc, record.panda_id, confirmed, record.server)
    if record.state is JobState.POOLED:
        verdict = failed(limits.experiment.codes["killed"], "before it entered a bundle")
        yield judged(record, verdict, utc)


def confirm_kills(state: State, memory: Memory, utc: str, limits: Limits) -> Iterator[Event]:
    """A person confirmed the mass of orders: those held now are obeyed. What is ordered later is counted anew."""
    held, memory.kills_held = sorted(memory.kills_held), set()
    memory.clear_alarm("mass-kill")
    for key in held:
        record = state.jobs.get(key)
        if record is not None and record.state is not JobState.JUDGED:
            yield from _obey(record, utc, limits, confirmed=True)


def _person_asked(item: ServerStatus) -> bool:
    return item.status in _OVER or (item.status in ALIVE and "tobekilled" in item.command)
