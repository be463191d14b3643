"""States of jobs, rounds and bundles: what the daemon knows, as a fold of its journal.

`State` is owned by `apply` (the one door): nothing else changes it. What must not survive a restart (absences
counted, settle time, requests under way) lives in `memory`.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

from pilot.experiments.words import Experiment
from pilot.multijob.jobkeys import panda_id_of
from pilot.multijob.keptjob import unfold
from pilot.ports import BatchId, BatchRequest, BundleId, Claim, FileReport, Job, JobKey, JobStatus, PandaId
from pilot.windows import Window


class JobState(StrEnum):
    """Where a fetched job stands.

    POOLED: in the pool of its queue. BOUND: follows the run or the evidence of another job of the same work.
    BUNDLED: in a bundle, no start line seen. STARTED: start line seen.
    JUDGED: has a verdict whose final report the server has not accepted yet. Then it is forgotten.
    """

    POOLED = "pooled"
    BOUND = "bound"
    BUNDLED = "bundled"
    STARTED = "started"
    JUDGED = "judged"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The judgement of one job, final once journalled. `code` 0 only for finished; `charge` as in codes.yaml."""

    status: JobStatus
    code: int
    reason: str
    charge: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a final report carries besides the verdict; facts of the node, or empty where none were found."""

    exit_code: int | None = None
    n_events: int | None = None
    wall_s: float | None = None
    cpu_s: float | None = None
    rss_mib: float | None = None
    report: tuple[FileReport, ...] = ()
    n_written: int | None = None


NO_OUTCOME = Outcome()


class Judgement(NamedTuple):
    """The end of a job: what was decided, when, and what its final report carries."""

    at: str
    verdict: Verdict
    outcome: Outcome


class Orders(NamedTuple):
    """What else is so of a job: its end was ordered; its server gave it up; it is kept for its work's sake."""

    kill_ordered: bool = False
    orphaned: bool = False
    kept: bool = False


NO_ORDERS = Orders()


@dataclass(slots=True)
class JobRecord:
    """One PanDA job between its fetch and the acceptance of its final report.

    `server`: the one that handed it out, "" where an old journal did not say.
    `held`: the job; from its first bundle on only its text, kept small against `base`. `job` is the whole one.
    `work`: stands for its key.
    """

    key: JobKey
    server: str
    attempt_nr: int
    held: Job | bytes
    queue: str
    fetched_at: str
    state: JobState = JobState.POOLED
    bundle_id: BundleId | None = None
    node_index: int | None = None
    started_at: str | None = None
    judgement: Judgement | None = None
    orders: Orders = NO_ORDERS
    work: bytes | None = None
    task: str | None = None
    # how many bundles have had it
    turns: int = 0
    base: bytes = b""

    @classmethod
    def of(
        cls,
        key: JobKey,
        server: str,
        job: Job,
        queue: str,
        fetched_at: str,
        *,
        work: bytes | None = None,
        task: str | None = None,
    ) -> JobRecord:
        """A job that was just fetched."""
        return cls(key, server, job.attempt_nr, job, queue, fetched_at, work=work, task=task)

    @property
    def job(self) -> Job:
        """The job as it was fetched."""
        if isinstance(self.held, Job):
            return self.held
        return unfold(self.panda_id, self.attempt_nr, self.held, self.base)

    @property
    def panda_id(self) -> PandaId:
        return panda_id_of(self.key)

    @property
    def verdict(self) -> Verdict | None:
        return self.judgement.verdict if self.judgement is not None else None

    @property
    def outcome(self) -> Outcome:
        return self.judgement.outcome if self.judgement is not None else NO_OUTCOME

    @property
    def judged_at(self) -> str | None:
        return self.judgement.at if self.judgement is not None else None

    @property
    def kill_ordered(self) -> bool:
        return self.orders.kill_ordered

    @property
    def orphaned(self) -> bool:
        return self.orders.orphaned

    @property
    def kept(self) -> bool:
        return self.orders.kept


class RoundState(StrEnum):
    """INTENDED: Intent journalled. ACCEPTED: a batch id is known. CLAIMED: a batch job owns it. VOID: given up."""

    INTENDED = "intended"
    ACCEPTED = "accepted"
    CLAIMED = "claimed"
    VOID = "void"


