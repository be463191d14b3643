"""What the answers of the lanes tell us that we did not know: (state, memory, answer, now) -> events.

Pure: no clock, no I/O. Events are yielded one by one and the caller applies each before it asks for the next, so
that every line is judged on the state that the lines before it made.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, assert_never

from pilot.multijob.actions import (
    Action,
    AddScript,
    AdoptBundle,
    AnswerCommand,
    AppendEvents,
    AskStatus,
    CancelBatchJob,
    DeliverCredential,
    FetchJobs,
    FindBundles,
    LinkOutputs,
    ListBatchJobs,
    LookAtAllocation,
    LookAtCredential,
    LookAtInputs,
    LookAtSpace,
    MakeClaim,
    MakeMark,
    PackBundle,
    PrepareBundle,
    ReadEvidence,
    RemoveBundle,
    ReportJobs,
    SetDoor,
    SubmitBatchJob,
    TakeSnapshot,
    WithdrawCredential,
    WriteClosed,
    WriteCommands,
)
from pilot.multijob.adoption import (
    note_unread,
    recognise_no_directory,
    recognise_search,
)
from pilot.multijob.allocation import note_allocation
from pilot.multijob.credential import note_copy, note_credential
from pilot.multijob.events import (
    BatchJobAccepted,
    BundleClosed,
    BundlePrepared,
    BundleRetired,
    ClaimSeen,
    Event,
    JobFetched,
    JobJudged,
    JobRecalled,
    JobUnbound,
    RoundVoided,
    RoundWon,
    SubmitRefused,
)
from pilot.multijob.fitness import uncovered_run, unusable
from pilot.multijob.inputs import recognise_inputs
from pilot.multijob.knownjobs import find_key
from pilot.multijob.lines import recognise_evidence, settle
from pilot.multijob.listing import recognise_listing
from pilot.multijob.memory import Memory
from pilot.multijob.model import BundleState, Limits, Outcome, RoundState, State
from pilot.multijob.reporting import recognise_acks, recognise_statuses, retry_reports
from pilot.multijob.salvage import bind, bundles_of, judged_by_link, retired_of, task_of, work_of
from pilot.multijob.snapshot import note_journal, note_journal_failure
from pilot.multijob.space import note_space
from pilot.multijob.verdict import failed
from pilot.ports import (
    UNFIT,
    AllocationLeft,
    AlreadyThere,
    Answer,
    BatchId,
    Broken,
    ClaimMade,
    Done,
    Fetched,
    Job,
    MalformedJob,
    PandaId,
    Refused,
    Unavailable,
)


@dataclass(frozen=True, slots=True)
class Now:
    """The time of one tick: `utc` for records, `mono_s` for durations."""

    utc: str
    mono_s: float


def recognise(state: State, memory: Memory, answer: Answer, now: Now, limits: Limits) -> Iterator[Event]:
    """Events of one answer. Updates `memory`; changes nothing in `state`."""
    action: Action = answer.action
    memory.in_flight.pop(action.key, None)
    outcome = answer.outcome
    if isinstance(outcome, Unavailable | Refused | Broken):
        yield from _failure(state, memory, action, outcome, now, limits)
        return
    memory.answer_was_good(action)
    if not (isinstance(outcome, Fetched) and _is_empty(outcome)):
        memory.succeeded(action.key)
    match action:
        case AppendEvents() | TakeSnapshot():
            note_journal(memory, action, outcome)
        case AnswerCommand():
            pass
        case LookAtCredential():
            note_credential(memory, action.server, outcome, now.utc, now.mono_s, limits)
        case LookAtSpace() | LookAtAllocation():
            _note_left(memory, outcome, now, limits)
        case LookAtInputs():
            yield from recognise_inputs(state, memory, outcome, answer.asked_at_s, now.utc, limits)
        case FetchJobs():
            yield from _fetched(state, memory, action, outcome, now, limits)
        case ReportJobs():
            yield from recognise_acks(state, memory, action, outcome, now.utc, now.mono_s, limits)
        case AskStatus():
            yield from recognise_statuses(state, memory, action, outcome, now.utc, now.mono_s, limits)
        case FindBundles() | AdoptBundle():
            recognise_search(state, memory, outcome, now.mono_s, limits)
        case ListBatchJobs():
            yield from recognise_listing(
                state, memory, outcome, answer.asked_at_s, now.utc, now.mono_s, limits
            )
        case ReadEvidence():
            yield from _read(state, memory, action, answer, now, limits)
        case _:
            if isinstance(action, SubmitBatchJob):
                _note_flags(state, memory, action, now, limits)
            yield from _done(state, memory, action, outcome, now)


def _read(
    state: State, memory: Memory, action: ReadEvidence, answer: Answer, now: Now, limits: Limits
) -> Iterator[Event]:
    if answer.took_s > limits.protocol.visible_s:
        # The agents' looks at `closed` were held up as well: not the last reading yet.
        memory.held_up_s, memory.held_up_took_s = now.mono_s, answer.took_s
        action = replace(action, last=False)
    yield from recognise_evidence(state, memory, action, answer.outcome, now.utc, now.mono_s, limits)
    memory.read_s[action.bundle_id] = now.mono_s
    memory.read_asked_s[action.bundle_id] = answer.asked_at_s


def _note_left(memory: Memory, seen: Any, now: Now, limits: Limits) -> None:
    """What is left: of space, or of the allocation."""
    if isinstance(seen, AllocationLeft):
        note_allocation(memory, seen, now.utc, now.mono_s, limits)
    else:
        note_space(memory, seen, now.mono_s, limits)


def _failure(
    state: State,
    memory: Memory,
    action: Action,
    outcome: Unavailable | Refused | Broken,
    now: Now,
    limits: Limits,
) -> Iterator[Event]:
    """A failed request: remember it, try again later; of all failures only a definite no can be a fact."""
    if isinstance(outcome, Broken):
        memory.answer_was_broken(action, outcome.reason, now.mono_s)
    memory.failed(action.key, now.mono_s, limits.report.retry_s, limits.report.retry_max_s, outcome.reason)
    match action:
        case AppendEvents() | TakeSnapshot():
            note_journal_failure(memory, action, outcome, now.mono_s)
        case ReportJobs():
            retry_reports(state, memory, action, now.mono_s, limits)
        case LookAtCredential():
            note_credential(memory, action.server, outcome.reason, now.utc, now.mono_s, limits)
        case ReadEvidence():
            note_unread(memory, action.bundle_id, outcome, now.mono_s)
        case AdoptBundle():
            recognise_no_directory(memory, action.bundle_id, outcome, now.mono_s, limits)
        case _ if isinstance(outcome, Refused):
            yield from _refused(state, memory, action, outcome, now, limits)
        case _:
            pass


def _refused(
    state: State, memory: Memory, action: Action, outcome: Refused, now: Now, limits: Limits
) -> Iterator[Event]:
    """A definite no to a write."""
    match action:
        case PrepareBundle() if outcome.code == UNFIT:
            yield from _unmade(state, memory, action, now, limits)
        case SubmitBatchJob():
            yield SubmitRefused(now.utc, action.bundle_id, action.number, f"{outcome.code}: {outcome.reason}")
        case LinkOutputs() if action.job in state.bound:
            record = state.jobs[action.job]
            reason = f"{outcome.code}: {outcome.reason}"
            yield JobUnbound(now.utc, record.panda_id, reason, record.server)
        case CancelBatchJob():
            reason = f"batch job {action.batch_id} cannot be ended: {outcome.reason}"
            memory.raise_alarm(f"cannot-cancel-{action.bundle_id}", reason[:300], now.mono_s)
        case PackBundle():
            # No directory: there is nothing to pack.
            memory.packed.add(action.bundle_id)
        case _:
            pass


def _is_empty(fetched: Fetched) -> bool:
    """The server had no jobs: asked again later and later, like after a failure."""
    return not fetched.jobs and not fetched.malformed


def _fetched(
    state: State, memory: Memory, action: FetchJobs, outcome: Fetched, now: Now, limits: Limits
) -> Iterator[Event]:
    if _is_empty(outcome):
        memory.failed(action.key, now.mono_s, limits.fetch_retry_s, limits.fetch_retry_max_s, "no jobs given")
    known = [item.panda_id for item in outcome.malformed if item.panda_id is not None]
    elsewhere = frozenset(queue.name for queue in limits.queues.values() if queue.server != action.server)
    had = bundles_of(state, action.server, (*(job.panda_id for job in outcome.jobs), *known), elsewhere)
    others = (job.panda_id for job in outcome.jobs if job.panda_id not in had)
    retired = retired_of(state, action.server, others, elsewhere)
    for job in outcome.jobs:
        if _is_open(state, action.server, job.panda_id, limits):
            continue
        before, reason = had.get(job.panda_id), unusable(job, limits)
        if before is not None and reason is None:
            bundle, name = before
            yield JobRecalled(now.utc, action.queue, job, bundle.bundle_id, name)
            continue
        work = work_of(job, action.server)
        uncovered = uncovered_run(job, action.queue, limits) if reason is None else None
        task = task_of(job, action.queue, limits) if reason is None and uncovered is None else None
        yield JobFetched(now.utc, action.queue, job, work, task, action.server)
        if reason is not None:
            yield _set_aside(now, job, action.server, reason, limits)
        elif job.panda_id in retired:
            reason = "handed out again after the retention of its bundle: it may have run"
            yield _set_aside(now, job, action.server, reason, limits, "not-started")
        elif uncovered is not None:
            yield _set_aside(now, job, action.server, uncovered, limits, "caldb-content")
        else:
            yield from bind(state, job, action.server, work, now.utc)
    if not outcome.malformed:
        memory.clear_alarm("malformed-job")
    for item in outcome.malformed:
        identity = item.panda_id
        if identity is None or identity in had or _is_open(state, action.server, identity, limits):
            memory.raise_alarm("malformed-job", item.reason, now.mono_s)
            continue
        job = _stand_in(item, identity, action)
        yield JobFetched(now.utc, action.queue, job, server=action.server)
        yield _set_aside(now, job, action.server, item.reason, limits)


def _is_open(state: State, server: str, panda_id: PandaId, limits: Limits) -> bool:
    """Whether this job of this server is known: another server's number says nothing."""
    return find_key(state, server, panda_id, limits) in state.jobs


