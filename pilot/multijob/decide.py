"""What to do about one bundle now: (state, memory, bundle, now, limits) -> intents and actions.

Level-triggered: the same question is asked every tick and answered from what is. An event among the results is an
intent: it is recorded before the actions behind it are released. The submission protocol is DESIGN section 3.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from itertools import islice

from pilot.multijob.actions import (
    Action,
    AddScript,
    CancelBatchJob,
    MakeClaim,
    MakeMark,
    PackBundle,
    PrepareBundle,
    ReadEvidence,
    RemoveBundle,
    SetDoor,
    SubmitBatchJob,
    WriteClosed,
    WriteCommands,
)
from pilot.multijob.adoption import ask_first, forgotten_round, is_whole
from pilot.multijob.credential import copy_missing, decide_copy, outlives
from pilot.multijob.events import Event, RoundIntended
from pilot.multijob.lines import settle, settle_gone
from pilot.multijob.listing import ABSENCES, round_name
from pilot.multijob.memory import Memory
from pilot.multijob.model import Bundle, BundleState, Limits, Round, RoundState, State
from pilot.multijob.recognise import Now
from pilot.multijob.script import bundle_dir, plan_files, render_script
from pilot.ports import BatchState, JobKey

# How soon a settled bundle is looked at again: cheap for thousands of them, early enough for a retention in hours.
RETIRE_AGAIN_S, RETIRE_AGAIN_MAX_S = 60.0, 3600.0


def kept_quiet(memory: Memory, bundle: Bundle, now_s: float) -> bool:
    """Whether nothing can be due for this bundle: it is settled, and its retention is not over. Cheap for thousands."""
    if bundle.state is not BundleState.SETTLED or bundle.recalled:
        return False
    return now_s < memory.retire_s.get(bundle.bundle_id, float("-inf"))


def decide_bundle(
    state: State, memory: Memory, bundle: Bundle, now: Now, limits: Limits
) -> Iterator[Event | Action]:
    """Everything that is due for this bundle. Each event must be applied before the next result is asked for."""
    yield from decide_copy(memory, bundle, bundle_dir(bundle, limits), now.mono_s, limits)
    if is_gone(memory, bundle, now, limits):
        yield from _gone(state, memory, bundle, now, limits)
        return
    match bundle.state:
        case BundleState.PLANNED:
            if bundle.queue in limits.queues and not memory.waiting(
                ("prepare", bundle.bundle_id), now.mono_s
            ):
                yield PrepareBundle(bundle.bundle_id, plan_files(state, bundle, limits))
        case BundleState.OPEN:
            yield from _look(memory, bundle, now, limits)
            yield from _orders(state, memory, bundle, now)
            yield from _rounds(state, memory, bundle, now, limits)
        case BundleState.CLOSED:
            yield from _look(memory, bundle, now, limits)
            yield from _settling(memory, bundle, now, limits)
        case BundleState.SETTLED if bundle.recalled:
            yield from _once(memory, ReadEvidence(bundle.bundle_id, {}, last=True), now)
        case BundleState.SETTLED:
            yield from _retire(state, memory, bundle, now, limits)


def _look(memory: Memory, bundle: Bundle, now: Now, limits: Limits) -> Iterator[Action]:
    """Read evidence again when it is due."""
    key = ("read", bundle.bundle_id)
    due_s = memory.read_s.get(bundle.bundle_id, float("-inf")) + limits.evidence_every_s
    inherited = bundle.bundle_id in memory.inherited
    if (bundle.rounds or inherited) and now.mono_s >= due_s and not memory.waiting(key, now.mono_s):
        yield ReadEvidence(bundle.bundle_id, dict(bundle.offsets))


def _rounds(
    state: State, memory: Memory, bundle: Bundle, now: Now, limits: Limits
) -> Iterator[Event | Action]:
    current = bundle.current
    if current is None or current.state is RoundState.VOID:
        yield from _next_round(state, memory, bundle, now, limits)
        return
    memory.round_since_s.setdefault((bundle.bundle_id, current.number), now.mono_s)
    if current.state is RoundState.CLAIMED:
        yield from _claimed(state, memory, bundle, current, now, limits)
    elif current.pilot_owns:
        yield from _once(memory, SetDoor(bundle.bundle_id, current.number + 1), now)
    elif bundle.cancel_reason is not None:
        yield from _cancelling(memory, bundle, current, now, limits)
    elif giving_up(memory, bundle, current, now, limits):
        yield from _claim(memory, bundle, current, now, limits)


def _next_round(
    state: State, memory: Memory, bundle: Bundle, now: Now, limits: Limits
) -> Iterator[Event | Action]:
    """No round is open: the next one, or the end. One that may have been submitted before is waited for, not made."""
    number = 1 if bundle.current is None else bundle.current.number + 1
    forgotten = forgotten_round(memory, bundle, number)
    if forgotten is None:
        return
    if forgotten:
        yield RoundIntended(now.utc, bundle.bundle_id, number)
    elif memory.undecided() is not None:
        # Its jobs may have gone on in a directory that is not read yet.
        return
    elif bundle.cancel_reason is not None or number > limits.rounds_max:
        if number > limits.rounds_max:
            reason = f"{bundle.bundle_id}: {limits.rounds_max} rounds void"
            memory.raise_alarm(f"rounds-used-up-{bundle.queue}", reason, now.mono_s)
        yield from settle(state, bundle, now.utc, limits)
    elif bundle.adopted or not is_whole(state, bundle):
        yield from settle(state, bundle, now.utc, limits)
    elif not ask_first(memory, bundle) and bundle.queue in limits.queues:
        yield from _intend(memory, bundle, number, now, limits)


def is_gone(memory: Memory, bundle: Bundle, now: Now, limits: Limits) -> bool:
    """Whether the bundle's directory is not there: seen twice and for longer than a name may be seen late."""
    looks, since_s = memory.gone.get(bundle.bundle_id, (0, 0.0))
    return looks >= ABSENCES and now.mono_s >= since_s + 2 * limits.protocol.visible_s


