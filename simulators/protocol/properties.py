"""What must hold in every state. L is checked on the whole graph (`search.py`)."""

from __future__ import annotations

from collections.abc import Mapping

from simulators.protocol.nodes import GATE, RUNNING
from simulators.protocol.state import FREE, PILOT, State, job_of

PROPERTIES: Mapping[str, str] = {
    "S1": "no job runs twice: at most one spawn in this bundle, and none runs or has left an end line when its "
    "verdict lets the job run again (a process that hung is excused until its next look)",
    "S2": "an accepted output is never replaced",
    "S3": "a void round never launches",
    "S4": "not started is final: no payload was or will be spawned in this bundle",
    "W1": "`closed` only when the batch job that owns the claim is over",
    "W2": "who owns a claim does not drop it",
    "L": "from every state the job's verdict can be reached without a fault and without luck",
}


def broken(state: State) -> tuple[str, ...]:
    """Names of the properties that this state breaks, mostly none."""
    truth, files = state.truth, state.files
    found = [truth.bad] if truth.bad else []
    if truth.spawns > 1 or (truth.freed in ("lost", "not-started") and _runs_on(state)):
        found.append("S1")
    if truth.accepted and files.output != truth.accepted:
        found.append("S2")
    if truth.void & truth.launched:
        found.append("S3")
    if truth.freed == "not-started" and truth.spawns:
        found.append("S4")
    if files.closed >= 0 and _owner_lives(state):
        found.append("W1")
    return tuple(found)


def _runs_on(state: State) -> bool:
    """The job may run again, and a payload of it runs here, or has left an end line that was not heeded."""
    if state.files.end_line >= 0 and not state.files.late_end:
        return True
    return any(start.at in RUNNING and not start.hung and not start.excused for start in state.starts)


def _owner_lives(state: State) -> bool:
    """A batch job that owns a round (weak fencing: that launched one) is not over."""
    for owner in state.files.claims:
        if owner not in (FREE, PILOT) and state.jobs[(owner - 1) >> 2].status != "over":
            return True
    if not state.files.marks:
        return False
    return any(start.at not in GATE and state.jobs[job_of(start)].status != "over" for start in state.starts)