def _set_aside(
    now: Now, job: Job, server: str, reason: str, limits: Limits, code: str = "malformed-job"
) -> JobJudged:
    verdict = failed(limits.experiment.codes[code], reason)
    return JobJudged(now.utc, job.panda_id, job.attempt_nr, verdict, Outcome(), server)


def _stand_in(item: MalformedJob, panda_id: PandaId, action: FetchJobs) -> Job:
    return Job(panda_id, item.attempt_nr or 1, action.panda_queue, "", "", "", (), None)


def _done(state: State, memory: Memory, action: Action, outcome: Any, now: Now) -> Iterator[Event]:
    """Answers of writes: the effect is there."""
    match action:
        case PrepareBundle():
            yield from _prepared(state, memory, action, outcome, now)
        case AddScript():
            memory.scripts.add((action.bundle_id, action.number))
        case SubmitBatchJob():
            memory.clear_alarm(f"rounds-used-up-{state.bundles[action.bundle_id].queue}")
            yield BatchJobAccepted(now.utc, action.bundle_id, action.number, BatchId(outcome), "qsub")
        case CancelBatchJob():
            memory.cancels_asked[action.batch_id] = now.mono_s
            memory.clear_alarm(f"cannot-cancel-{action.bundle_id}")
        case MakeClaim():
            yield from _claim_made(state, memory, action, outcome, now)
        case MakeMark():
            memory.marked_s[action.bundle_id, action.number] = now.mono_s
        case SetDoor():
            yield from _door_set(state, memory, action, now)
        case WriteClosed():
            memory.closed_s[action.bundle_id] = now.mono_s
            memory.clear_alarm(f"cannot-cancel-{action.bundle_id}")
            if state.bundles[action.bundle_id].state is BundleState.OPEN:
                yield BundleClosed(now.utc, action.bundle_id)
        case WriteCommands():
            memory.commands[action.bundle_id] = frozenset(panda_id for panda_id, _ in action.end)
        case DeliverCredential() | WithdrawCredential():
            note_copy(memory, action)
        case LinkOutputs():
            yield from judged_by_link(state, action, now.utc)
        case PackBundle() | RemoveBundle():
            yield from _put_away(memory, action, now)
        case (
            AppendEvents()
            | TakeSnapshot()
            | FetchJobs()
            | ReportJobs()
            | AskStatus()
            | FindBundles()
            | AdoptBundle()
            | ListBatchJobs()
            | ReadEvidence()
            | LookAtCredential()
            | LookAtInputs()
            | LookAtSpace()
            | LookAtAllocation()
            | AnswerCommand()
        ):
            raise AssertionError("answered elsewhere")
        case _:
            assert_never(action)


