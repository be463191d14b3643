"""Which queued batch jobs start now, and on which nodes: priority, first come first served, backfill. Pure.

The first job that does not fit gets a reservation at the earliest time at which the running jobs' walltimes leave
room for it; a later job may start before only where it ends in time or uses none of the reserved nodes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class NodeRequest:
    """One part of a `-l nodes=` request: `count` nodes with `ppn` slots each, or one named node."""

    count: int
    ppn: int
    features: tuple[str, ...] = ()
    node: int | None = None


@dataclass(frozen=True, slots=True)
class Share:
    """Slots of one node given to one batch job."""

    node: int
    slots: tuple[int, ...]


Placement = tuple[Share, ...]
# Free slots of every node that is up.
Free = Mapping[int, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Waiting:
    """A batch job that may start now if there is room, in the order of its turn."""

    batch_id: str
    parts: tuple[NodeRequest, ...]
    walltime_s: float


@dataclass(frozen=True, slots=True)
class Running:
    """Slots that come back at the latest at `ends_s`."""

    ends_s: float
    placement: Placement


@dataclass(frozen=True, slots=True)
class Layout:
    """What never changes while a plan is made: order of choice, features of each node, whole nodes or slots.

    `highest_first`: the nodes of a job are listed from the last chosen one, which is then its mother superior.
    """

    order: Sequence[int]
    features: Mapping[int, frozenset[str]]
    slots: int
    whole_nodes: bool
    highest_first: bool = False


@dataclass(frozen=True, slots=True)
class Reservation:
    """Nodes that an operator keeps free: a batch job whose walltime reaches into it does not start on them."""

    starts_s: float
    ends_s: float
    nodes: frozenset[int]

    def bars(self, now_s: float, ends_s: float) -> bool:
        """Whether a job from now until `ends_s` would be in its way."""
        return self.starts_s < ends_s and now_s < self.ends_s


def barred(reservations: Iterable[Reservation], now_s: float, walltime_s: float) -> frozenset[int]:
    """Nodes on which a job of this walltime does not start now."""
    found = (item.nodes for item in reservations if item.bars(now_s, now_s + walltime_s))
    return frozenset().union(*found)


def plan_starts(
    layout: Layout,
    free: Free,
    waiting: Iterable[Waiting],
    running: Sequence[Running],
    now_s: float,
    reservations: Sequence[Reservation] = (),
) -> tuple[tuple[str, Placement], ...]:
    """Batch jobs to start now with their places, in order."""
    left = dict(free)
    going = list(running)
    starts: list[tuple[str, Placement]] = []
    shadow_s, reserved = float("inf"), frozenset[int]()
    blocked = False
    for job in waiting:
        in_time = not blocked or now_s + job.walltime_s <= shadow_s
        avoid = barred(reservations, now_s, job.walltime_s) | (frozenset() if in_time else reserved)
        placement = place(layout, left, job.parts, avoid)
        if placement is not None:
            starts.append((job.batch_id, placement))
            going.append(Running(now_s + job.walltime_s, placement))
            for share in placement:
                left[share.node] = _without(layout, left[share.node], share)
        elif not blocked:
            blocked = True
            shadow_s, reserved = reserve(layout, left, job.parts, going)
    return tuple(starts)


def place(
    layout: Layout, free: Free, parts: Sequence[NodeRequest], avoid: frozenset[int] = frozenset()
) -> Placement | None:
    """Slots for all parts on different nodes, or None."""
    taken: dict[int, Share] = {}
    for part in parts:
        wanted = part.count
        for node in layout.order if part.node is None else (part.node,):
            if wanted == 0:
                break
            slots = free.get(node, ())
            if node in taken or node in avoid or len(slots) < part.ppn:
                continue
            if layout.whole_nodes and len(slots) < layout.slots:
                continue
            if not layout.features[node].issuperset(part.features):
                continue
            taken[node] = Share(node, slots[: part.ppn])
            wanted -= 1
        if wanted:
            return None
    shares = tuple(taken.values())
    return shares[::-1] if layout.highest_first else shares


def _without(layout: Layout, slots: tuple[int, ...], share: Share) -> tuple[int, ...]:
    return () if layout.whole_nodes else tuple(slot for slot in slots if slot not in share.slots)


def reserve(
    layout: Layout, free: Free, parts: Sequence[NodeRequest], running: Sequence[Running]
) -> tuple[float, frozenset[int]]:
    """When and on which nodes a job that does not fit now will fit; never: (inf, no node)."""
    later = dict(free)
    for job in sorted(running, key=lambda item: item.ends_s):
        for share in job.placement:
            if share.node not in later:  # a node that is down does not come back
                continue
            back = range(layout.slots) if layout.whole_nodes else (*later[share.node], *share.slots)
            later[share.node] = tuple(sorted(set(back)))
        placement = place(layout, later, parts)
        if placement is not None:
            return job.ends_s, frozenset(share.node for share in placement)
    return float("inf"), frozenset()