def _gone(state: State, memory: Memory, bundle: Bundle, now: Now, limits: Limits) -> Iterator[Event | Action]:
    """No directory any more: once no batch job can be at work, what the server still wants of its jobs is lost."""
    if bundle.state is BundleState.SETTLED and not bundle.recalled:
        yield from _retire(state, memory, bundle, now, limits)
        return
    reason = f"shared_dir/bundles/{bundle.bundle_id} was there and is not: what it told is lost"
    memory.raise_alarm(f"directory-gone-{bundle.bundle_id}", reason, now.mono_s)
    yield from _once(memory, ReadEvidence(bundle.bundle_id, dict(bundle.offsets)), now)
    decided = memory.undecided() is None
    if decided and not _at_work(memory, bundle, now, limits) and not ask_first(memory, bundle):
        yield from settle_gone(state, bundle, now.utc, limits)


def _at_work(memory: Memory, bundle: Bundle, now: Now, limits: Limits) -> bool:
    """Whether a batch job of the open round may live."""
    current = bundle.current
    if bundle.state is not BundleState.OPEN or bundle.between_rounds or current is None or current.pilot_owns:
        return False
    memory.round_since_s.setdefault((bundle.bundle_id, current.number), now.mono_s)
    if current.state is RoundState.CLAIMED:
        return not current.batch_job_over
    return not giving_up(memory, bundle, current, now, limits)


def _claim(memory: Memory, bundle: Bundle, current: Round, now: Now, limits: Limits) -> Iterator[Action]:
    """Claim the round as the pilot; with weak fencing: mark, wait visible_s (from zero after a restart), look."""
    key = (bundle.bundle_id, current.number)
    if bundle.weak:
        if key not in memory.marked_s:
            yield from _once(memory, MakeMark(*key), now)
            return
        if now.mono_s < memory.marked_s[key] + limits.protocol.visible_s:
            return
    yield from _once(memory, MakeClaim(*key, bundle.weak), now)


def _all_marks_read(memory: Memory, bundle: Bundle, current: Round, now: Now, limits: Limits) -> bool:
    """Whether every mark of this round shows by now, all known owners being over: the one that went on may be the one
    whose mark is seen late. A mark is made before its maker's rival is lost, so visible_s later all are there.
    """
    if not bundle.weak:
        return True
    over_s = memory.over_s.setdefault((bundle.bundle_id, current.number), now.mono_s)
    return memory.read_asked_s.get(bundle.bundle_id, over_s) > over_s + limits.protocol.visible_s


def _once(memory: Memory, action: Action, now: Now) -> Iterator[Action]:
    if not memory.waiting(action.key, now.mono_s):
        yield action


def _intend(
    memory: Memory, bundle: Bundle, number: int, now: Now, limits: Limits
) -> Iterator[Event | Action]:
    """A new round: script first, a pause after the one before, then Intent and its only qsub."""
    key = (bundle.bundle_id, number)
    if key not in memory.scripts:
        yield from _once(
            memory, AddScript(bundle.bundle_id, number, render_script(bundle, number, limits)), now
        )
        return
    void_s = memory.round_since_s.get((bundle.bundle_id, number - 1))
    if number > 1 and void_s is not None and now.mono_s < void_s + limits.submit_retry_s:
        return
    if held_submit(memory, bundle, now, limits) is not None:
        return
    yield RoundIntended(now.utc, bundle.bundle_id, number)
    yield SubmitBatchJob(bundle.bundle_id, number, round_name(bundle, number))


