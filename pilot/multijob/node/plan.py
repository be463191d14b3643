"""What an agent does next. Pure: no I/O, no clock; times are seconds since the agent's start, passed in.

Level-triggered: `decide` compares the state with what is wanted and says everything that is to be done now; called
again with the same state it says the same. The agent (or the virtual world) carries it out and notes it in the state.
"""

from __future__ import annotations

import math
from itertools import islice
from typing import Any, Dict, FrozenSet, List, Mapping, NamedTuple, Optional, Sequence, Tuple, Union

from pilot.multijob.node.manifest import Job, Limits
from pilot.multijob.node.setups import Setup, next_wanted, overdue

# Between SIGTERM and SIGKILL of a payload that is ended: time to flush what it printed. Never over half of kill_s.
TERM_GRACE_S = 5.0
# Placing threads that do not come back are left behind this long before the end of the walltime.
LAST_S = 5.0

# Reasons for which nothing at all may be placed, and no time is given.
AT_ONCE = ("closed", "terminated")


class Running(NamedTuple):
    """A job in a slot. `waits`: for its inputs, it is not started. `placing`: its payload has ended. `over`: the limit
    that it is seen to exceed.

    `output_mib`: what it had printed when it was last looked at; `grown_s`: when that was more than before.

    `kill_at_s`: when SIGKILL follows the SIGTERM; `killed`: it was sent.
    """

    job: Job
    slot: int
    started_s: float
    placing: bool = False
    over: Optional[str] = None
    ended_by: Optional[str] = None
    kill_at_s: Optional[float] = None
    killed: bool = False
    output_mib: float = 0.0
    grown_s: Optional[float] = None
    waits: bool = False


class NodeState(NamedTuple):
    """All that decides what happens next on this node.

    `caldb`: "none" (not wanted), "starting", "ready" or "failed" with `caldb_reason`; the keeper itself keeps to
    `caldb_ready_s`, at `caldb_due_s` a keeper that hangs is given up. `stop`: why nothing more may be
    started (None: go on), set from outside. `journal_lost`: nothing can be proved any more, so nothing may run on.
    `setups`: the set-up scripts that jobs of the list name.
    `longest_s`: no pending job is predicted to take longer (one that did may have left); while that fits, no job is
    looked at that is not started: a list of thousands would be walked at each end of each payload.
    """

    pending: Tuple[Job, ...]
    longest_s: float = math.inf
    running: Tuple[Running, ...] = ()
    caldb: str = "none"
    caldb_reason: str = ""
    caldb_due_s: Optional[float] = None
    closed: bool = False
    terminated: bool = False
    asked_to_end: FrozenSet[Tuple[int, int]] = frozenset()
    quick_failures: int = 0
    stop: Optional[str] = None
    journal_lost: bool = False
    setups: Mapping[str, Setup] = {}


class StartJob(NamedTuple):
    """Work this job in this slot."""

    job: Job
    slot: int


class EndPayload(NamedTuple):
    """Send SIGTERM to the payload in this slot; SIGKILL is due `grace_s` later."""

    slot: int
    why: str
    grace_s: float


class KillPayload(NamedTuple):
    """SIGKILL everything of the payload in this slot."""

    slot: int


class GiveBack(NamedTuple):
    """These will not be started by this agent."""

    jobs: Tuple[Job, ...]
    reason: str


class BeginSetup(NamedTuple):
    """Run this set-up script."""

    script: str


class GiveUpSetup(NamedTuple):
    """End this set-up script: it took too long."""

    script: str


class GiveUpCaldb(NamedTuple):
    """End the keeper: it said nothing in time."""

    reason: str


class EndAgent(NamedTuple):
    """Nothing is left to do."""

    reason: str


Action = Union[StartJob, EndPayload, KillPayload, GiveBack, BeginSetup, GiveUpSetup, GiveUpCaldb, EndAgent]


def deadline_s(limits: Limits, seconds_left: float) -> float:
    """When payloads must have ended."""
    return seconds_left - limits.margin_s


def decide(
    state: NodeState, now_s: float, limits: Limits, slots: int, seconds_left: float
) -> Tuple[Action, ...]:
    """Everything to be done now, in this order."""
    actions: List[Action] = []
    deadline = deadline_s(limits, seconds_left)
    for running in state.running:
        actions.extend(_end(state, running, now_s, limits, deadline))
    starts, back = _pending(state, now_s, limits, slots, deadline)
    actions.extend(back)
    actions.extend(starts)
    left = len(state.pending) - len(starts) - sum(len(item.jobs) for item in back)
    if state.setups and left and not state.closed:
        actions.extend(_setups(state, now_s))
    if state.caldb == "starting" and state.caldb_due_s is not None and now_s >= state.caldb_due_s:
        actions.append(GiveUpCaldb("no answer in %.0f s" % limits.caldb_ready_s))
    idle = not state.running and not starts and (left == 0 or state.closed)
    if idle or (
        now_s >= seconds_left - LAST_S and all(item.placing or item.killed for item in state.running)
    ):
        actions.append(EndAgent(_end_reason(state, now_s, limits, deadline)))
    return tuple(actions)