def _put_away(memory: Memory, action: PackBundle | RemoveBundle, now: Now) -> Iterator[Event]:
    """A bundle's directory is packed or gone."""
    bundle_id = action.bundle_id
    if isinstance(action, PackBundle):
        memory.packed.add(bundle_id)
        return
    memory.packed.discard(bundle_id)
    memory.withdrawn.discard(bundle_id)
    memory.heard.pop(bundle_id, None)
    memory.clear_alarm(f"cannot-cancel-{bundle_id}")
    memory.doors.pop(bundle_id, None)
    memory.retire_s.pop(bundle_id, None)
    memory.clear_alarm(f"damaged-evidence-{bundle_id}")
    memory.clear_alarm(f"directory-gone-{bundle_id}")
    memory.gone.pop(bundle_id, None)
    memory.read_asked_s.pop(bundle_id, None)
    memory.inherited.discard(bundle_id)
    memory.scripts_found.pop(bundle_id, None)
    memory.clear_alarm(f"foreign-claim-{bundle_id}")
    memory.clear_alarm(f"caldb-{bundle_id}")
    memory.clear_alarm(f"setup-{bundle_id}")
    yield BundleRetired(now.utc, bundle_id)


def _note_flags(state: State, memory: Memory, action: SubmitBatchJob, now: Now, limits: Limits) -> None:
    """qsub took a batch job: with the site's flags, or without them after it had refused one with them."""
    refused = state.bundles[action.bundle_id].refusal_before(action.number)
    if refused is None or limits.site.flags is None:
        memory.clear_alarm("batch-flags-refused")
        return
    reason = f"qsub refused {action.bundle_id} with flags={limits.site.flags} and took it without: {refused}"
    memory.raise_alarm("batch-flags-refused", reason[:300], now.mono_s)


