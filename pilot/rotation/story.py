"""`pilot story`: every event of a PanDA id, bundle or batch id, in the order of the journal. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pilot.multijob.events import BundlePlanned, Event, JobFetched, JobJudged, JobReturned
from pilot.multijob.model import Outcome, Verdict
from pilot.ports import Claim

# Events that only keep the account of bytes read: no part of anybody's story.
SILENT = frozenset({"JournalConsumed"})


def story(events: Iterable[Event], subject: str) -> list[str]:
    """Lines about one id, oldest first; empty: the journal never heard of it.

    A PanDA id: its own events and those of the bundle that holds it, while it does. A bundle id: its events and its
    jobs' while they are in it. A batch id (with or without its server) or a round name `<tag>.<k>`: the events of
    that round, and of its bundle as a whole.
    """
    listed = [event for event in events if type(event).__name__ not in SILENT]
    if subject.isascii() and subject.isdigit():
        lines = _of_job(listed, int(subject))
        if lines:
            return lines
    if any(getattr(event, "bundle_id", None) == subject for event in listed):
        return _of_bundle(listed, subject)
    return _of_round(listed, subject)


def _of_job(events: list[Event], panda_id: int) -> list[str]:
    lines, holder = [], None
    for event in events:
        own = _panda_id(event) == panda_id
        planned = isinstance(event, BundlePlanned) and any(panda_id in node for node in event.nodes)
        if planned and isinstance(event, BundlePlanned):
            holder = event.bundle_id
        of_holder = holder is not None and getattr(event, "bundle_id", None) == holder
        if own or (of_holder and _panda_id(event) is None):
            lines.append(render_event(event))
        if own and isinstance(event, JobReturned | JobJudged):
            holder = None
    return lines


def _of_bundle(events: list[Event], bundle_id: str) -> list[str]:
    lines: list[str] = []
    inside: set[int] = set()
    for event in events:
        panda_id = _panda_id(event)
        if isinstance(event, BundlePlanned) and event.bundle_id == bundle_id:
            inside = {int(job) for node in event.nodes for job in node}
        if getattr(event, "bundle_id", None) == bundle_id or panda_id in inside:
            lines.append(render_event(event))
        if isinstance(event, JobReturned | JobJudged):
            inside.discard(int(event.panda_id))
    return lines


def _of_round(events: list[Event], subject: str) -> list[str]:
    """Events of the round that this batch id, or this name, belongs to."""
    found: set[tuple[str, int]] = set()
    for event in events:
        bundle_id, number = getattr(event, "bundle_id", None), getattr(event, "number", None)
        if bundle_id is None or number is None:
            continue
        batch_id = _batch_id(event) or ""
        if subject in (batch_id, batch_id.partition(".")[0], f"{bundle_id}.{number}") and subject:
            found.add((bundle_id, number))
    bundles = {bundle_id for bundle_id, _ in found}
    return [
        render_event(event)
        for event in events
        if (bundle_id := getattr(event, "bundle_id", None)) in bundles
        and _panda_id(event) is None
        and ((number := getattr(event, "number", None)) is None or (bundle_id, number) in found)
    ]


def _panda_id(event: Event) -> int | None:
    found = event.job.panda_id if isinstance(event, JobFetched) else getattr(event, "panda_id", None)
    return None if found is None else int(found)


def _batch_id(event: Event) -> str | None:
    claim = getattr(event, "claim", None)
    return getattr(event, "batch_id", None) or (claim.batch_id if isinstance(claim, Claim) else None)


def render_event(event: Event) -> str:
    """One line of an event, without job text; begins with its time where it has one."""
    shown = {name: getattr(event, name) for name in event.__dataclass_fields__ if name not in ("at", "job")}
    if isinstance(event, JobFetched):
        shown["panda_id"] = event.job.panda_id
    words = [type(event).__name__, *(f"{name}={_value(name, value)}" for name, value in shown.items())]
    at = getattr(event, "at", None)
    return " ".join([at, *words] if at else words)


def _value(name: str, value: Any) -> str:
    if name == "nodes":
        return f"{len(value)} ({sum(len(node) for node in value)} jobs)"
    if isinstance(value, Verdict):
        return f"{value.status.value} {value.code} ({value.reason})"
    if isinstance(value, Claim):
        return f"{value.who} {value.batch_id or 'no batch id'}"
    if isinstance(value, Outcome):
        facts = {"exit_code": value.exit_code, "n_events": value.n_events, "wall_s": value.wall_s}
        return "/".join(f"{key}:{fact}" for key, fact in facts.items() if fact is not None) or "none"
    return str(value)
