"""`pilot story`: every event of a PanDA id, bundle or batch id, in the order of the journal. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pilot.multijob.events import BundlePlanned, Event, JobFetched, JobJudged, JobRecalled, JobReturned
from pilot.multijob.jobkeys import UNNAMED
from pilot.multijob.model import Outcome, Verdict
from pilot.ports import Claim

# Events that only keep the account of bytes read: no part of anybody's story.
SILENT = frozenset({"JournalConsumed"})
SERVERS = ("server", "to_server")


def story(events: Iterable[Event], subject: str) -> list[str]:
    """Lines about one id, oldest first; empty: the journal never heard of it.

    A PanDA id, of every server that has it or of the one in `SERVER/ID`: its own events and those of the bundle that
    holds it, while it does. A bundle id: its events and its jobs' while they are in it. A batch id (with or without
    its server) or a round name `<tag>.<k>`: the events of that round, and of its bundle as a whole.
    """
    listed = [event for event in events if type(event).__name__ not in SILENT]
    server, _, number = subject.rpartition("/")
    if number.isascii() and number.isdigit():
        lines = _of_job(listed, server or None, int(number))
        if lines:
            return lines
    if any(getattr(event, "bundle_id", None) == subject for event in listed):
        return _of_bundle(listed, subject)
    return _of_round(listed, subject)


def _of_job(events: list[Event], server: str | None, panda_id: int) -> list[str]:
    lines: list[str] = []
    # the bundle that holds it, by its server's name
    holders: dict[str, str | None] = {}
    for event in events:
        job = _job(event)
        own = job is not None and job[1] == panda_id and server in (None, job[0])
        if job is not None and own:
            holders.setdefault(job[0], None)
        if isinstance(event, BundlePlanned) and any(panda_id in node for node in event.nodes):
            name = UNNAMED if UNNAMED in holders and event.server not in holders else event.server
            if server in (None, name):
                holders[name] = event.bundle_id
        bundle_id = getattr(event, "bundle_id", None)
        of_holder = job is None and bundle_id is not None and bundle_id in holders.values()
        if own or of_holder:
            lines.append(render_event(event))
        if job is not None and own and isinstance(event, JobReturned | JobJudged):
            holders[job[0]] = None
    return lines


def _of_bundle(events: list[Event], bundle_id: str) -> list[str]:
    lines: list[str] = []
    inside: set[tuple[str, int]] = set()
    for event in events:
        job = _job(event)
        if isinstance(event, BundlePlanned) and event.bundle_id == bundle_id:
            ids = [int(panda_id) for node in event.nodes for panda_id in node]
            inside = {(server, panda_id) for server in (event.server, UNNAMED) for panda_id in ids}
        if getattr(event, "bundle_id", None) == bundle_id or job in inside:
            lines.append(render_event(event))
        if job is not None and isinstance(event, JobReturned | JobJudged):
            inside.discard(job)
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
        and _job(event) is None
        and ((number := getattr(event, "number", None)) is None or (bundle_id, number) in found)
    ]


def _job(event: Event) -> tuple[str, int] | None:
    """Server and PandaID of the job that this event is about."""
    if isinstance(event, JobFetched | JobRecalled):
        return event.server, int(event.job.panda_id)
    panda_id = getattr(event, "panda_id", None)
    return None if panda_id is None else (getattr(event, "server", UNNAMED), int(panda_id))


def _batch_id(event: Event) -> str | None:
    claim = getattr(event, "claim", None)
    return getattr(event, "batch_id", None) or (claim.batch_id if isinstance(claim, Claim) else None)


def render_event(event: Event) -> str:
    """One line of an event, without job text; begins with its time where it has one."""
    names = (name for name in event.__dataclass_fields__ if name not in ("at", "job"))
    shown = {
        name: value for name in names if (value := getattr(event, name)) != UNNAMED or name not in SERVERS
    }
    if isinstance(event, JobFetched | JobRecalled):
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