@dataclass(slots=True)
class Round:
    """One submission of a bundle. `batch_ids` are all ids ever accepted or adopted for it, newest last."""

    number: int
    state: RoundState
    intended_at: str
    batch_ids: tuple[BatchId, ...] = ()
    claim: Claim | None = None
    refused: str | None = None
    pilot_owns: bool = False
    ended: dict[BatchId | None, str] = field(default_factory=dict)
    # when the end of each was seen, and the seconds of walltime that the batch system said it used (None: not told)
    ends: dict[BatchId | None, tuple[str, int | None]] = field(default_factory=dict)
    over_walltime: bool = False

    @property
    def owners(self) -> tuple[BatchId, ...]:
        """The batch jobs that may own this round: the claim's, else every one ever accepted or adopted."""
        if self.claim is not None and self.claim.batch_id is not None:
            return self.claim.named
        return self.batch_ids

    @property
    def batch_job_over(self) -> bool:
        """Every batch job that may own this round is over.

        None known, or a claim that cannot be read: then also none that lives has its name.
        """
        known = all(batch_id in self.ended for batch_id in self.owners)
        if self.owners and not self.claim_unreadable:
            return known
        return known and None in self.ended

    @property
    def claim_unreadable(self) -> bool:
        """A batch job owns this round, and which one is not known: any with the round's name may be it."""
        return self.claim is not None and self.claim.batch_id is None


class BundleState(StrEnum):
    """PLANNED: its directory is not in place. OPEN: rounds may come. CLOSED: `closed` is written. SETTLED: every
    job has its verdict or went back to the pool."""

    PLANNED = "planned"
    OPEN = "open"
    CLOSED = "closed"
    SETTLED = "settled"


@dataclass(slots=True)
class Bundle:
    """The jobs that one batch job may run. `nodes[i]` are the jobs of node i in the order of the manifest."""

    bundle_id: BundleId
    queue: str
    planned_at: str
    nodes: tuple[tuple[JobKey, ...], ...]
    walltime_s: int
    state: BundleState = BundleState.PLANNED
    rounds: dict[int, Round] = field(default_factory=dict)
    offsets: dict[str, int] = field(default_factory=dict)
    cancel_reason: str | None = None
    given_back: dict[JobKey, str] = field(default_factory=dict)
    # nodes whose journal cannot be read whole: what is not in it is unknown, not absent
    unreadable: dict[int, str] = field(default_factory=dict)
    settled_at: str | None = None
    failures: int = 0
    orders: int = 0
    # jobs that were seen to start here
    started: int = 0
    # jobs that the server handed out again: judged by evidence that is read once more
    recalled: set[JobKey] = field(default_factory=set)
    # its directory was found, and the journal did not know it: it gets no further round
    adopted: bool = False
    # its manifest says so: its gates and the pilot mark, wait and look, and make no claim (DESIGN 3)
    weak: bool = False
    # numbers of the servers of its jobs: one, and that of jobs without a server's name after an old journal
    servers: tuple[int, ...] = (0,)

    @property
    def between_rounds(self) -> bool:
        """Its directory is in place, and no round is open."""
        current = self.current
        return self.state is BundleState.OPEN and (current is None or current.state is RoundState.VOID)

    @property
    def current(self) -> Round | None:
        """The newest round, None before the first Intent."""
        return self.rounds[max(self.rounds)] if self.rounds else None

    def refusal_before(self, number: int) -> str | None:
        """Why qsub refused an earlier round: later ones go without the site's flags, which it may be."""
        refused = (found.refused for k, found in sorted(self.rounds.items()) if k < number)
        return next((reason for reason in refused if reason is not None), None)

    @property
    def job_keys(self) -> tuple[JobKey, ...]:
        """Every job of the bundle."""
        return tuple(key for node in self.nodes for key in node)


@dataclass(slots=True)
class QueueTotals:
    """Durable counters of one queue (status and `--once`)."""

    fetched: int = 0
    bundles: int = 0
    finished: int = 0
    failed: int = 0
    returned: int = 0


@dataclass(slots=True)
class NodeUse:
    """Node-seconds that closed bundles of one queue took: in all, and by the UTC day on which each was planned."""

    total_s: float = 0.0
    days_s: dict[str, float] = field(default_factory=dict)


# Ends of a task's jobs that are remembered: no window of the configuration is longer.
RECENT_MAX = 1000


@dataclass(slots=True)
class TaskRecord:
    """How the jobs of one task have ended here by their own doing (rotation.tasks).

    `recent`: the newest ends, True for a failure. `canary`: the bundle that tries it, or tried it last, and how its
    jobs ended. `stopped_at`, `reason`: the breaker; `stops`: how often in a row, probes that failed included.
    """

    name: str
    queue: str
    proven: bool = False
    recent: deque[bool] = field(default_factory=lambda: deque(maxlen=RECENT_MAX))
    canary: BundleId | None = None
    tried_finished: int = 0
    tried_failed: int = 0
    stopped_at: str | None = None
    reason: str = ""
    stops: int = 0