def held_submit(memory: Memory, bundle: Bundle, now: Now, limits: Limits) -> str | None:
    """Why no round of this bundle may be submitted now, None if one may."""
    server = limits.queues[bundle.queue].server
    reason = outlives(memory, server, bundle.walltime_s, now.utc, limits)
    if reason is None and copy_missing(memory, bundle, limits):
        return f"the credential of {server} has not been copied yet"
    return reason


def giving_up(memory: Memory, bundle: Bundle, current: Round, now: Now, limits: Limits) -> bool:
    """Whether the pilot should try to claim an unclaimed round: its batch job is over, or nowhere after grace."""
    key = (bundle.bundle_id, current.number)
    if ("submit", *key) in memory.in_flight:
        return False
    if key in memory.marked:
        # Made by an earlier run: no gate goes on any more.
        return True
    grace_over = now.mono_s >= memory.round_since_s[key] + limits.protocol.grace_s
    if current.batch_ids:
        surely = all(current.ended.get(batch_id) == "over" for batch_id in current.batch_ids)
        return surely or (current.batch_job_over and grace_over)
    if current.refused is not None:
        return True
    return memory.name_absences.get(key, 0) >= ABSENCES and grace_over


def cancel_batch_job(memory: Memory, action: CancelBatchJob, now: Now, limits: Limits) -> Iterator[Action]:
    """qdel, and again only if the batch job still lives `cancel_again_s` later."""
    asked_s = memory.cancels_asked.get(action.batch_id, float("-inf"))
    if now.mono_s >= asked_s + limits.cancel_again_s:
        yield from _once(memory, action, now)


def _claimed(
    state: State, memory: Memory, bundle: Bundle, current: Round, now: Now, limits: Limits
) -> Iterator[Action]:
    """A batch job owns the round: wait for its end; close when it is over."""
    if current.batch_job_over:
        if _all_marks_read(memory, bundle, current, now, limits):
            yield from _once(memory, WriteClosed(bundle.bundle_id), now)
        return
    for batch_id in current.owners:
        seen = memory.seen_live.get(batch_id)
        requeued = seen is not None and seen.state in (BatchState.WAITING, BatchState.HELD)
        silent = silence(state, memory, bundle, current, limits)
        if bundle.cancel_reason is not None or requeued or silent:
            why = bundle.cancel_reason or silent or "requeued after its launch"
            yield from cancel_batch_job(memory, CancelBatchJob(bundle.bundle_id, batch_id, why), now, limits)


def _orders(state: State, memory: Memory, bundle: Bundle, now: Now) -> Iterator[Action]:
    """Tell the agents which jobs a person wants to see ended; also before they start, so that these never do."""
    if not bundle.orders:
        return
    ordered = [
        record
        for key in bundle.job_keys
        if (record := state.jobs.get(key)) is not None
        and record.kill_ordered
        and record.bundle_id == bundle.bundle_id
    ]
    if {record.panda_id for record in ordered} - memory.commands.get(bundle.bundle_id, frozenset()):
        end = tuple((record.panda_id, record.attempt_nr) for record in ordered)
        yield from _once(memory, WriteCommands(bundle.bundle_id, len(end), end), now)


def silence(state: State, memory: Memory, bundle: Bundle, current: Round, limits: Limits) -> str | None:
    """Why nothing more is to be expected of a claimed round: every node that still has work has been silent for
    `silent_s` of successful readings (a dead node keeps its batch job running for ever). None if one may speak.
    """
    read_s = memory.read_s.get(bundle.bundle_id)
    if read_s is None:
        return None
    since_s = memory.claim_read_s.get((bundle.bundle_id, current.number), memory.started_s)
    heard = memory.heard.get(bundle.bundle_id, {})
    silent = {
        index
        for index in range(len(bundle.nodes))
        if read_s - max(since_s, heard[index][2] if index in heard else since_s) > limits.silent_s
    }
    if not silent:
        return None
    nodes = [index for index, node in enumerate(bundle.nodes) if any(_open(state, bundle, i) for i in node)]
    if not nodes or not silent.issuperset(nodes):
        return None
    return f"node {', '.join(str(index) for index in nodes[:8])} silent for {limits.silent_s:.0f} s, no other has work"


def _open(state: State, bundle: Bundle, key: JobKey) -> bool:
    record = state.jobs.get(key)
    here = record is not None and record.bundle_id == bundle.bundle_id and record.verdict is None
    return here and key not in bundle.given_back