def _prepared(
    state: State, memory: Memory, action: PrepareBundle, outcome: Done | AlreadyThere, now: Now
) -> Iterator[Event]:
    bundle = state.bundles[action.bundle_id]
    if bundle.state is BundleState.PLANNED:
        memory.scripts.add((bundle.bundle_id, 1))
        if not isinstance(outcome, AlreadyThere):
            # Made just now: nobody has submitted anything of it.
            memory.inherited.discard(bundle.bundle_id)
        yield BundlePrepared(now.utc, bundle.bundle_id)


def _unmade(state: State, memory: Memory, action: PrepareBundle, now: Now, limits: Limits) -> Iterator[Event]:
    """No directory is there, and none can be made, for jobs of it: all go back to the pool, where unfit ones end."""
    bundle = state.bundles[action.bundle_id]
    # While directories are unknown, its jobs may be at work in one of them: asked again later.
    if bundle.state is BundleState.PLANNED and memory.undecided() is None:
        memory.answer_was_good(action)
        memory.succeeded(action.key)
        yield from settle(state, bundle, now.utc, limits)


def _door_set(state: State, memory: Memory, action: SetDoor, now: Now) -> Iterator[Event]:
    memory.doors[action.bundle_id] = action.number
    number = action.number - 1
    found = state.bundles[action.bundle_id].rounds.get(number)
    if found is not None and found.pilot_owns and found.state is not RoundState.VOID:
        yield RoundVoided(now.utc, action.bundle_id, number)


def _claim_made(
    state: State, memory: Memory, action: MakeClaim, outcome: ClaimMade, now: Now
) -> Iterator[Event]:
    found = state.bundles[action.bundle_id].rounds[action.number]
    if outcome.won:
        # A mark that was read since is of a start that finds the pilot's: its batch job's end is waited for instead.
        if not found.pilot_owns and not (action.weak and found.claim is not None):
            yield RoundWon(now.utc, action.bundle_id, action.number)
    elif found.claim is None:
        memory.claim_was_read((action.bundle_id, action.number), outcome.claim, now.mono_s)
        yield ClaimSeen(now.utc, action.bundle_id, action.number, outcome.claim)
