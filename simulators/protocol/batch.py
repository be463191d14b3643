"""What the batch system, people and time do."""

from __future__ import annotations

from collections.abc import Iterator

from simulators.protocol import steps as S
from simulators.protocol.nodes import Next
from simulators.protocol.state import (
    ELSEWHERE,
    KILL,
    POLL,
    ROUNDS,
    SETTLE,
    VISIBLE,
    BatchJob,
    Files,
    Pilot,
    Start,
    State,
    job_of,
    replaced,
)
from simulators.protocol.variants import Rules

# Batch jobs and starts at most: two rounds, and two that are doubled or requeued.
JOBS_MAX, STARTS_MAX = 4, 4


def batch_steps(state: State, rules: Rules, may_fail: bool) -> Iterator[Next]:
    """Everything that may happen to batch jobs next."""
    for index, job in enumerate(state.jobs):
        if job.status == "sent":
            yield from _sent(state, index, job)
        elif job.status == "queued":
            if sum(item.runs for item in state.jobs) < STARTS_MAX:
                yield S.START, (job_name(index),), _started(state, index, job, rules)
        elif job.status == "running":
            yield from _running(state, index, job, rules, may_fail)
    if may_fail and len(state.jobs) < JOBS_MAX - ROUNDS + max((job.number for job in state.jobs), default=0):
        for number in sorted({job.number for job in state.jobs}):
            jobs = (*state.jobs, BatchJob(number, "queued"))
            yield S.DOUBLED, (number,), state._replace(jobs=jobs)


def job_name(index: int) -> str:
    """How a story calls a batch job."""
    return f"batch job {'ABCDEF'[index]}"


def _set(state: State, index: int, job: BatchJob) -> State:
    return state._replace(jobs=replaced(state.jobs, index, job))


def _sent(state: State, index: int, job: BatchJob) -> Iterator[Next]:
    yield S.ACCEPT, (job_name(index),), _set(state, index, job._replace(status="queued"))
    if not any(pilot.stage == "asked" and pilot.asked == index for pilot in state.pilots):
        yield S.VANISH, (job_name(index),), _set(state, index, job._replace(status="over"))


def _started(state: State, index: int, job: BatchJob, rules: Rules) -> State:
    at = "link" if not rules.weak else "mark" if rules.marks else "launch"
    starts = tuple(sorted((*state.starts, Start(index * 4 + job.runs, at))))
    after = _set(state, index, job._replace(status="running", runs=job.runs + 1))
    return after._replace(starts=starts)


def _running(state: State, index: int, job: BatchJob, rules: Rules, may_fail: bool) -> Iterator[Next]:
    mine = [start for start in state.starts if job_of(start) == index]
    if all(start.hung for start in mine):
        # Its processes are through, or the walltime ends it: what hangs cannot be killed and may come back.
        yield S.END, (job_name(index),), _set(state, index, job._replace(status="over"))
    if not may_fail:
        return
    live = any(not start.hung for start in mine)
    for survive in (False, True) if live else (False,):
        said = "survive" if survive else "die"
        if live:
            yield S.KILLED, (job_name(index), said), ended(state, index, survive)
        if rules.rerunnable or not rules.weak:
            yield S.REQUEUED, (job_name(index), said), ended(state, index, survive, "queued")


def ended(state: State, index: int, survive: bool, status: str = "over") -> State:
    """The batch job is over (or queued again); processes that hang, or survive, stay."""
    starts = tuple(start for start in state.starts if survive or start.hung or job_of(start) != index)
    return _set(state, index, state.jobs[index]._replace(status=status))._replace(starts=starts)


def other_steps(state: State, rules: Rules) -> Iterator[Next]:
    """Time, and the job's life elsewhere."""
    after = _tick(state, rules)
    if after is not None:
        yield S.TICK, (), after
    truth = state.truth
    if truth.freed == "not-started" and state.starts and not truth.accepted:
        files = state.files._replace(output=ELSEWHERE)
        yield S.ELSEWHERE_RUN, (), state._replace(files=files, truth=truth._replace(accepted=ELSEWHERE))


# Ticks that a process that works may take since its last look, by what it does.
_BOUNDS = {"spawn": POLL, "run": POLL, "kill": KILL, "place": POLL + KILL, "end-line": POLL + KILL}


def _tick(state: State, rules: Rules) -> State | None:
    """The state one tick later; None if nothing counts or somebody must do something before."""
    files = state.files
    if files.closed < 0 and not files.marks:
        return None
    starts = []
    for start in state.starts:
        bound = _BOUNDS.get(start.at)
        if start.at == "run" and not rules.look_while_running:
            bound = None
        if start.hung or bound is None or files.closed < 0:
            starts.append(start)
        elif start.since >= bound:
            return None
        else:
            starts.append(start._replace(since=start.since + 1))
    pilots = (_waits(state.pilots[0]), _waits(state.pilots[1]))
    after = state._replace(pilots=pilots, starts=tuple(starts), files=_aged(files))
    return after if after != state else None


def _aged(files: Files) -> Files:
    closed = min(files.closed + 1, VISIBLE) if files.closed >= 0 else -1
    start_line = min(files.start_line + 1, VISIBLE) if files.start_line >= 0 else -1
    end_line = min(files.end_line + 1, VISIBLE) if files.end_line >= 0 else -1
    marks = tuple((number, maker, min(age + 1, VISIBLE)) for number, maker, age in files.marks)
    return files._replace(closed=closed, start_line=start_line, end_line=end_line, marks=marks)


def _waits(pilot: Pilot) -> Pilot:
    memory = pilot.memory
    if pilot.life not in ("live", "stopped") or (memory.settle < 0 and memory.wait < 0):
        return pilot
    settle = min(memory.settle + 1, SETTLE) if memory.settle >= 0 else -1
    wait = min(memory.wait + 1, VISIBLE) if memory.wait >= 0 else -1
    return pilot._replace(memory=memory._replace(settle=settle, wait=wait))