def _cancelling(memory: Memory, bundle: Bundle, current: Round, now: Now, limits: Limits) -> Iterator[Action]:
    """cancel(bundle): door, qdel, wait until it is over, then claim as the pilot."""
    key = (bundle.bundle_id, current.number)
    if memory.doors.get(bundle.bundle_id, 0) <= current.number:
        yield from _once(memory, SetDoor(bundle.bundle_id, current.number + 1), now)
        return
    for batch_id in current.owners:
        if batch_id not in current.ended:
            why = bundle.cancel_reason or "cancelled"
            yield from cancel_batch_job(memory, CancelBatchJob(bundle.bundle_id, batch_id, why), now, limits)
    nowhere = not current.owners and (
        current.refused is not None or memory.name_absences.get(key, 0) >= ABSENCES
    )
    if ("submit", *key) not in memory.in_flight and (current.batch_job_over or nowhere):
        yield from _claim(memory, bundle, current, now, limits)


def _settling(memory: Memory, bundle: Bundle, now: Now, limits: Limits) -> Iterator[Action]:
    """Wait settle_s (from zero after a restart, or after the filesystem held a reading up), then read all once more.

    Not while directories are unknown: a job that was not started here may have been since, in one of them.
    """
    closed_s = max(memory.closed_s.setdefault(bundle.bundle_id, now.mono_s), memory.held_up_s)
    if now.mono_s >= closed_s + limits.protocol.settle_s and memory.undecided() is None:
        yield from _once(memory, ReadEvidence(bundle.bundle_id, dict(bundle.offsets), last=True), now)


# Once is an outage that is over; a wait that was to begin anew so long after it should have ended will not end.
HELD_UP_SETTLES = 3


def note_held_up(state: State, memory: Memory, now: Now, limits: Limits) -> None:
    """Alarm while bundles cannot be settled because reading their files is held up again and again."""
    settle_s = limits.protocol.settle_s
    waiting = 0
    if now.mono_s < memory.held_up_s + settle_s:
        long_ago_s = now.mono_s - HELD_UP_SETTLES * settle_s
        waiting = sum(
            bundle.state is BundleState.CLOSED and memory.closed_s.get(i, now.mono_s) < long_ago_s
            for i, bundle in state.bundles.items()
        )
    if waiting:
        reason = (
            f"{waiting} closed bundles are not settled: the last slow reading of files took "
            f"{memory.held_up_took_s:.0f} s, more than protocol.visible_s ({limits.protocol.visible_s:g})"
        )
        memory.raise_alarm("readings-held-up", reason, now.mono_s)
    else:
        memory.clear_alarm("readings-held-up")


def _retire(state: State, memory: Memory, bundle: Bundle, now: Now, limits: Limits) -> Iterator[Action]:
    """Remove the directory when every report was accepted and the retention is over."""
    if bundle.settled_at is None or now.mono_s < memory.retire_s.get(bundle.bundle_id, float("-inf")):
        return
    age_s = (datetime.fromisoformat(now.utc) - datetime.fromisoformat(bundle.settled_at)).total_seconds()
    left_s = (limits.retain_failed_s if bundle.failures else limits.retain_ok_s) - age_s
    if is_gone(memory, bundle, now, limits):
        left_s = 0.0
    open_reports = any(
        (record := state.jobs.get(key)) is not None
        and record.bundle_id == bundle.bundle_id
        and not record.kept
        for key in bundle.job_keys
    ) or any(state.jobs[key].bundle_id == bundle.bundle_id for key in state.bound)
    if left_s > 0 or open_reports:
        # A wall clock that steps delays a removal by so long at most.
        again_s = min(max(left_s, RETIRE_AGAIN_S), RETIRE_AGAIN_MAX_S)
        if limits.pack_at_once and bundle.bundle_id not in memory.packed:
            if not open_reports and not memory.waiting(("pack", bundle.bundle_id), now.mono_s):
                memory.to_pack[bundle.bundle_id] = None
            again_s = RETIRE_AGAIN_S
        memory.retire_s[bundle.bundle_id] = now.mono_s + again_s
        return
    if ("pack", bundle.bundle_id) not in memory.in_flight:
        memory.to_pack.pop(bundle.bundle_id, None)
        yield from _once(memory, RemoveBundle(bundle.bundle_id), now)


def decide_packs(state: State, memory: Memory, limits: Limits) -> Iterator[Action]:
    """Pack the directories of bundles that are over, a few at once: nobody waits for it."""
    if not memory.to_pack:
        return
    room = limits.pack_at_once - sum(key[0] == "pack" for key in memory.in_flight)
    for bundle_id in list(islice(memory.to_pack, max(0, room))):
        del memory.to_pack[bundle_id]
        bundle = state.bundles.get(bundle_id)
        if bundle is not None and bundle.state is BundleState.SETTLED and not bundle.recalled:
            yield PackBundle(bundle_id, dict(bundle.offsets), limits.pack_bytes_max)
