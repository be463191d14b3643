"""What one run of the daemon remembers and a restart forgets: requests under way, absences, waits, back-offs.

Everything here may be lost without harm: absences are counted anew, settling starts from zero, reports are sent
again. Times are monotonic seconds of this run.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pilot.multijob.actions import Action
from pilot.multijob.agenda import Agenda
from pilot.multijob.events import BundleAdopted
from pilot.multijob.model import BundleState, State
from pilot.multijob.untold import Untold
from pilot.ports import (
    BatchId,
    BatchJobSeen,
    BundleId,
    Claim,
    Credential,
    JobKey,
    JobStatus,
    PandaId,
    SpaceSeen,
)

# One bundle without a start happens (a deleted batch job); three in a row are a site that does not work.
FRUITLESS_ALARM = 3

RoundKey = tuple[BundleId, int]


@dataclass(slots=True)
class Unknown:
    """A directory that the journal does not know. `found` None: not read yet, or not readable in so many `looks`."""

    found: BundleAdopted | None = None
    looks: int = 0


@dataclass(slots=True)
class Delay:
    """A growing pause after failures: nothing is tried again before `until_s`."""

    failures: int
    until_s: float
    reason: str


class Reported(NamedTuple):
    """What the server has accepted about one job in this run, and when. A value: all jobs of one report share it."""

    status: JobStatus | None = None
    accepted_s: float = float("-inf")
    under_way: bool = False
    failures: int = 0
    retry_s: float = float("-inf")


@dataclass(slots=True)
class InputLook:
    """What the looks at a pooled job's inputs brought: their sizes since `steady_s`, or a trouble since `trouble_s`."""

    paths: tuple[str, ...]
    first_s: float
    at_s: float = float("-inf")
    sizes: tuple[int, ...] = ()
    steady_s: float = 0.0
    good: bool = False
    trouble: str = ""
    trouble_s: float = 0.0
    unknown: str = ""


@dataclass(slots=True)
class Alarm:
    """Something a person should know. Cleared by the code that raised it."""

    reason: str
    since_s: float


