"""The jobs in the state: which one a server's number means, how one comes, moves, gets small and goes.

What changes the state here is called by `apply` alone.
"""

from __future__ import annotations

from array import array
from collections import Counter
from sys import intern

from pilot.multijob.jobkeys import UNNAMED, make_key
from pilot.multijob.keptjob import keep, render_base
from pilot.multijob.model import Bundle, JobRecord, JobState, Limits, Retired, State
from pilot.ports import Job, JobKey, PandaId

# Retired bundles whose jobs are remembered: a month of 300 bundles a day, 37 MiB where each had 512 jobs.
RETIRED_BUNDLES = 9216


def key_of(state: State, server: str, panda_id: PandaId) -> JobKey:
    """The key of this job of this server, whether it is known or not.

    A server that has none yet gets the next number with its first job: the key is nobody's until then.
    """
    number = state.servers.get(server, len(state.servers))
    return make_key(number, panda_id)


def name_server(state: State, server: str) -> str:
    """This server has a number from now on; returns its name, one text for all jobs of it."""
    state.servers.setdefault(intern(server), len(state.servers))
    return intern(server)


def find_key(state: State, server: str, panda_id: PandaId, limits: Limits) -> JobKey:
    """The key by which this job of this server is known: also of one whose old journal did not name the server."""
    key = key_of(state, server, panda_id)
    if key in state.jobs or UNNAMED not in state.servers:
        return key
    unnamed = key_of(state, UNNAMED, panda_id)
    record = state.jobs.get(unnamed)
    queue = limits.queues.get(record.queue) if record is not None else None
    return unnamed if queue is not None and queue.server == server else key


def moved_queue(state: State, limits: Limits) -> str | None:
    """Why the daemon must not start with this configuration: a queue has another server than its open jobs. Else None.

    That one would be told of jobs that it does not know, or of others with their numbers.
    """
    moved = Counter(
        (record.queue, record.server)
        for record in state.jobs.values()
        if record.server != UNNAMED
        and not record.kept
        and record.queue in limits.queues
        and limits.queues[record.queue].server != record.server
    )
    for (queue, server), count in sorted(moved.items()):
        return (
            f"queues.{queue}.server: found {limits.queues[queue].server}, and {count} open jobs of the queue are of "
            f"server {server}: name that one (by its name of then) until they are over, or use another queue"
        )
    return None


def retire(state: State, bundle: Bundle) -> None:
    """Its directory is gone; that it has had its jobs is remembered, 8 bytes each."""
    del state.bundles[bundle.bundle_id]
    state.retired[bundle.bundle_id] = Retired(bundle.queue, array("q", sorted(bundle.job_keys)))
    while len(state.retired) > RETIRED_BUNDLES:
        del state.retired[next(iter(state.retired))]


def add_job(state: State, record: JobRecord) -> None:
    """One more job."""
    state.jobs[record.key] = record
    _count(state, record, 1)


def move_job(state: State, record: JobRecord, to: JobState) -> None:
    """A job that the state knows is in another state from now on."""
    _count(state, record, -1)
    record.state = to
    _count(state, record, 1)


def keep_small(state: State, record: JobRecord) -> None:
    """Its text is hardly looked at from now on."""
    if isinstance(record.held, Job):
        name = _base_name(record)
        base = state.bases.get(name) or render_base(record.held)
        state.bases[name] = base
        state.base_users[name] = state.base_users.get(name, 0) + 1
        record.held, record.base = keep(record.held, base), base


def drop_job(state: State, key: JobKey) -> JobRecord:
    """One job less; returns what was known of it."""
    record = state.jobs.pop(key)
    _count(state, record, -1)
    if not isinstance(record.held, Job):
        name = _base_name(record)
        state.base_users[name] -= 1
        if not state.base_users[name]:
            del state.base_users[name], state.bases[name]
    return record


def _base_name(record: JobRecord) -> str:
    """The jobs at work of a task, or of a queue, are kept against one text."""
    return record.task or record.queue


def _count(state: State, record: JobRecord, by: int) -> None:
    key = (record.queue, record.state)
    state.counts[key] = state.counts.get(key, 0) + by