@dataclass(frozen=True, slots=True)
class QueueHold:
    """A person's order to start nothing for a queue, since `at`; `drains`: and to empty it (events.DrainOrdered)."""

    at: str
    drains: bool
    cancel_queued: bool = False
    until: str | None = None


class Retired(NamedTuple):
    """What is remembered of a bundle whose directory is gone. `keys`: of its jobs, in rising order."""

    queue: str
    keys: array[int]


class NodeFailure(NamedTuple):
    """An agent ended for its node's sake: when, and which journal of which bundle says so."""

    at: str
    bundle_id: BundleId
    file: str
    reason: str


@dataclass(slots=True)
class State:
    """All that one daemon knows. `pools[queue]` keeps the order of arrival, `holds[queue]` what a person ordered."""

    # number of each server in the keys of its jobs, in the order in which they were named
    servers: dict[str, int] = field(default_factory=dict)
    jobs: dict[JobKey, JobRecord] = field(default_factory=dict)
    # how many jobs of each queue are in each state: counted along, there may be 150,000
    counts: dict[tuple[str, JobState], int] = field(default_factory=dict)
    bundles: dict[BundleId, Bundle] = field(default_factory=dict)
    pools: dict[str, dict[JobKey, None]] = field(default_factory=dict)
    totals: dict[str, QueueTotals] = field(default_factory=dict)
    holds: dict[str, QueueHold] = field(default_factory=dict)
    uses: dict[str, NodeUse] = field(default_factory=dict)
    # node-seconds that a queue is owed by the others (rotation.turns)
    deficits: dict[str, float] = field(default_factory=dict)
    tasks: dict[str, TaskRecord] = field(default_factory=dict)
    # the job that delivers a work, by what stands for its key: the first one that is known
    works: dict[bytes, JobKey] = field(default_factory=dict)
    # what the jobs at work of each task, or of each queue, are kept against
    bases: dict[str, bytes] = field(default_factory=dict)
    # how many jobs each of them is for: it goes with the last one
    base_users: dict[str, int] = field(default_factory=dict)
    # jobs that follow another one
    bound: dict[JobKey, JobKey] = field(default_factory=dict)
    # jobs of the bundles retired last: a restored server may hand them out when nothing tells any more how they ended
    retired: dict[BundleId, Retired] = field(default_factory=dict)
    # failures of nodes by their own names, newest last (multijob.sicknodes)
    nodes: dict[str, tuple[NodeFailure, ...]] = field(default_factory=dict)


# --- what the decisions are given: plain values made from the config ---------------------------------------------


@dataclass(frozen=True, slots=True)
class ProtocolTimes:
    """Times of the submission protocol, all in seconds (DESIGN 3). `settle_s` follows from the others."""

    visible_s: float
    poll_s: float
    kill_s: float
    grace_s: float
    margin_s: float
    # of bundles that are planned from now on: link(2) is not exclusive between hosts of this site
    weak: bool = False

    @property
    def settle_s(self) -> float:
        """Wait between `closed` and the last reading."""
        return 2 * self.visible_s + self.poll_s + self.kill_s


@dataclass(frozen=True, slots=True)
class WalltimePolicy:
    """Walltime asked for: longest predicted node plus margin, inside [min_s, max_s]."""

    min_s: int
    max_s: int
    startup_s: float
    per_event_s: float
    margin_s: float


@dataclass(frozen=True, slots=True)
class QueueSpec:
    """One queue of the config, as the decisions need it."""

    name: str
    server: str
    panda_queue: str
    batch_queue: str
    wanted: int
    queued_max: int
    nodes: int
    slots: int
    pool_bundles: int
    fill_wait_s: float
    walltime: WalltimePolicy
    chunk: int
    jobs_per_slot: int = 1
    # cores of a node that are asked for and given to its agent, None: as many as slots; memory of one payload
    cores: int | None = None
    memory_mib: int | None = None
    # node-hours that its bundles may take: those planned on one UTC day, and all since the journal began
    node_hours_day_max: float | None = None
    node_hours_max: float | None = None
    # weight among queues that want to start at once; times at which nothing is started
    share: float = 1.0
    no_start: tuple[Window, ...] = ()
    # how its inputs are made available, and the manifest's `caldb`; None: as the site's
    inputs_method: str | None = None
    caldb: Mapping[str, Any] | None = None

    @property
    def bundle_jobs(self) -> int:
        """Jobs of a full bundle."""
        return self.nodes * self.slots * self.jobs_per_slot


