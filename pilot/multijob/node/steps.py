"""The steps of one job and of one placement, as generators of operations: the protocol's order is this text.

start line, fsync -> look for `closed` -> payload -> look -> place by link(2) -> end line, fsync (DESIGN section 3).
An agent that hung anywhere and comes back either sees `closed` or had made its line durable before it was written.
"""

from __future__ import annotations

import errno
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

from pilot.multijob.node.files import (
    Copied,
    CopyNew,
    CountLinks,
    Exists,
    Link,
    Pause,
    Steps,
    Sum,
    SyncDirectory,
    Unlink,
)
from pilot.multijob.node.journal import escape
from pilot.multijob.node.manifest import Job, Place

# Pauses before the second, third and fourth try of a look or a placement: a busy metadata server recovers in seconds.
TRY_AGAIN_S = (0.5, 2.0, 8.0)
TROUBLE_CHARACTERS = 500
# No later try will find these different.
FINAL_ERRORS = frozenset(
    (errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EROFS, errno.EACCES, errno.EPERM)
)


class Line(NamedTuple):
    """Append this line to the node journal, durably unless `sync` is false. Replies None.

    Not `awaited`: nothing in these steps follows it, so it may become durable together with the next line.
    """

    kind: str
    body: Dict[str, Any]
    sync: bool = True
    awaited: bool = True


class MakeInputs(NamedTuple):
    """Make the job's inputs available by the site's method. Replies `InputsMade`."""

    job: Job
    slot: int


class InputsMade(NamedTuple):
    """`places`: each path that the job names and where it is for this node; empty where they are used in place.

    `trouble`: why they are not available; `absent`: because one is not there. `ended_by`: the job was ended meanwhile.
    """

    places: Tuple[Tuple[str, str], ...]
    trouble: str = ""
    absent: bool = False
    ended_by: Optional[str] = None


class RunPayload(NamedTuple):
    """Spawn the payload, or this one of its steps, and let it end (or end it). Replies `PayloadEnd`."""

    job: Job
    slot: int
    inputs: Tuple[Tuple[str, str], ...] = ()
    step: Optional[int] = None


class Collect(NamedTuple):
    """Read what the payload printed and place files: all declared, only the log, or none. Replies `Collected`."""

    job: Job
    slot: int
    end: PayloadEnd
    place_outputs: bool
    place_log: bool


class StepEnd(NamedTuple):
    """How one step of a payload ended. `printed`: bytes of stdout and stderr by then."""

    name: str
    exit_code: Optional[int]
    signal: Optional[int]
    wall_s: float
    cpu_s: float
    rss_mib: float
    printed: Tuple[int, int]


class PayloadEnd(NamedTuple):
    """How a payload ended. `note`: what the agent has to say itself (it could not be started), else "".

    `steps`: those that ran, if it has several. The code is then that of the first one that failed.
    """

    exit_code: Optional[int]
    signal: Optional[int]
    ended_by: Optional[str]
    wall_s: float
    cpu_s: float
    rss_mib: float
    start_utc: str
    end_utc: str
    note: str = ""
    printed: Tuple[int, int] = (0, 0)
    steps: Tuple[StepEnd, ...] = ()


class Collected(NamedTuple):
    """Facts of output and files, as in the `job_ended` line. `trouble`: why not all of them could be had.

    `markers`: of each step that ran, None where none is expected.
    """

    marker: Optional[bool]
    patterns: Tuple[str, ...]
    events_read: Optional[int]
    events_written: Optional[int]
    files: Tuple[Dict[str, Any], ...]
    stderr_tail: str
    trouble: str = ""
    markers: Tuple[Optional[bool], ...] = ()


class JobResult(NamedTuple):
    """What became of the steps: `facts` of the end line, or `closed` seen before the payload was spawned."""

    facts: Optional[Dict[str, Any]]
    closed: bool


def look(directory: str) -> Steps[bool]:
    """True if nothing may be started or placed any more. A bundle directory that is gone was closed before."""
    if (yield Exists(directory + "/closed")):
        return True
    return not (yield Exists(directory + "/manifest.json"))


