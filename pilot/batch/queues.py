"""Batch queues as `qstat -Q -f` tells them: the same text of Torque, OpenPBS and Slurm's wrappers. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pilot.batch.dialect import Reply, escape_text
from pilot.batch.torque import parse_duration
from pilot.ports import Broken, Failure, Unavailable

_YES = ("true", "yes")


@dataclass(frozen=True, slots=True)
class BatchQueueSeen:
    """One batch queue. Limits are None where it tells none."""

    name: str
    enabled: bool = True
    started: bool = True
    walltime_max_s: int | None = None
    nodes_max: int | None = None


def render_queues(command: str) -> tuple[str, ...]:
    """qstat for all queues of the server."""
    return (command, "-Q", "-f")


def parse_queues(reply: Reply) -> tuple[BatchQueueSeen, ...] | Failure:
    """All queues, in the order told."""
    if reply.exit_code != 0:
        return Unavailable(f"qstat -Q ended with {reply.exit_code}: {escape_text(reply.stderr.strip())}")
    found: list[BatchQueueSeen] = []
    for line in reply.stdout.splitlines():
        if line.startswith("Queue:"):
            found.append(BatchQueueSeen(line.partition(":")[2].strip()))
            continue
        key, equals, value = line.strip().partition(" = ")
        if found and equals:
            found[-1] = _with(found[-1], key, value)
    if not found:
        return Broken("qstat -Q named no queue", escape_text(reply.stdout))
    return tuple(found)


def _with(queue: BatchQueueSeen, key: str, value: str) -> BatchQueueSeen:
    match key:
        case "enabled":
            return replace(queue, enabled=value.lower() in _YES)
        case "started":
            return replace(queue, started=value.lower() in _YES)
        case "resources_max.walltime":
            return replace(queue, walltime_max_s=parse_duration(value))
        case "resources_max.nodect" | "resources_max.nodes" if value.isdigit():
            return replace(queue, nodes_max=int(value))
        case _:
            return queue


def unfit(queue: BatchQueueSeen, nodes: int, walltime_s: int) -> str | None:
    """Why this batch queue cannot take such a batch job, None if it can."""
    if not queue.enabled:
        return "takes no jobs (enabled = False)"
    if not queue.started:
        return "starts no jobs (started = False)"
    if queue.walltime_max_s is not None and walltime_s > queue.walltime_max_s:
        return f"allows {queue.walltime_max_s} s of walltime, walltime.max_s is {walltime_s}"
    if queue.nodes_max is not None and nodes > queue.nodes_max:
        return f"allows {queue.nodes_max} nodes, a bundle has {nodes}"
    return None
