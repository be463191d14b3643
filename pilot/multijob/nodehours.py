"""Node-hours of a queue, counted from the journal's facts: what closed bundles used, what open ones may still use.

A bundle counts whole on the UTC day on which it was planned: all that its batch job may take (nodes x walltime) while
it is open, what it took once it is closed, nothing where no batch job ever owned a round of it. It is one of the three
at any moment, in whatever order claim, end and closing become known, so it is never counted twice nor left out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from pilot.multijob.model import Bundle, BundleState, NodeUse, Round, State

HOUR_S = 3600.0
# Days of which the node-hours are kept one by one: only today's decide anything, a person may look back for a month.
DAYS_KEPT = 31


@dataclass(frozen=True, slots=True)
class Account:
    """Node-seconds of one queue, of one day and in all. `committed`: what its open bundles may take at most."""

    used_day_s: float
    committed_day_s: float
    used_s: float
    committed_s: float


def day_of(at: str) -> str:
    """The UTC day of an ISO time in UTC."""
    return at[:10]


def account(state: State, queue: str, day: str) -> Account:
    """Where one queue stands on this day."""
    use = state.uses.get(queue, NodeUse())
    committed = committed_day = 0.0
    for bundle in open_bundles(state, queue):
        committed += most_node_s(bundle)
        committed_day += most_node_s(bundle) if day_of(bundle.planned_at) == day else 0.0
    return Account(use.days_s.get(day, 0.0), committed_day, use.total_s, committed)


def open_bundles(state: State, queue: str) -> Iterable[Bundle]:
    """Bundles of a queue whose use is not counted yet."""
    return (
        bundle
        for bundle in state.bundles.values()
        if bundle.queue == queue and bundle.state in (BundleState.PLANNED, BundleState.OPEN)
    )


def most_node_s(bundle: Bundle) -> float:
    """What the batch job of this bundle may take at most."""
    return float(len(bundle.nodes) * bundle.walltime_s)


def count_use(state: State, bundle: Bundle, closed_at: str) -> None:
    """A bundle is being closed: it counts by what it used from now on."""
    use, day = state.uses.setdefault(bundle.queue, NodeUse()), day_of(bundle.planned_at)
    used_s = used_node_s(bundle, closed_at)
    use.total_s += used_s
    use.days_s[day] = use.days_s.get(day, 0.0) + used_s
    for old in sorted(use.days_s)[:-DAYS_KEPT]:
        del use.days_s[old]


def used_node_s(bundle: Bundle, closed_at: str) -> float:
    """What the batch job of a bundle took that is being closed.

    As the batch system told, else from the claim to the time at which its end was seen, but never more than its
    walltime. The claim bears the clock of another host: it counts only between Intent and closing, by the edge's clock.
    """
    current = bundle.current
    if current is None:
        return 0.0
    ends = [current.ends[owner] for owner in (*current.owners, None) if owner in current.ends]
    end_at, told_s = ends[0] if ends else (closed_at, None)
    if told_s is not None:
        return float(len(bundle.nodes) * told_s)
    lasted_s = (_time(end_at) - _began(current, _time(end_at))).total_seconds()
    return len(bundle.nodes) * min(max(lasted_s, 0.0), float(bundle.walltime_s))


def _began(current: Round, end: datetime) -> datetime:
    """When its batch job began: between its Intent and the end. A claim without a time: at the Intent."""
    intended = _time(current.intended_at)
    try:
        claimed = _time(current.claim.utc) if current.claim is not None else intended
    except ValueError:
        return intended
    if claimed.utcoffset() is None:
        return intended
    return max(intended, min(claimed, end))


def _time(at: str) -> datetime:
    return datetime.fromisoformat(at)