def patient_look(directory: str) -> Steps[bool]:
    """`look`, tried again when it cannot be known. Raises the last OSError."""
    for pause in TRY_AGAIN_S:
        try:
            return (yield from look(directory))
        except OSError:
            yield Pause(pause)
    return (yield from look(directory))


def job_steps(directory: str, job: Job, slot: int) -> Steps[JobResult]:
    """One job from its start line to its end line. Raises OSError if a line or a look failed for good."""
    who = {"panda_id": job.panda_id, "attempt_nr": job.attempt_nr, "slot": slot}
    made = InputsMade(())
    if job.inputs:
        # Before the start line: until all is here nothing was started, and between look and payload nothing waits.
        made = yield MakeInputs(job, slot)
        if made.ended_by is not None or made.trouble:
            return (yield from _without_inputs(job, who, made))
    yield Line("job_started", dict(who))
    if (yield from patient_look(directory)):
        return JobResult(None, True)
    end = yield from _run_payload(job, slot, made.places)
    outputs, log = what_to_place(end)
    collected: Collected = yield Collect(job, slot, end, outputs, log)
    facts = {**who, **render_facts(end, collected)}
    yield Line("job_ended", facts, awaited=False)
    return JobResult(facts, False)


def _run_payload(job: Job, slot: int, inputs: Tuple[Tuple[str, str], ...]) -> Steps[PayloadEnd]:
    """The payload, or its steps one after the other until one fails; then only those that run in any case."""
    end: PayloadEnd
    if not job.steps:
        end = yield RunPayload(job, slot, inputs)
        return end
    ends: List[PayloadEnd] = []
    ran: List[StepEnd] = []
    for number, step in enumerate(job.steps):
        if any(_failed(end) for end in ends) and not step.after_failure:
            continue
        end = yield RunPayload(job, slot, inputs, number)
        ends.append(end)
        ran.append(_step_end(step.name, end))
        if end.ended_by is not None:
            break
    return join_ends(ends, ran)


def join_ends(ends: List[PayloadEnd], ran: List[StepEnd]) -> PayloadEnd:
    """One end of all steps: the first that failed decides the code, times add up, the largest memory counts."""
    decides = next((end for end in ends if _failed(end)), ends[-1])
    return decides._replace(
        ended_by=ends[-1].ended_by,
        wall_s=sum(end.wall_s for end in ends),
        cpu_s=sum(end.cpu_s for end in ends),
        rss_mib=max(end.rss_mib for end in ends),
        start_utc=ends[0].start_utc,
        end_utc=ends[-1].end_utc,
        note="".join(end.note for end in ends),
        steps=tuple(ran),
    )


def _step_end(name: str, end: PayloadEnd) -> StepEnd:
    return StepEnd(name, end.exit_code, end.signal, end.wall_s, end.cpu_s, end.rss_mib, end.printed)


def _failed(end: PayloadEnd) -> bool:
    return end.exit_code != 0


def _without_inputs(job: Job, who: Dict[str, Any], made: InputsMade) -> Steps[JobResult]:
    """A job that is not started: back with it if it was ended while it waited, else its inputs are why it failed."""
    if made.ended_by == "closed":
        return JobResult(None, True)
    if made.ended_by is not None:
        back = {"reason": "%s while it waited for its inputs" % made.ended_by}
        yield Line("given_back", {**back, "jobs": [[job.panda_id, job.attempt_nr]]}, awaited=False)
        return JobResult(None, False)
    why = "no-input" if made.absent else "stage-in"
    end = PayloadEnd(None, None, why, 0.0, 0.0, 0.0, "", "")
    files = tuple(not_placed(place, None, "not started") for place in declared(job))
    trouble = escape(made.trouble, TROUBLE_CHARACTERS)
    facts = {**who, **render_facts(end, Collected(None, (), None, None, files, "", trouble))}
    yield Line("job_ended", facts, awaited=False)
    return JobResult(facts, False)