def _setups(state: NodeState, now_s: float) -> Sequence[Action]:
    late = overdue(state.setups, now_s)
    if late is not None:
        return (GiveUpSetup(late),)
    script = next_wanted(state.setups)
    return () if script is None else (BeginSetup(script),)


def _end(
    state: NodeState, running: Running, now_s: float, limits: Limits, deadline: float
) -> Sequence[Action]:
    if running.placing or running.killed:
        return ()
    why = _why_end(state, running, now_s, limits, deadline)
    if why in AT_ONCE:
        if running.ended_by is None:
            return (EndPayload(running.slot, why, 0.0), KillPayload(running.slot))
        return (KillPayload(running.slot),)
    if running.ended_by is None:
        if why is None:
            return ()
        return (EndPayload(running.slot, why, min(TERM_GRACE_S, limits.kill_s / 2)),)
    if running.kill_at_s is not None and now_s >= running.kill_at_s:
        return (KillPayload(running.slot),)
    return ()


def _why_end(
    state: NodeState, running: Running, now_s: float, limits: Limits, deadline: float
) -> Optional[str]:
    if state.closed:
        return "closed"
    if state.terminated or state.journal_lost:
        return "terminated"
    if (running.job.panda_id, running.job.attempt_nr) in state.asked_to_end:
        return "killed"
    if running.over is not None:
        return running.over
    if state.caldb == "failed" and running.job.kind.needs_caldb:
        return "caldb-lost"
    if now_s >= deadline - (running.job.predicted_s if running.waits else 0.0):
        return "deadline"
    return None if running.waits else _too_long(running, now_s, limits)


def _too_long(running: Running, now_s: float, limits: Limits) -> Optional[str]:
    if limits.wall_max_s is not None and now_s - running.started_s >= limits.wall_max_s:
        return "limit-wall"
    grown_s = running.started_s if running.grown_s is None else running.grown_s
    if limits.quiet_max_s is not None and now_s - grown_s >= limits.quiet_max_s:
        return "limit-quiet"
    return None


def _pending(
    state: NodeState, now_s: float, limits: Limits, slots: int, deadline: float
) -> Tuple[Tuple[StartJob, ...], Tuple[GiveBack, ...]]:
    if state.closed:
        return (), ()
    back: Dict[str, List[Job]] = {}
    reason_for_all = _why_all_back(state, limits)
    left_s = deadline - now_s
    keep: Sequence[Job] = state.pending
    if reason_for_all is not None or _some_may_go_back(state, left_s):
        keep = []
        for job in state.pending:
            reason = _why_back(state, job, left_s) if reason_for_all is None else reason_for_all
            if reason is None:
                keep.append(job)
            else:
                back.setdefault(reason, []).append(job)
    taken = {item.slot for item in state.running}
    free = [slot for slot in range(slots) if slot not in taken]
    ready = (job for job in keep if _has_all(state, job))
    begun = islice(ready, len(free))
    starts = tuple(StartJob(job, slot) for job, slot in zip(begun, free))  # noqa: B905 (3.8 has no strict)
    return starts, tuple(GiveBack(tuple(jobs), reason) for reason, jobs in back.items())


def _has_all(state: NodeState, job: Job) -> bool:
    if job.kind.needs_caldb and state.caldb != "ready":
        return False
    return job.setup is None or state.setups[job.setup].state == "ready"


def _some_may_go_back(state: NodeState, left_s: float) -> bool:
    """False if `_why_back` finds no reason for any pending job: then none need be asked."""
    if state.asked_to_end or state.caldb == "failed" or state.longest_s > left_s:
        return True
    return any(setup.state == "failed" for setup in state.setups.values())


def _why_all_back(state: NodeState, limits: Limits) -> Optional[str]:
    """Why nothing more is started here at all, None if something may be."""
    if state.terminated:
        return "agent was asked to end"
    if state.stop is not None:
        return state.stop
    if state.quick_failures >= limits.quick_failures:
        return "%d quick failures in a row on this node" % state.quick_failures
    return None


