"""Nodes to be careful with: one that failed twice in a day proves itself before it gets a payload. Pure.

What a node's agent said last is a fact of the journal (`NodeFailed`); who is avoided follows from these facts and the
time. Nobody is kept away for ever by it: an avoided node that passes its probe works its list.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from pilot.multijob.events import NodeFailed
from pilot.multijob.model import Bundle, BundleState, Limits, NodeFailure, State

# Why an agent ended, where the node is the likelier cause than its jobs, the walltime or the shared filesystem.
_ENDS = ("quick failures", "no calibration server", "no set-up", "probe failed: ", "no local directory: ")
# Of a node no more failures are remembered than any sensible limit asks for; of nodes, those that failed last.
FAILURES_KEPT = 20
NODES_KEPT = 20_000
_HOST = re.compile(r"[A-Za-z0-9._-]{1,255}")


class Avoided(NamedTuple):
    """A node that probes before its first payload. `until`: ISO time in UTC."""

    host: str
    reason: str
    until: str


def failure_of(
    bundle: Bundle, file: str, body: Mapping[str, Any], state: State, utc: str
) -> NodeFailed | None:
    """The failure that an `agent_ended` line tells of, None if it is none or is known already."""
    host, reason = body.get("host"), body.get("reason")
    if not isinstance(host, str) or not isinstance(reason, str) or not _HOST.fullmatch(host):
        return None
    # A settled bundle is read again for jobs that were handed out again: that was long ago.
    if not reason.startswith(_ENDS) or bundle.state is BundleState.SETTLED:
        return None
    if any((known.bundle_id, known.file) == (bundle.bundle_id, file) for known in state.nodes.get(host, ())):
        return None
    return NodeFailed(utc, host, bundle.bundle_id, file, reason[:200])


def note_failure(state: State, event: NodeFailed) -> None:
    """Those that failed last stand last."""
    known = state.nodes.pop(event.host, ())
    failure = NodeFailure(event.at, event.bundle_id, event.file, event.reason)
    state.nodes[event.host] = (*known, failure)[-FAILURES_KEPT:]
    while len(state.nodes) > NODES_KEPT:
        del state.nodes[next(iter(state.nodes))]


def avoided(state: State, utc: str, limits: Limits) -> tuple[Avoided, ...]:
    """Nodes that failed `avoid_failures` times within `avoid_s`, until so long after the last time; by name."""
    now, span = datetime.fromisoformat(utc), timedelta(seconds=limits.avoid_s)
    found = []
    for host, failures in state.nodes.items():
        last = datetime.fromisoformat(failures[-1].at)
        near = [item for item in failures if last - datetime.fromisoformat(item.at) <= span]
        if now < last + span and len(near) >= limits.avoid_failures:
            reason = f"failed {len(near)} times, last: {failures[-1].reason}"
            found.append(Avoided(host, reason, (last + span).isoformat()))
    return tuple(sorted(found))
