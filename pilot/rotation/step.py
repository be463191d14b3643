"""One tick of the daemon as a pure function: answers in, actions out. The same in all three worlds.

Order: recognise and apply the answers' events, decide, record the intents, release what may be released. An
action whose barrier is EVENTS is held until every event recorded before it is durable and the lease, read again
after that, is still ours.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import cast, get_args

from pilot.multijob.actions import Action, AppendEvents, Barrier, CancelBatchJob, ListBatchJobs
from pilot.multijob.adoption import decide_adoption
from pilot.multijob.allocation import decide_allocation
from pilot.multijob.apply import apply
from pilot.multijob.codec import encode
from pilot.multijob.credential import looks_due
from pilot.multijob.decide import (
    cancel_batch_job,
    decide_bundle,
    decide_packs,
    kept_quiet,
    note_held_up,
)
from pilot.multijob.events import BundlePlanned, BundleSettled, Event, JobBound, JobFetched, JobJudged
from pilot.multijob.inputs import decide_looks, forget_inputs
from pilot.multijob.knownjobs import key_of
from pilot.multijob.memory import Memory
from pilot.multijob.model import BundleState, Limits, State
from pilot.multijob.recognise import Now, recognise
from pilot.multijob.reporting import due_reports, note_event, questions
from pilot.multijob.salvage import decide_bound
from pilot.multijob.snapshot import decide_snapshot
from pilot.multijob.space import decide_space
from pilot.ports import Answer, BundleId
from pilot.rotation.caps import note_caps
from pilot.rotation.commands import Command, obey
from pilot.rotation.policy import decide_fetch, decide_hold, decide_leftover
from pilot.rotation.tasks import decide_tasks
from pilot.rotation.turns import decide_plans, pause_after

EVENT_TYPES: tuple[type, ...] = get_args(Event)


@dataclass(frozen=True, slots=True)
class View:
    """What one tick sees: answers of the lanes, the time, tags drawn for new bundles (one for each queue), and what
    people ordered since the last tick."""

    answers: tuple[Answer, ...]
    now: Now
    tags: tuple[BundleId, ...]
    commands: tuple[Command, ...] = ()


@dataclass(frozen=True, slots=True)
class Step:
    """Result of a tick. `events` are recorded and applied, `released` go to their lanes now.

    `stop`: None, or why this daemon must end without another write (exit 75). `limits`: those of a new configuration,
    from the next tick on; None: as they were.
    """

    events: tuple[Event, ...]
    released: tuple[Action, ...]
    stop: str | None = None
    limits: Limits | None = None


def step(state: State, memory: Memory, view: View, limits: Limits) -> Step:
    """One tick. Changes `state` through `apply` only, and `memory`."""
    events: list[Event] = []
    urgent: list[Action] = []

    def record(event: Event) -> None:
        apply(state, event)
        note_event(state, memory, event)
        memory.records.append(encode(event))
        memory.recorded += 1
        if isinstance(event, JobFetched):
            memory.fetched[key_of(state, event.server, event.job.panda_id)] = memory.recorded
        elif isinstance(event, JobJudged | JobBound):
            forget_inputs(memory, key_of(state, event.server, event.panda_id))
        elif isinstance(event, BundlePlanned):
            for key in state.bundles[event.bundle_id].job_keys:
                forget_inputs(memory, key)
            memory.next_start_s = view.now.mono_s + pause_after(event.bundle_id, limits)
        elif isinstance(event, BundleSettled):
            bundle = state.bundles[event.bundle_id]
            if not bundle.adopted and event.bundle_id not in memory.inherited:
                # Of what an older run began it is not known what became of its jobs.
                memory.bundle_was_settled(bundle.queue, bundle.started, view.now.mono_s)
        events.append(event)

    for answer in view.answers:
        for event in recognise(state, memory, answer, view.now, limits):
            record(event)
    if memory.overtaken_by is not None:
        return Step(tuple(events), (), f"lease epoch {memory.overtaken_by} is in charge")
    for result in _decide(state, memory, view, limits):
        if isinstance(result, EVENT_TYPES):
            record(cast(Event, result))
            continue
        result = cast(Action, result)
        memory.in_flight[result.key] = view.now.mono_s
        if result.barrier is Barrier.NOTHING:
            urgent.append(result)
        else:
            memory.held.append((memory.recorded, result))
    reloaded = [command.limits for command in view.commands if command.limits is not None]
    released = (*urgent, *_released(memory), *_append(memory, view.now))
    return Step(tuple(events), released, limits=reloaded[-1] if reloaded else None)


def _decide(state: State, memory: Memory, view: View, limits: Limits) -> Iterator[Event | Action]:
    now = view.now
    for command in view.commands:
        yield from obey(state, memory, command, now, limits)
    yield from due_reports(state, memory, now.utc, now.mono_s, limits)
    yield from looks_due(memory, now.mono_s, limits)
    yield from decide_space(memory, now.mono_s, limits)
    yield from decide_allocation(memory, now.mono_s, limits)
    for question in questions(memory, limits):
        if not memory.waiting(question.key, now.mono_s):
            yield question
    yield from decide_snapshot(memory, now.mono_s)
    yield from _listing(memory, now, limits)
    yield from decide_adoption(state, memory, now.utc, now.mono_s, limits)
    for bundle in list(state.bundles.values()):
        if kept_quiet(memory, bundle, now.mono_s):
            continue
        yield from decide_bundle(state, memory, bundle, now, limits)
    yield from decide_packs(state, memory, limits)
    note_held_up(state, memory, now, limits)
    yield from decide_bound(state, memory, now.utc, now.mono_s, limits)
    for batch_id, bundle_id in memory.strays.items():
        yield from cancel_batch_job(memory, CancelBatchJob(bundle_id, batch_id, "stray"), now, limits)
    for queue in limits.queues.values():
        yield from decide_hold(state, queue, now)
        note_caps(state, memory, queue, now.utc, now.mono_s)
        yield from decide_tasks(state, memory, queue, now.utc, now.mono_s, limits)
        yield from decide_looks(state, memory, queue.name, now.utc, now.mono_s, limits)
        yield from decide_fetch(state, memory, queue, now, limits)
    yield from decide_plans(state, memory, now, limits, dict(zip(limits.queues, view.tags, strict=False)))
    for queue in limits.queues.values():
        yield from decide_leftover(state, memory, queue, now, limits)


def _listing(memory: Memory, now: Now, limits: Limits) -> Iterator[Action]:
    """One listing a cycle for any number of bundles; single questions between two."""
    if memory.singles and not memory.waiting(("list", "singly"), now.mono_s):
        yield ListBatchJobs(memory.singles)
        memory.singles = ()
    due_s = memory.listing_asked_s + limits.listing_every_s
    if now.mono_s >= due_s and not memory.waiting(("list",), now.mono_s):
        memory.listing_asked_s = now.mono_s
        yield ListBatchJobs()


def _released(memory: Memory) -> Iterator[Action]:
    while memory.held and memory.held[0][0] <= memory.durable:
        yield memory.held.popleft()[1]


def _append(memory: Memory, now: Now) -> Sequence[Action]:
    """Group commit: all records of now in one append, one append at a time."""
    if not memory.records or memory.waiting(("append",), now.mono_s):
        return ()
    memory.appending, memory.records = memory.records, []
    action = AppendEvents(memory.recorded, tuple(memory.appending))
    memory.in_flight[action.key] = now.mono_s
    return (action,)


class RunEnd(StrEnum):
    """Why a run of the daemon is over.

    STOPPED: a signal or `pilot stop`; batch jobs run on. REPORTED: the one bundle of `--once`, or a job that could
    not enter it, is reported. NO_JOBS: `--once`, and the server gave none twice in a row.
    """

    STOPPED = "stopped"
    REPORTED = "reported"
    NO_JOBS = "no jobs"


def end_of_run(state: State, memory: Memory, limits: Limits, *, stopping: bool) -> RunEnd | None:
    """Whether the daemon ends now, and why. `stopping`: a signal came.

    A stop waits for the journal (not for one that cannot be written) and for answers to commands under way.
    """
    if stopping or memory.stopping:
        unanswered = any(key[0] == "answer" for key in memory.in_flight)
        unwritten = memory.recorded != memory.durable and "journal-not-writable" not in memory.alarms
        return None if unanswered or unwritten else RunEnd.STOPPED
    if not limits.once or not idle(state, memory):
        return None
    if any(totals.bundles or totals.failed for totals in state.totals.values()):
        return RunEnd.REPORTED
    if any(delay.failures >= 2 for key, delay in memory.delays.items() if key[0] == "fetch"):
        return RunEnd.NO_JOBS
    return None


def idle(state: State, memory: Memory) -> bool:
    """Nothing is open: no job, no bundle that is not settled, no record that is not durable, no action held."""
    open_bundles = any(bundle.state is not BundleState.SETTLED for bundle in state.bundles.values())
    open_jobs = any(not record.kept for record in state.jobs.values())
    return not open_jobs and not open_bundles and memory.recorded == memory.durable and not memory.held