def _why_back(state: NodeState, job: Job, left_s: float) -> Optional[str]:
    """Why this job is not started here. `left_s` until the deadline."""
    if state.asked_to_end and (job.panda_id, job.attempt_nr) in state.asked_to_end:
        return "asked to end before it started"
    if state.caldb == "failed" and job.kind.needs_caldb:
        return "calibration server: " + state.caldb_reason
    if job.setup is not None and state.setups[job.setup].state == "failed":
        return "set-up script %s: %s" % (job.setup, state.setups[job.setup].reason)
    if job.predicted_s > left_s:
        return "does not fit before the deadline"
    return None


def _end_reason(state: NodeState, now_s: float, limits: Limits, deadline: float) -> str:
    if state.closed:
        return "closed"
    if state.terminated:
        return "terminated"
    if state.stop is not None:
        return state.stop
    if state.quick_failures >= limits.quick_failures:
        return "quick failures"
    if state.caldb == "failed":
        return "no calibration server"
    if any(setup.state == "failed" for setup in state.setups.values()):
        return "no set-up"
    if now_s >= deadline:
        return "deadline"
    return "list worked"


def next_due_s(state: NodeState, now_s: float, limits: Limits, seconds_left: float) -> float:
    """When `decide` may say something new though nothing happened."""
    deadline = deadline_s(limits, seconds_left)
    due = [item.kill_at_s for item in state.running if item.kill_at_s is not None and not item.killed]
    live = [item for item in state.running if not item.placing and item.ended_by is None]
    due += [deadline - (item.job.predicted_s if item.waits else 0.0) for item in live]
    live = [item for item in live if not item.waits]
    if live and limits.wall_max_s is not None:
        due.append(min(item.started_s for item in live) + limits.wall_max_s)
    if state.pending and not state.closed:
        too_late = deadline - state.longest_s
        if too_late <= now_s:  # what took so long may have left: look which one is the longest now
            too_late = deadline - max(job.predicted_s for job in state.pending)
        due.append(too_late)
    if state.caldb == "starting" and state.caldb_due_s is not None:
        due.append(state.caldb_due_s)
    due += [
        item.due_s for item in state.setups.values() if item.state == "running" and item.due_s is not None
    ]
    due.append(seconds_left - LAST_S)
    return min(due)


def quick_failures_after(before: int, facts: Mapping[str, object], limits: Limits) -> int:
    """Length of the row of quick failures after one more `job_ended`. What the agent ended itself counts neither way.

    A quick failure is a heuristic about the node, no verdict about the job: an exit code other than 0, no end marker
    where one is expected, or a declared output that is not there or empty, before `quick_failure_s`. So is a job whose
    inputs this node cannot get: the edge has seen them.
    """
    if facts["ended_by"] in ("no-input", "stage-in"):
        return before + 1
    if facts["ended_by"] is not None:
        return before
    files = facts["files"]
    assert isinstance(files, list)
    missing = any(not item["size"] for item in files)
    failed = facts["exit_code"] != 0 or facts["marker"] is False or missing
    wall_s = facts["wall_s"]
    assert isinstance(wall_s, float)
    if failed:
        return before + 1 if wall_s < limits.quick_failure_s else 0
    return 0


def asked_to_end(commands: Any, serial: int) -> Optional[Tuple[int, FrozenSet[Tuple[int, int]]]]:
    """(serial, jobs to end) of a `commands.json` that is newer than `serial`; None if it is not, or makes no sense."""
    try:
        number = commands["serial"]
        jobs = frozenset((item["panda_id"], item["attempt_nr"]) for item in commands["end"])
    except (KeyError, TypeError):
        return None
    return (number, jobs) if type(number) is int and number > serial else None


def slot_cpus(slot: int, slots: int, cpus: Sequence[int]) -> FrozenSet[int]:
    """The share of the node's cores that is a slot's own; neighbours in the numbering, so of one NUMA domain.

    More slots than cores: several slots share a core.
    """
    count = len(cpus)
    if slots >= count:
        return frozenset((cpus[slot % count],))
    return frozenset(cpus[slot * count // slots : (slot + 1) * count // slots])


def slot_domain(slot: int, slots: int, domains: Sequence[FrozenSet[int]]) -> FrozenSet[int]:
    """The cores of a slot's NUMA domain, all of which it shares with the other slots there.

    More domains than slots: a slot has several. Neighbours in the numbering share a domain, as evenly as it goes.
    """
    count = len(domains)
    if slots >= count:
        return domains[slot * count // slots]
    return frozenset().union(*domains[slot * count // slots : (slot + 1) * count // slots])


def over_limit(rss_mib: float, stdout_mib: float, limits: Limits) -> Optional[str]:
    """Name of the limit that a payload exceeds, None if none. Output: stdout and stderr together."""
    if limits.rss_max_mib is not None and rss_mib > limits.rss_max_mib:
        return "limit-rss"
    if stdout_mib > limits.stdout_max_mib:
        return "limit-stdout"
    return None