def what_to_place(end: PayloadEnd) -> Tuple[bool, bool]:
    """(outputs, log): outputs only of a payload that ended by itself with 0; none where there is no time or right."""
    if end.ended_by in ("closed", "terminated"):
        return False, False
    return end.ended_by is None and end.exit_code == 0, True


def render_facts(end: PayloadEnd, collected: Collected) -> Dict[str, Any]:
    """Body of `job_ended` without the job's numbers."""
    steps = {"steps": _step_facts(end, collected)} if end.steps else {}
    return {
        **steps,
        "exit_code": end.exit_code,
        "signal": end.signal,
        "ended_by": end.ended_by,
        "wall_s": round(end.wall_s, 3),
        "cpu_s": round(end.cpu_s, 3),
        "rss_mib": round(end.rss_mib, 1),
        "start_utc": end.start_utc,
        "end_utc": end.end_utc,
        "marker": collected.marker,
        "patterns": list(collected.patterns),
        "events_read": collected.events_read,
        "events_written": collected.events_written,
        "files": [dict(item) for item in collected.files],
        "stderr_tail": collected.stderr_tail,
        "trouble": collected.trouble,
    }


def _step_facts(end: PayloadEnd, collected: Collected) -> List[Dict[str, Any]]:
    markers = collected.markers or (None,) * len(end.steps)
    return [
        {
            "name": step.name,
            "exit_code": step.exit_code,
            "signal": step.signal,
            "wall_s": round(step.wall_s, 3),
            "cpu_s": round(step.cpu_s, 3),
            "rss_mib": round(step.rss_mib, 1),
            "marker": marker,
        }
        for step, marker in zip(end.steps, markers)  # noqa: B905 (3.8 has no strict)
    ]


def placement_steps(directory: str, source: str, size: int, place: Place, temp: str) -> Steps[Dict[str, Any]]:
    """Place one file that is there: copy under `temp` in the target's directory, look, link. Never overwrites.

    `size` is what the source has. Tried again after an error; the value is the file's entry in the end line.
    Raises nothing.
    """
    reason = ""
    copied: Optional[Copied] = None
    for pause in (*TRY_AGAIN_S, None):
        try:
            yield Unlink(temp)
            copied = yield CopyNew(source, temp)
            refused = yield from _link_if_open(directory, place, temp, copied)
            yield Unlink(temp)
            if refused is not None:
                return _entry(place, size, copied, refused)
            yield SyncDirectory(_parent(place.target))
            return _entry(place, size, copied, None)
        except OSError as error:
            reason = str(error)
            if error.errno in FINAL_ERRORS:
                break
        if pause is not None:
            yield Pause(pause)
    try:
        yield Unlink(temp)
    except OSError as error:
        reason += "; left behind: %s" % error
    return _entry(place, size, copied, reason)


def _link_if_open(directory: str, place: Place, temp: str, copied: Copied) -> Steps[Optional[str]]:
    """None once the file is in place, else why it never will be."""
    if (yield from look(directory)):
        return "closed"
    try:
        yield Link(temp, place.target)
    except FileExistsError:
        # The reply of an earlier try was lost, or an earlier try of this attempt failed after its link.
        if (yield CountLinks(temp)) != 2 and (yield Sum(place.target)) != copied:
            return "the target exists with other content"
    return None


def _entry(place: Place, size: int, copied: Optional[Copied], reason: Optional[str]) -> Dict[str, Any]:
    return {
        "lfn": place.lfn,
        "size": copied.size if copied is not None else size,
        "adler32": copied.adler32 if copied is not None else None,
        "placed": reason is None,
        "reason": reason,
    }


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


def not_placed(place: Place, size: Optional[int], reason: str) -> Dict[str, Any]:
    """Entry of a file that is not to be placed. `size` None: not there."""
    return {"lfn": place.lfn, "size": size, "adler32": None, "placed": False, "reason": reason}


def declared(job: Job) -> List[Place]:
    """All files of a job: outputs, then the log."""
    return [*job.outputs, *([job.log] if job.log is not None else [])]
