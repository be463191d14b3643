"""Faults of a running site by name: words of `simsite fault` -> one order to the batch server or to PanDA. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from simulators.torque.steering import COMMANDS

TORQUE, PANDA = "torque", "panda"
SERVERS = (TORQUE, PANDA)


class UnknownFault(ValueError):
    """No such fault, or its target makes no sense."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the words say. `amount`: seconds, a count or a share, None where none was given."""

    name: str
    target: str
    amount: float | None


@dataclass(frozen=True, slots=True)
class SiteOrder:
    """One order: to the batch server (its message) or to PanDA (body of /sim/fault)."""

    server: str
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class FaultKind:
    """A fault as people see it: what follows its name, what it does, and how it becomes orders."""

    words: str
    text: str
    make: Callable[[Wanted], tuple[SiteOrder, ...]]


def _on_node(verb: str) -> Callable[[Wanted], tuple[SiteOrder, ...]]:
    return lambda wanted: (SiteOrder(TORQUE, {"verb": verb, "node": wanted.target}),)


def _hang(wanted: Wanted) -> tuple[SiteOrder, ...]:
    seconds = 60.0 if wanted.amount is None else wanted.amount
    if wanted.target in COMMANDS:
        return (SiteOrder(TORQUE, {"verb": "hang", "command": wanted.target, "seconds": seconds}),)
    return (SiteOrder(PANDA, {"name": "slow", "path": wanted.target, "seconds": min(seconds, 3600.0)}),)


def _lose(wanted: Wanted) -> tuple[SiteOrder, ...]:
    count = 1 if wanted.amount is None else int(wanted.amount)
    if wanted.target in COMMANDS:
        return (SiteOrder(TORQUE, {"verb": "lose_answer", "command": wanted.target, "count": count}),)
    return (SiteOrder(PANDA, {"name": "lose-next-answer", "path": wanted.target, "count": count}),)


def _page(name: str) -> Callable[[Wanted], tuple[SiteOrder, ...]]:
    def make(wanted: Wanted) -> tuple[SiteOrder, ...]:
        count = 1 if wanted.amount is None else int(wanted.amount)
        return (SiteOrder(PANDA, {"name": name, "path": wanted.target, "count": count}),)

    return make


def _outage(wanted: Wanted) -> tuple[SiteOrder, ...]:
    seconds = 60.0 if wanted.amount is None else wanted.amount
    if _server(wanted) == TORQUE:
        return (SiteOrder(TORQUE, {"verb": "go_away", "seconds": seconds}),)
    return (SiteOrder(PANDA, {"name": "outage", "seconds": seconds}),)


def _failing(wanted: Wanted) -> tuple[SiteOrder, ...]:
    share = 0.05 if wanted.amount is None else wanted.amount
    if not 0 <= share <= 1:
        raise UnknownFault(f"failing: a share from 0 to 1 is needed, found {share:g}")
    if _server(wanted) == TORQUE:
        return (SiteOrder(TORQUE, {"verb": "fail_share", "share": share}),)
    return (SiteOrder(PANDA, {"name": "failing", "share": share}),)


def _losing(wanted: Wanted) -> tuple[SiteOrder, ...]:
    share = 0.1 if wanted.amount is None else wanted.amount
    if wanted.target != PANDA or not 0 <= share <= 1:
        raise UnknownFault(
            f"losing: expected panda and a share from 0 to 1, found {wanted.target[:60]!a} {share:g}"
        )
    return (SiteOrder(PANDA, {"name": "losing", "share": share}),)


def _server(wanted: Wanted) -> str:
    if wanted.target not in SERVERS:
        raise UnknownFault(f"{wanted.name}: expected {' or '.join(SERVERS)}, found {wanted.target[:60]!a}")
    return wanted.target


def _requeue(wanted: Wanted) -> tuple[SiteOrder, ...]:
    return (SiteOrder(TORQUE, {"verb": "requeue", "batch_id": wanted.target}),)


def _reserve(wanted: Wanted) -> tuple[SiteOrder, ...]:
    first, _, last = wanted.target.partition("-")
    seconds = 600.0 if wanted.amount is None else wanted.amount
    body = {"verb": "reserve", "first": first, "last": last or first, "seconds": seconds}
    return (SiteOrder(TORQUE, body),)


def _mend(wanted: Wanted) -> tuple[SiteOrder, ...]:
    return SiteOrder(TORQUE, {"verb": "mend"}), SiteOrder(PANDA, {"name": "mend"})


FAULTS: Mapping[str, FaultKind] = {
    "node-dies": FaultKind("NODE", "everything on a node is killed, the node is down", _on_node("kill_node")),
    "node-back": FaultKind("NODE", "a dead node is there again, empty", _on_node("node_back")),
    "database-dies": FaultKind("NODE", "the node's database server is killed", _on_node("break_database")),
    "hang": FaultKind(
        "COMMAND|PATH [SECONDS]",
        "qstat, qsub... get no answer for so long, or the next PanDA call whose path holds the text (60 s)",
        _hang,
    ),
    "lose-answer": FaultKind(
        "COMMAND|PATH [COUNT]", "the next call is worked and its answer never arrives", _lose
    ),
    "error": FaultKind(
        "PATH [COUNT]", "the next PanDA call gets a status 500 instead of the work", _page("500")
    ),
    "html": FaultKind(
        "PATH [COUNT]", "the next PanDA call gets a proxy's page with status 200", _page("html")
    ),
    "outage": FaultKind("torque|panda [SECONDS]", "nobody listens for so long (60 s)", _outage),
    "failing": FaultKind("torque|panda [SHARE]", "this share of all calls fails by chance (0.05)", _failing),
    "losing": FaultKind(
        "panda [SHARE]", "calls are worked, this share of the answers is lost (0.1)", _losing
    ),
    "reservation": FaultKind(
        "NODE[-NODE] [SECONDS]",
        "an operator keeps nodes free for so long (600 s): nothing starts there",
        _reserve,
    ),
    "requeue": FaultKind("BATCH_ID", "an operator gives qrerun", _requeue),
    "mend": FaultKind(
        "", "hung commands, failing calls, lost answers and outages end; dead nodes stay dead", _mend
    ),
}


def render_faults() -> str:
    """The list for `simsite fault --list`."""
    return "".join(f"{f'{name} {kind.words}':<38} {kind.text}\n" for name, kind in FAULTS.items())


def plan_fault(name: str, target: str | None, amount: float | None) -> tuple[SiteOrder, ...]:
    """Orders of a fault. Raises UnknownFault."""
    kind = FAULTS.get(name)
    if kind is None:
        raise UnknownFault(f"no fault {name[:60]!a}; expected one of {', '.join(FAULTS)}")
    if bool(kind.words) != (target is not None):
        raise UnknownFault(f"{name}: expected {kind.words or 'nothing'} after it")
    if amount is not None and not 0 <= amount < 1e9:
        raise UnknownFault(f"{name}: found {amount:g}, expected 0 and more")
    return kind.make(Wanted(name, target or "", amount))
