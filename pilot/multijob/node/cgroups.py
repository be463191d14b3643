"""The batch job's own cgroup: where a site lets an agent end what is none of its own (docs/decisions/0114). Pure."""

from __future__ import annotations

from typing import FrozenSet, Iterator, Tuple

Place = Tuple[str, str]


def job_cgroups(text: str, batch_id: str) -> FrozenSet[Place]:
    """(hierarchy, path) of what /proc/PID/cgroup names after the batch job, as Slurm, Torque and PBS name it.

    Empty if nothing is: then no cgroup is the batch job's alone.
    """
    number = batch_id.partition(".")[0]
    names = {batch_id, number, "job_" + number}
    found = set()
    for hierarchy, path in _places(text):
        parts = path.split("/")
        own = [index for index, part in enumerate(parts) if part in names or part.startswith(number + ".")]
        if own and number.isdigit():
            found.add((hierarchy, "/".join(parts[: own[-1] + 1])))
    return frozenset(found)


def is_inside(text: str, own: FrozenSet[Place]) -> bool:
    """Whether a process with this /proc/PID/cgroup is in one of these, or below one."""
    return any(
        hierarchy == where and (path == top or path.startswith(top + "/"))
        for hierarchy, path in _places(text)
        for where, top in own
    )


def _places(text: str) -> Iterator[Place]:
    for line in text.splitlines():
        fields = line.split(":", 2)
        if len(fields) == 3:
            yield fields[1], fields[2]
