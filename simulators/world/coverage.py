"""What occurred in a run: events, actions, and the transitions of jobs, rounds and bundles.

Transitions are read off a second state that `apply` makes of the same events: what is folded there must be what the
daemon holds (`fold_differs`).
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import get_args

from pilot.multijob.actions import Action
from pilot.multijob.apply import apply
from pilot.multijob.events import ClaimSeen, Event, JobBound
from pilot.multijob.jobkeys import UNNAMED
from pilot.multijob.knownjobs import key_of
from pilot.multijob.model import State
from simulators.world.filefaults import Wrong
from simulators.world.nodes import NodeFault
from simulators.world.world import Daemon, World

# So many questioned at once are a mass.
MANY = 20

# What no seed can have yet, and why.
NOT_DRAWN = {
    "LookAtCredential": "the world's servers ask for no credential",
    "DeliverCredential": "the world's servers ask for no credential",
    "WithdrawCredential": "the world's servers ask for no credential",
    "LookAtAllocation": "a seed's site has no command for it",
    "MakeMark": "no seed has weak fencing: directed scenarios have (weakplays)",
    "NodeFailed": "no agent of a seed ends for the sake of its node: tests/unit/pilot/rotation/test_sick_nodes.py",
}
EVENTS = frozenset(kind.__name__ for kind in get_args(Event)) - NOT_DRAWN.keys()
ACTIONS = frozenset(kind.__name__ for kind in get_args(Action)) - NOT_DRAWN.keys()

# Every way that a job, a round or a bundle can go in a seed. In none does the configuration change, which alone takes a
# bundle from planned to settled: tests/simulation/test_changed_configuration.py.
TRANSITIONS = frozenset(
    {
        "job new > pooled",
        "job pooled > bundled",
        "job pooled > judged",
        "job pooled > bound",
        "job bound > judged",
        "job bound > pooled",
        "job new > bundled",
        "job bundled > started",
        "job bundled > judged",
        "job bundled > pooled",
        "job started > judged",
        "job judged > gone",
        "job pooled > gone",
        "round new > intended",
        "round intended > accepted",
        "round intended > claimed",
        "round intended > void",
        "round accepted > claimed",
        "round accepted > void",
        "bundle new > planned",
        "bundle planned > open",
        "bundle open > closed",
        "bundle open > settled",
        "bundle closed > settled",
        "bundle settled > gone",
    }
)

# What the protocol exists for: each must be seen, or it was never put to the test.
MOMENTS = frozenset(
    {
        "a gate lost its claim",
        "a claim's own nonce was found after a lost reply",
        "a torn line was read",
        "a batch job was requeued",
        "the end of many jobs was ordered at once",
        "a bundle was adopted by its claim",
        "a new PandaID was bound to work that is there",
    }
)


@dataclass(slots=True)
class Coverage:
    """Counts by name. A transition is named `job pooled > bundled`."""

    events: Counter[str] = field(default_factory=Counter)
    actions: Counter[str] = field(default_factory=Counter)
    transitions: Counter[str] = field(default_factory=Counter)
    moments: Counter[str] = field(default_factory=Counter)
    _folded: dict[int, State] = field(default_factory=dict)

    def begin(self, daemon: Daemon) -> None:
        """A daemon starts."""
        self._folded[daemon.number] = copy.deepcopy(daemon.state)

    def event(self, daemon: Daemon, event: Event) -> None:
        """One event of a daemon."""
        self.events[type(event).__name__] += 1
        folded = self._folded[daemon.number]
        self._moment(daemon, folded, event)
        before = _named(folded, event)
        apply(folded, event)
        after = _named(folded, event)
        for key in before.keys() | after.keys():
            was, now = before.get(key), after.get(key)
            # A round goes with its bundle: that is no way of its own.
            if was != now and not (key[0] == "round" and now is None):
                self.transitions[f"{key[0]} {was or 'new'} > {now or 'gone'}"] += 1

    def _moment(self, daemon: Daemon, folded: State, event: Event) -> None:
        if isinstance(event, JobBound):
            self.moments["a new PandaID was bound to work that is there"] += 1
        if isinstance(event, ClaimSeen):
            known = folded.bundles[event.bundle_id].rounds[event.number].batch_ids
            self.moments["a bundle was adopted by its claim"] += event.claim.batch_id not in known
        if daemon.memory.kills_held or len(daemon.memory.questioned) >= MANY:
            self.moments["the end of many jobs was ordered at once"] += 1

    def look(self, world: World) -> None:
        """What the world's own log says at the end of a run."""
        for gate in world.truth.gates:
            if gate.launch is False and gate.owner not in (None, (gate.batch_id, gate.nonce)):
                self.moments["a gate lost its claim"] += 1
        counted = world.counted
        self.moments["a claim's own nonce was found after a lost reply"] += counted[Wrong.CLAIM_REPLY_LOST]
        self.moments["a torn line was read"] += counted[Wrong.TORN]
        self.moments["a batch job was requeued"] += (
            counted[NodeFault.REQUEUE] + counted[NodeFault.REQUEUE_SURVIVED]
        )

    def action(self, action: Action) -> None:
        """An action was released."""
        self.actions[type(action).__name__] += 1

    def counts(self) -> Mapping[str, Counter[str]]:
        """All counts by what they count."""
        return {
            "events": self.events,
            "actions": self.actions,
            "transitions": self.transitions,
            "moments": self.moments,
        }

    def differs(self, daemon: Daemon) -> bool:
        """Whether the daemon's state is another one than its events make."""
        return self._folded[daemon.number] != daemon.state


def _named(state: State, event: Event) -> Mapping[tuple[str, object], str]:
    """States of everything that this event names."""
    return dict(_found(state, event))


def _found(state: State, event: Event) -> Iterator[tuple[tuple[str, object], str]]:
    job = getattr(event, "job", None)
    panda_ids = [panda_id for node in getattr(event, "nodes", ()) for panda_id in node]
    panda_ids += [job.panda_id] if job is not None else []
    panda_ids += [event.panda_id] if hasattr(event, "panda_id") else []
    for panda_id in panda_ids:
        record = state.jobs.get(key_of(state, getattr(event, "server", UNNAMED), panda_id))
        if record is not None:
            yield ("job", record.key), record.state
    bundle = state.bundles.get(getattr(event, "bundle_id", ""))  # type: ignore[arg-type]
    if bundle is not None:
        yield ("bundle", bundle.bundle_id), bundle.state
        for number, found in bundle.rounds.items():
            yield ("round", (bundle.bundle_id, number)), found.state