@dataclass(frozen=True, slots=True)
class SiteSpec:
    """What manifests and scripts need to know of the site. Paths are absolute and the same on every node.

    `node_limits` are the manifest's `limits`; `caldb` is its `caldb` or None; `launch(node index,
    slots)` gives the launcher's words.
    """

    name: str
    shared_dir: str
    output_root: str
    python: str
    agent_file: str
    local_dir: str
    environment: Mapping[str, str]
    launch: Callable[[int, int], tuple[str, ...]]
    node_limits: Mapping[str, float | int | None]
    caldb: Mapping[str, Any] | None
    account: str | None
    flags: str | None
    features: tuple[str, ...]
    directives: Callable[[BatchRequest], str]
    bind: str = "none"
    end_foreign: str = "none"
    probe: tuple[str, ...] = ()
    # how inputs are made available on nodes, and the command where it is one
    inputs_method: str = "in place"
    inputs_command: tuple[str, ...] = ()
    # path of the set-up script, with {NAMES} of the job's environment; None: there is none
    setup: str | None = None


@dataclass(frozen=True, slots=True)
class ReportTimes:
    """Heartbeat rules, seconds: period, spread of the period, and the age from which one is urgent."""

    heartbeat_s: float = 2700.0
    spread_s: float = 300.0
    urgent_s: float = 4500.0
    retry_s: float = 30.0
    retry_max_s: float = 600.0
    under_way_max: int = 8


@dataclass(frozen=True, slots=True)
class CredentialRule:
    """Rules for the credential of one server, seconds.

    `renewed`: something outside renews the file all the time, so a bundle may outlive what it holds now. `variable`:
    name of the payload's variable with the path of the bundle's copy, None if no copy is delivered.
    """

    warn_s: float = 86400.0
    look_every_s: float = 60.0
    renewed: bool = False
    variable: str | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """Everything the pure core is told. Names, units and reasons stand in the config's documentation."""

    queues: Mapping[str, QueueSpec]
    protocol: ProtocolTimes
    report: ReportTimes
    site: SiteSpec
    experiment: Experiment
    batch_server: str
    credentials: Mapping[str, CredentialRule] = field(default_factory=dict)
    listing_every_s: float = 60.0
    evidence_every_s: float = 5.0
    fetch_retry_s: float = 60.0
    fetch_retry_max_s: float = 600.0
    submit_retry_s: float = 60.0
    fruitless_wait_s: float = 60.0
    fruitless_wait_max_s: float = 3600.0
    cancel_again_s: float = 600.0
    silent_s: float = 3600.0
    # a node that failed so often within this time probes before its first payload, for so long after the last time
    avoid_failures: int = 2
    avoid_s: float = 86400.0
    blind_after_s: float = 900.0
    rounds_max: int = 5
    singles_per_cycle: int = 20
    unreported_hold_s: float = 300.0
    # jobs that one tick looks at for reports
    looks_at_once: int = 512
    waiting_for_qsub_max: int = 4
    # more jobs of the pools that a changed configuration does not fit are held, not ended
    misfits_max: int = 200
    tobekilled_max: int = 200
    tobekilled_share: float = 0.02
    tobekilled_floor: int = 20
    tobekilled_sample: int = 100
    retain_ok_s: float = 86400.0
    retain_failed_s: float = 1209600.0
    # directories that are packed at once (0: none), and bytes of one that are
    pack_at_once: int = 1
    pack_bytes_max: int = 64 * 2**20
    # starts that all queues share: pilots that live, batch jobs of `user` that wait (also those of others than us),
    # the pause between two starts and by how much of it chance may lengthen it
    live_max: int | None = None
    queued_max: int | None = None
    user: str = ""
    spacing_s: float = 0.0
    jitter: float = 0.0
    # a new task is tried on so many nodes first (None: not), and stopped when so many of its last jobs failed
    canary_nodes: int | None = None
    task_window: int = 64
    task_failed_max: int = 32
    task_probe_s: float = 3600.0
    task_probe_max_s: float = 86400.0
    # where space is looked for, by name; what must be left there
    directories: Mapping[str, str] = field(default_factory=dict)
    space_look_s: float = 60.0
    free_min_mib: int = 1024
    free_inodes_min: int = 10000
    # how often the site is asked what is left of the allocation (None: never), and the alarm's limit
    allocation_look_s: float | None = None
    allocation_warn_node_h: float = 0.0
    # inputs of a job: looked at from here at all; of the same size for so long, or waited for so long
    input_look: bool = True
    input_quiet_s: float = 0.0
    input_wait_s: float = 3600.0
    once: bool = False