@dataclass(slots=True)
class Memory:
    """The volatile half of the daemon's knowledge (the durable half is `State`)."""

    epoch: int
    started_s: float
    # requests under way: action key -> monotonic time of asking
    in_flight: dict[tuple[Any, ...], float] = field(default_factory=dict)
    # journal: records not yet asked for, and what waits for them
    records: list[Mapping[str, Any]] = field(default_factory=list)
    appending: list[Mapping[str, Any]] = field(default_factory=list)
    recorded: int = 0
    durable: int = 0
    held: deque[tuple[int, Action]] = field(default_factory=deque)
    overtaken_by: int | None = None
    # segments of this epoch that get no more records; those that a snapshot covers, -1: not even what was before them
    sealed: int = 0
    folded: int = 0
    # `pilot stop` was asked for
    stopping: bool = False
    # batch system
    listing_asked_s: float = float("-inf")
    listing_ok_s: float | None = None
    seen_live: dict[BatchId, BatchJobSeen] = field(default_factory=dict)
    ever_seen: set[BatchId] = field(default_factory=set)
    absences: dict[BatchId, int] = field(default_factory=dict)
    name_absences: dict[RoundKey, int] = field(default_factory=dict)
    singles: tuple[BatchId, ...] = ()
    strays: dict[BatchId, BundleId] = field(default_factory=dict)
    # batch jobs of our user that wait and are not ours, in the last complete listing
    others_waiting: int = 0
    # no bundle is started before: the pause after the last one
    next_start_s: float = float("-inf")
    # rounds and bundles
    round_since_s: dict[RoundKey, float] = field(default_factory=dict)
    claim_read_s: dict[RoundKey, float] = field(default_factory=dict)
    # weak fencing: rounds with a pilot's mark, when this run made one, when the batch jobs of a round were seen to be
    # over, and when the newest reading of a bundle was asked for
    marked: set[RoundKey] = field(default_factory=set)
    marked_s: dict[RoundKey, float] = field(default_factory=dict)
    over_s: dict[RoundKey, float] = field(default_factory=dict)
    read_asked_s: dict[BundleId, float] = field(default_factory=dict)
    closed_s: dict[BundleId, float] = field(default_factory=dict)
    # when a reading ended that had been held up for longer than a name may be seen late: so were the agents
    held_up_s: float = float("-inf")
    held_up_took_s: float = 0.0
    # settled bundles: not looked at before; those whose files are to be packed, and those that need it no more
    retire_s: dict[BundleId, float] = field(default_factory=dict)
    to_pack: dict[BundleId, None] = field(default_factory=dict)
    packed: set[BundleId] = field(default_factory=set)
    read_s: dict[BundleId, float] = field(default_factory=dict)
    # newest line of each node's agents: end of it in its file, and when it was first read
    heard: dict[BundleId, dict[int, tuple[str, int, float]]] = field(default_factory=dict)
    evidence_failed: dict[BundleId, str] = field(default_factory=dict)
    scripts: set[RoundKey] = field(default_factory=set)
    doors: dict[BundleId, int] = field(default_factory=dict)
    cancels_asked: dict[BatchId, float] = field(default_factory=dict)
    commands: dict[BundleId, frozenset[PandaId]] = field(default_factory=dict)
    # what was left in each directory when it was looked at last
    space: dict[str, SpaceSeen] = field(default_factory=dict)
    space_asked_s: float = float("-inf")
    # what was left of the allocation, and the UTC time at which the site said so
    allocation: tuple[float, str] | None = None
    allocation_asked_s: float = float("-inf")
    # jobs in pools, until they leave them
    inputs: dict[JobKey, InputLook] = field(default_factory=dict)
    # jobs in pools that the configuration does not fit, held because they are so many, and the limit that held them;
    # how many this run has ended
    misfits: set[JobKey] = field(default_factory=set)
    misfits_limit: int = 0
    misfits_ended: int = 0
    # what an older copy of the journal may have forgotten (`inherit`). Whether all directories were listed, when again
    # (set aside ones may be mended), those without a decision, and those that nobody can read: set aside
    found_all: bool = True
    find_again_s: float = float("inf")
    unknown: dict[BundleId, Unknown] = field(default_factory=dict)
    set_aside: dict[BundleId, str] = field(default_factory=dict)
    # bundles of the replayed journal, and the scripts that were in their directories when this run looked first
    inherited: set[BundleId] = field(default_factory=set)
    scripts_found: dict[BundleId, frozenset[int]] = field(default_factory=dict)
    # jobs of the replayed journal of which the server has told nothing yet, those to ask for, what it told
    untold: Untold = field(default_factory=Untold)
    # (by queue and PandaID: the state may not know them)
    to_ask: dict[tuple[str, PandaId], None] = field(default_factory=dict)
    told: dict[tuple[str, PandaId], str] = field(default_factory=dict)
    # directories that were not there: how often in a row, since when
    gone: dict[BundleId, tuple[int, float]] = field(default_factory=dict)
    # reporting and fetching; `fetched`: the commit that makes a job's fetch durable, until it is
    fetched: dict[JobKey, int] = field(default_factory=dict)
    reported: dict[JobKey, Reported] = field(default_factory=dict)
    agenda: Agenda = field(default_factory=Agenda)
    questioned: dict[JobKey, str] = field(default_factory=dict)
    compared: dict[JobKey, str] = field(default_factory=dict)
    compared_s: dict[str, float] = field(default_factory=dict)
    # jobs ordered to end that wait for a person; and when how many orders were obeyed without one
    kills_held: set[JobKey] = field(default_factory=set)
    orders_obeyed: deque[tuple[float, int]] = field(default_factory=deque)
    delays: dict[tuple[Any, ...], Delay] = field(default_factory=dict)
    # bundles in a row that started no job, by queue, and when the last one was settled
    fruitless: dict[str, tuple[int, float]] = field(default_factory=dict)
    alarms: dict[str, Alarm] = field(default_factory=dict)
    # credentials: what was read last (a text: why it is not usable), when; and what each bundle was given
    credentials: dict[str, Credential | str] = field(default_factory=dict)
    credential_read_s: dict[str, float] = field(default_factory=dict)
    delivered: dict[BundleId, str] = field(default_factory=dict)
    withdrawn: set[BundleId] = field(default_factory=set)
    # answers that made no sense, until the same source answers well: (kind of request, source)
    broken: set[tuple[str, str]] = field(default_factory=set)

    def inherit(self, state: State) -> None:
        """This run begins with what a journal told: it may be an old copy, and everything went on since.

        So all bundle directories are looked through, and a job enters no further round before its server was asked.
        """
        self.found_all = False
        self.inherited = {i for i, b in state.bundles.items() if b.state is not BundleState.SETTLED}
        self.untold = Untold.of(state.jobs)

    def undecided(self) -> str | None:
        """Why it is not known what is in all bundle directories, None if it is."""
        if not self.found_all:
            return "the bundle directories have not been looked through yet"
        count = len(self.unknown.keys() - self.set_aside.keys())
        return (
            f"{count} bundle directories that the journal does not know wait for a decision"
            if count
            else None
        )

    def waiting(self, key: tuple[Any, ...], now_s: float) -> bool:
        """Whether a request with this key is under way or delayed."""
        delay = self.delays.get(key)
        return key in self.in_flight or (delay is not None and now_s < delay.until_s)

    def failed(self, key: tuple[Any, ...], now_s: float, base_s: float, max_s: float, reason: str) -> None:
        """Delay the next request with this key, twice as long after each failure in a row."""
        failures = self.delays[key].failures + 1 if key in self.delays else 1
        pause_s = min(base_s * 2.0 ** min(failures - 1, 16), max_s)
        self.delays[key] = Delay(failures, now_s + pause_s, reason)

    def succeeded(self, key: tuple[Any, ...]) -> None:
        """Forget the failures of this key."""
        self.delays.pop(key, None)

    def may_be_reported(self, key: JobKey) -> bool:
        """Whether a restart would know this job: nothing is said of it before that."""
        if self.fetched and self.fetched.get(key, 0) > self.durable:
            return False
        self.fetched.pop(key, None)
        return True

    def claim_was_read(self, key: RoundKey, claim: Claim, now_s: float) -> None:
        """A batch job's claim was read: absences that count for closing start from here."""
        self.claim_read_s[key] = now_s
        self.name_absences.pop(key, None)
        self.over_s.pop(key, None)
        for batch_id in claim.named:
            self.absences.pop(batch_id, None)
            self.seen_live.pop(batch_id, None)

    def answer_was_broken(self, action: Action, reason: str, now_s: float) -> None:
        """An answer made no sense: alarm, until the same source answers this kind of request well."""
        self.broken.add(_source(action))
        self.raise_alarm(f"broken-{action.key[0]}", reason, now_s)

    def answer_was_good(self, action: Action) -> None:
        """An answer made sense: the alarm goes with the last source that had been broken."""
        if self.broken:
            self.broken.discard(_source(action))
            if not any(kind == action.key[0] for kind, _ in self.broken):
                self.clear_alarm(f"broken-{action.key[0]}")

    def bundle_was_settled(self, queue: str, started: int, now_s: float) -> None:
        """One more bundle of this queue is over; `started`: jobs that it started."""
        if started:
            self.fruitless.pop(queue, None)
            self.clear_alarm(f"pilots-start-nothing-{queue}")
            return
        count = self.fruitless.get(queue, (0, 0.0))[0] + 1
        self.fruitless[queue] = count, now_s
        if count >= FRUITLESS_ALARM:
            reason = f"{count} bundles in a row started no job"
            self.raise_alarm(f"pilots-start-nothing-{queue}", reason, now_s)

    def raise_alarm(self, name: str, reason: str, now_s: float) -> None:
        """Raise or keep an alarm; its first time stays."""
        since_s = self.alarms[name].since_s if name in self.alarms else now_s
        self.alarms[name] = Alarm(reason, since_s)

    def clear_alarm(self, name: str) -> None:
        """Clear an alarm if it is raised."""
        self.alarms.pop(name, None)


def _source(action: Action) -> tuple[str, str]:
    """Kind of the request and whom it asks: a server, a bundle's directory, or the only one there is."""
    return str(action.key[0]), str(getattr(action, "server", getattr(action, "bundle_id", "")))
