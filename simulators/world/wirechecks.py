"""Checkers of what the PanDA servers were told: their ledgers against the world's own log."""

from __future__ import annotations

from collections.abc import Iterator

from simulators.panda.told import ORDER, Told
from simulators.world.truth import Who
from simulators.world.works import works_fetched
from simulators.world.world import World

FINAL_STATES = ("finished", "failed")
# The watcher's code for a pilot that has said `starting`, and then nothing for two hours.
LOST_HEARTBEAT = 100


def running_before_start(world: World) -> Iterator[str]:
    """A job was told to be running, and no start line of its work had been written."""
    works = works_fetched(world)
    first_s: dict[str | Who, float] = {}
    for at_s, who, _ in world.truth.lines:
        first_s.setdefault(works.get(who, who), at_s)
    for told in world.source.told():
        start_s = first_s.get(works.get(_who(told), _who(told)))
        if told.state == "running" and (start_s is None or told.at_s < start_s):
            yield f"job {told.panda_id} was told to be running at {told.at_s:.0f} s, its first start: {start_s}"


def final_without_attempt(world: World) -> Iterator[str]:
    """A final report did not name the attempt: the server drops it."""
    for told in world.source.told():
        if told.state in FINAL_STATES and told.attempt_nr is None:
            yield f"job {told.panda_id} was told to be {told.state} at {told.at_s:.0f} s without its attempt"


def batch_id_wrong(world: World) -> Iterator[str]:
    """A batchID is the number of a batch job; of a job that runs: one in which a start line of its work was written."""
    works = works_fetched(world)
    started = {(works.get(i, i), _number(batch_id)) for _, i, batch_id in world.truth.lines}
    ends = world.torque.next_sequence
    for told in world.source.told():
        number = told.batch_id
        known = number is not None and number.isdecimal() and int(number) < ends
        ran = (works.get(_who(told), _who(told)), number) in started
        if number is not None and not (ran if told.state == "running" else known):
            yield f"job {told.panda_id}: {told.state} with batchID {number} at {told.at_s:.0f} s"


def _who(told: Told) -> Who:
    return told.server, told.panda_id


def _number(batch_id: str) -> str:
    return batch_id.partition(".")[0]


def ended_unasked(world: World) -> Iterator[str]:
    """A payload was ordered to end, and nobody had asked for it. A job that the server has ended by an order is asked
    for, whoever gave the order: nothing that it still does here is of use."""
    asked = {
        world.source.who(job): job.archived_s
        for job in world.source.jobs()
        if job.status in ("cancelled", "closed") and job.archived_s is not None
    }
    for told in world.source.told():
        if told.state == ORDER and told.user != "watcher":
            asked[_who(told)] = min(told.at_s, asked.get(_who(told), told.at_s))
    for at_s, who in world.truth.ended:
        if asked.get(who, at_s + 1.0) > at_s:
            yield f"job {who[1]} was ordered to end at {at_s:.0f} s, and nobody had asked"


def heartbeat_lost(world: World, since_s: float) -> Iterator[str]:
    """The server took a job for lost whose `starting` it had accepted, though nothing has been in the way since."""
    for job in world.source.jobs():
        code = job.attributes.get("jobDispatcherErrorCode")
        if code == LOST_HEARTBEAT and job.archived_s is not None and job.archived_s >= since_s:
            diag = job.attributes.get("jobDispatcherErrorDiag")
            yield f"job {job.panda_id} was given up at {job.archived_s:.0f} s: {diag}"
