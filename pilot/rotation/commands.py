"""What people order over the control socket: a request becomes a command, a command becomes events and an answer.

Pure. The answer is an action behind the events' barrier: "done" is said when the order is durable, never before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from pilot.multijob.actions import Action, AnswerCommand
from pilot.multijob.events import (
    DrainOrdered,
    Event,
    JobJudged,
    KillOrdered,
    PauseOrdered,
    QueueResumed,
    TaskResumed,
)
from pilot.multijob.memory import Memory
from pilot.multijob.model import BundleState, JobState, Limits, State
from pilot.multijob.recognise import Now
from pilot.multijob.reporting import confirm_kills
from pilot.rotation.census import is_live
from pilot.rotation.policy import held_by_order
from pilot.rotation.tasks import task_id
from pilot.rotation.why import why

# PanDA fails a job so long after its last heartbeat, and one that only was handed out (docs/facts/panda.md).
LOST_HEARTBEAT_S, NEVER_STARTED_S = 7200.0, 1800.0


@dataclass(frozen=True, slots=True)
class Command:
    """One request. `queues`: names of queues of the config, empty for all. `subject`: the id that `why` is about.

    `tasks`: short names of tasks that a resume is for, or "all". `at_most`: a confirmation is not meant for more held
    orders. A reload: `limits` of the new configuration, None
    where it cannot be taken over; `lines` say what changes, or why nothing does.
    """

    serial: int
    verb: str
    queues: tuple[str, ...] = ()
    cancel_queued: bool = False
    until: str | None = None
    subject: str = ""
    tasks: tuple[str, ...] = ()
    at_most: int | None = None
    limits: Limits | None = None
    lines: tuple[str, ...] = ()


class BadRequest(ValueError):
    """A request that is no command; the text says why."""


def parse_command(serial: int, request: Mapping[str, Any]) -> Command:
    """The command of one request from the socket. Raises BadRequest."""
    verb, queues, until = request.get("verb"), request.get("queues", []), request.get("until")
    cancel, subject = request.get("cancel_queued", False), request.get("subject", "")
    if not isinstance(verb, str) or verb not in VERBS:
        raise BadRequest("unknown request")
    if not isinstance(queues, list) or not all(isinstance(name, str) for name in queues):
        raise BadRequest("queues: expected a list of names")
    tasks = request.get("tasks", [])
    if not isinstance(tasks, list) or not all(isinstance(name, str) for name in tasks):
        raise BadRequest("tasks: expected a list of names")
    at_most = request.get("at_most")
    if at_most is not None and (type(at_most) is not int or at_most < 0):
        raise BadRequest("at_most: expected a number of jobs")
    if not isinstance(cancel, bool) or not isinstance(subject, str):
        raise BadRequest("cancel_queued: expected true or false; subject: expected a text")
    if until is not None:
        try:
            known = isinstance(until, str) and datetime.fromisoformat(until).utcoffset() is not None
        except ValueError:
            known = False
        if not known:
            raise BadRequest("until: expected a time with its zone")
    return Command(serial, verb, tuple(queues), cancel, until, subject, tuple(tasks), at_most)


def obey(
    state: State, memory: Memory, command: Command, now: Now, limits: Limits
) -> Iterator[Event | Action]:
    """Events of one command, then its answer. Each event must be applied before the next result is asked for."""
    unknown = [name for name in command.queues if name not in limits.queues]
    if unknown:
        known = ", ".join(limits.queues)
        text = (
            f"no queue {', '.join(ascii(name[:60]) for name in unknown)}: nothing is changed; known: {known}"
        )
        yield AnswerCommand(command.serial, False, (text,))
        return
    lines: list[str] = []
    done = True
    for result in VERBS[command.verb](state, memory, command, now, limits):
        if isinstance(result, str):
            lines.append(result)
        elif isinstance(result, bool):
            done = result
        else:
            yield result
    yield AnswerCommand(command.serial, done, tuple(lines))


# What a verb gives: events, lines for the person, and False where it could not be done.
Results = Iterator[Event | str | bool]


def _queues(command: Command, limits: Limits) -> tuple[str, ...]:
    return command.queues or tuple(limits.queues)


def _pause(state: State, memory: Memory, command: Command, now: Now, limits: Limits) -> Results:
    for name in _queues(command, limits):
        hold = state.holds.get(name)
        if hold is not None:
            yield f"queue {name}: {held_by_order(state, name)}: left as it is"
            continue
        yield PauseOrdered(now.utc, name)
        yield f"queue {name}: paused; {_open_work(state, name)}"


def _drain(state: State, memory: Memory, command: Command, now: Now, limits: Limits) -> Results:
    if command.until is not None and datetime.fromisoformat(command.until) <= datetime.fromisoformat(now.utc):
        yield f"{command.until} is over (it is {now.utc}): nothing is changed"
        yield False
        return
    for name in _queues(command, limits):
        pooled = len(state.pools.get(name, {}))
        yield DrainOrdered(now.utc, name, command.cancel_queued, command.until)
        yield f"queue {name}: drains; {pooled} waiting jobs end as not started; {_open_work(state, name)}"


def _resume_tasks(state: State, command: Command, now: Now) -> Results:
    known = {task_id(task): task for task in state.tasks}
    names = tuple(known) if command.tasks == ("all",) else command.tasks
    for name in names:
        task = known.get(name)
        if task is None:
            yield f"no task {name[:60]!a}: known are {', '.join(known) or 'none'}"
            yield False
        elif state.tasks[task].stopped_at is None:
            yield f"task {name}: not stopped"
        else:
            yield TaskResumed(now.utc, task)
            yield f"task {name}: resumed"


def _resume(state: State, memory: Memory, command: Command, now: Now, limits: Limits) -> Results:
    if command.tasks:
        yield from _resume_tasks(state, command, now)
        return
    for name in _queues(command, limits):
        if name not in state.holds:
            yield f"queue {name}: neither paused nor drained"
            continue
        yield QueueResumed(now.utc, name, "pilot resume")
        yield f"queue {name}: resumed"


def _stop(state: State, memory: Memory, command: Command, now: Now, limits: Limits) -> Results:
    memory.stopping = True
    live = sum(is_live(bundle) for bundle in state.bundles.values())
    yield f"the daemon stops; {live} batch jobs run on or wait, the next start adopts them"
    fails_at = server_fails_at(state, memory, now)
    if fails_at is None:
        yield "no job is open: the server will miss no heartbeat"
    else:
        yield f"the server starts to fail jobs at {fails_at}: start the daemon again before that"


def server_fails_at(state: State, memory: Memory, now: Now) -> str | None:
    """UTC time (ISO text) at which the first open job is failed if nothing is reported any more, None without jobs.

    A job whose last heartbeat this run does not know counts from its fetch.
    """
    first_s: float | None = None
    utc = datetime.fromisoformat(now.utc)
    for key, record in state.jobs.items():
        if record.orphaned:
            continue
        known = memory.reported.get(key)
        if known is not None and known.status is not None:
            left_s = known.accepted_s + LOST_HEARTBEAT_S - now.mono_s
        else:
            waited_s = (utc - datetime.fromisoformat(record.fetched_at)).total_seconds()
            left_s = NEVER_STARTED_S - waited_s
        first_s = left_s if first_s is None else min(first_s, left_s)
    return (
        None
        if first_s is None
        else (utc + timedelta(seconds=max(first_s, 0.0))).isoformat(timespec="seconds")
    )


def _confirm_kill(state: State, memory: Memory, command: Command, now: Now, limits: Limits) -> Results:
    """Orders that come later are counted anew: a confirmation is for those that a person could see."""
    held = len(memory.kills_held)
    if not held:
        yield "no order to end a job is held: nothing is changed"
        return
    if command.at_most is not None and held > command.at_most:
        yield f"{held} orders to end a job are held, more than {command.at_most}: nothing is changed"
        yield False
        return
    ended = waiting = 0
    for event in confirm_kills(state, memory, now.utc, limits):
        ended += isinstance(event, KillOrdered)
        waiting += isinstance(event, JobJudged)
        yield event
    yield (
        f"{held} orders were held: {ended - waiting} jobs in bundles are being ended, {waiting} that waited are over, "
        f"{held - ended} had ended by themselves"
    )


def _why(state: State, memory: Memory, command: Command, now: Now, limits: Limits) -> Results:
    lines = why(state, memory, command.subject, now, limits)
    yield from lines
    yield bool(lines)
    if not lines:
        yield f"{command.subject[:100]!a} is not open here; `pilot story` tells what became of it"


def _reload(state: State, memory: Memory, command: Command, now: Now, limits: Limits) -> Results:
    """The limits themselves change with this tick's end (rotation.step)."""
    yield from command.lines
    yield command.limits is not None


VERBS: Mapping[str, Callable[[State, Memory, Command, Now, Limits], Results]] = {
    "pause": _pause,
    "drain": _drain,
    "resume": _resume,
    "stop": _stop,
    "confirm-kill": _confirm_kill,
    "why": _why,
    "reload": _reload,
}


def _open_work(state: State, queue: str) -> str:
    """What of a queue goes on."""
    bundles = sum(b.queue == queue and b.state is not BundleState.SETTLED for b in state.bundles.values())
    jobs = sum(state.counts.get((queue, job_state), 0) for job_state in (JobState.BUNDLED, JobState.STARTED))
    return f"{bundles} bundles with {jobs} jobs go on"
