"""The ground floor: values that cross a port, and the ports themselves (DESIGN section 4).

Adapters implement the protocols below with plain blocking methods. They are called by lanes only, never by
the decision thread: that one asks (`Lanes.ask(action) -> Ticket`) and finds the answer in a later tick's view.
Every adapter method returns its value or one of three failures; it raises only for bugs.

* `Unavailable`: we know nothing (time-out, connection refused, 5xx, an incomplete listing).
* `Refused`: a definite no of the other side.
* `Broken`: an answer that could not be understood; treated as `Unavailable`, plus an alarm.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, NewType, Protocol

PandaId = NewType("PandaId", int)
# A PanDA job among those of all servers, each of which counts from 1: multijob.jobkeys
JobKey = NewType("JobKey", int)
BatchId = NewType("BatchId", str)
BundleId = NewType("BundleId", str)
Ticket = NewType("Ticket", int)
# No server is near it: a key has room for the server's number above it.
PANDA_ID_MAX = 2**48 - 1


# --- failures -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Unavailable:
    """We could not look: nothing is known."""

    reason: str


@dataclass(frozen=True, slots=True)
class Refused:
    """A definite no. `code` is the other side's own (an exit code or StatusCode), as text."""

    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class Broken:
    """An answer that makes no sense. `excerpt` holds its first 500 characters, escaped."""

    reason: str
    excerpt: str = ""


Failure = Unavailable | Refused | Broken


# --- the workload server ------------------------------------------------------------------------------------


class JobStatus(StrEnum):
    """What a pilot may report, spelled as PanDA spells it."""

    STARTING = "starting"
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Job:
    """One PanDA job as fetched. `outputs` are the declared LFNs without the log; "NULL" became None."""

    panda_id: PandaId
    attempt_nr: int
    panda_queue: str
    job_name: str
    transformation: str
    job_pars: str
    outputs: tuple[str, ...]
    log_lfn: str | None
    priority: int = 0
    prod_source_label: str = ""
    max_walltime_s: int | None = None
    core_count: int = 1


@dataclass(frozen=True, slots=True)
class MalformedJob:
    """An item of a fetch answer that is no usable job. Its neighbours are not touched."""

    panda_id: PandaId | None
    attempt_nr: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class Fetched:
    """Answer to a fetch. Empty `jobs` means that the server gave none, not that its queue is empty."""

    jobs: tuple[Job, ...]
    malformed: tuple[MalformedJob, ...] = ()


@dataclass(frozen=True, slots=True)
class FileReport:
    """One output in a final report. `guid` is uuid5 of PandaID, attemptNr and LFN; adler32 is 8 hex digits."""

    lfn: str
    guid: str
    size: int
    adler32: str


@dataclass(frozen=True, slots=True)
class Update:
    """One status report of one PanDA job. Fields that are None are not sent."""

    panda_id: PandaId
    attempt_nr: int
    status: JobStatus
    panda_queue: str
    batch_id: str | None = None
    node: str | None = None
    start_time: datetime | None = None
    end_time: datetime | None = None
    pilot_error_code: int = 0
    pilot_error_diag: str = ""
    trans_exit_code: int | None = None
    n_events: int | None = None
    cpu_s: int | None = None
    max_rss_kib: int | None = None
    sub_status: str = ""
    job_metrics: str = ""
    report: tuple[FileReport, ...] = ()


@dataclass(frozen=True, slots=True)
class Ack:
    """The server's answer for one update.

    `accepted`: the server has stored it or already had it (`alreadydone`, `tobekilled` of an archived job).
    `command`: "" or the server's word (`tobekilled`, `alreadydone`, `badattemptnr`...).
    Not accepted: the update must be sent again, `reason` says why.
    """

    panda_id: PandaId
    attempt_nr: int
    accepted: bool
    command: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """Status of one job as the server tells a pilot. `status` is PanDA's word, "unknown" where it has none."""

    panda_id: PandaId
    attempt_nr: int
    status: str
    command: str = ""


class JobSource(Protocol):
    """PanDA, seen by a pilot. One adapter per (server, dialect)."""

    def fetch(self, panda_queue: str, n: int) -> Fetched | Failure: ...

    def report(self, updates: Sequence[Update]) -> tuple[Ack, ...] | Failure: ...

    def status(self, ids: Sequence[PandaId]) -> tuple[ServerStatus, ...] | Failure: ...

    def queue_depth(self, panda_queue: str) -> int | Failure: ...


# --- the batch system ---------------------------------------------------------------------------------------


class BatchState(StrEnum):
    """States of a batch job over all dialects. OVER: kept by the batch system after its end (Torque's C)."""

    WAITING = "waiting"
    HELD = "held"
    RUNNING = "running"
    EXITING = "exiting"
    SUSPENDED = "suspended"
    OVER = "over"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class BatchJobSeen:
    """One job of a listing. `exit_status` only where the batch system gave one.

    `over_walltime`: it is over, and by its walltime: by the status for that, or because all of the walltime is used.
    """

    batch_id: BatchId
    name: str
    state: BatchState
    queue: str = ""
    owner: str = ""
    exit_status: int | None = None
    walltime_s: int | None = None
    used_walltime_s: int | None = None
    start_count: int | None = None
    exec_hosts: tuple[str, ...] = ()
    comment: str = ""
    over_walltime: bool = False


@dataclass(frozen=True, slots=True)
class Listing:
    """A listing that came with exit 0, in time, its text closed, from the server named in the config.

    Whether it is *complete* (a known live job is in it) is decided by `recognise`, not by the adapter.
    `asked_ids`: None for all jobs of the user, else the ids asked for singly; an id that was asked for and
    definitely unknown (Torque: exit 153) stands in `unknown_ids`.
    """

    server: str
    jobs: tuple[BatchJobSeen, ...]
    asked_ids: tuple[BatchId, ...] | None = None
    unknown_ids: tuple[BatchId, ...] = ()


class CancelResult(StrEnum):
    """ASKED: the batch system took the request. ALREADY_OVER, UNKNOWN_ID: nothing left to cancel."""

    ASKED = "asked"
    ALREADY_OVER = "already over"
    UNKNOWN_ID = "unknown id"


@dataclass(frozen=True, slots=True)
class BatchRequest:
    """What a batch job asks for; a dialect renders it as directives at the head of the script."""

    name: str
    queue: str
    nodes: int
    slots_per_node: int
    walltime_s: int
    stdout: str
    features: tuple[str, ...] = ()
    account: str | None = None
    flags: str | None = None


@dataclass(frozen=True, slots=True)
class Hole:
    """A backfill window: so many nodes are free for so long (None: without end)."""

    nodes: int
    duration_s: int | None


class BatchSystem(Protocol):
    """Torque behind qsub, qstat and qdel. `script` is a path; its text carries the directives."""

    def submit(self, script: str, name: str) -> BatchId | Failure: ...

    def list_jobs(self, ids: Sequence[BatchId] | None) -> Listing | Failure: ...

    def cancel(self, batch_id: BatchId) -> CancelResult | Failure: ...

    def holes(self) -> tuple[Hole, ...] | Failure: ...


class Launcher(Protocol):
    """Pure: the command that starts one process on one more node of the batch job (one launcher per node)."""

    def command(self, node_index: int, argv: Sequence[str]) -> tuple[str, ...]: ...


# --- evidence: files on the shared filesystem (formats: docs/architecture/files.md) ---------------------------


@dataclass(frozen=True, slots=True)
class Claim:
    """Content of claim.<k>. `who` is "gate" or "pilot"; a gate's names its batch job.

    `who` is "unreadable" when the file is there and its text cannot be read (yet). With weak fencing it is what the
    marks of round k say, and `others` are further batch jobs that made one.
    """

    who: str
    round: int
    batch_id: BatchId | None
    host: str
    pid: int
    nonce: str
    utc: str
    others: tuple[BatchId, ...] = ()

    @property
    def named(self) -> tuple[BatchId, ...]:
        """Every batch job that it names."""
        return () if self.batch_id is None else (self.batch_id, *self.others)


@dataclass(frozen=True, slots=True)
class JournalLine:
    """One valid line of a node journal. `end` is the offset of the byte after it."""

    file: str
    end: int
    sequence: int
    kind: str
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Damage:
    """What cannot be read in a node journal, from byte `at` on."""

    file: str
    at: int
    reason: str


@dataclass(frozen=True, slots=True)
class EvidenceSeen:
    """What the files of one bundle say. `lines` holds only what stands behind the offsets given.

    `damaged`: lines with a wrong crc in the middle of a file. `tails`: what stands behind the last line of a file
    and is none: being written, not yet visible, or lost. `over_walltime`: rounds whose batch job's own output says
    that its walltime ended it (looked for once the bundle is closed). `scripts`: rounds that have a script.
    """

    bundle_id: BundleId
    claims: Mapping[int, Claim]
    door: int | None
    launched: tuple[int, ...]
    turned_away: tuple[int, ...]
    closed: bool
    lines: tuple[JournalLine, ...]
    damaged: tuple[Damage, ...] = ()
    tails: tuple[Damage, ...] = ()
    over_walltime: tuple[int, ...] = ()
    scripts: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class BundlesFound:
    """All bundle directories in place."""

    bundle_ids: tuple[BundleId, ...]


@dataclass(frozen=True, slots=True)
class DirectorySeen:
    """What stands in a bundle directory that the journal does not know, after claim(1) was made or found there.

    `manifest` None: it is not there, or nobody may read it. `rounds`: the newest round that has a script or a claim.
    """

    bundle_id: BundleId
    manifest: str | None
    rounds: int


@dataclass(frozen=True, slots=True)
class ClaimMade:
    """Answer to make_claim: `won` if the pilot owns the round (made now, or an own claim was found)."""

    won: bool
    claim: Claim


@dataclass(frozen=True, slots=True)
class Done:
    """Answer of a port call that returns nothing but its success."""


@dataclass(frozen=True, slots=True)
class AlreadyThere:
    """Answer to `prepare`: the directory was in place before; nothing was rendered."""


@dataclass(frozen=True, slots=True)
class BundleFiles:
    """What `prepare` writes: the manifest and the script of round 1 (later rounds: `add_script`)."""

    bundle_id: BundleId
    manifest: str
    scripts: Mapping[int, str]


# Code of `Refused`: a bundle's directory is not there, though those of other bundles can be listed.
GONE = "gone"
# And: no manifest can be made of a bundle for jobs that the reason names, and its directory is not in place.
UNFIT = "unfit"


class Evidence(Protocol):
    """The bundle directories. Every method is idempotent: it may be called again after a lost answer."""

    def find(self) -> BundlesFound | Failure: ...

    def adopt(self, bundle_id: BundleId) -> DirectorySeen | Failure: ...

    def prepare(
        self, bundle_id: BundleId, render: Callable[[], BundleFiles | Refused]
    ) -> Done | AlreadyThere | Failure: ...

    def add_script(self, bundle_id: BundleId, round_k: int, text: str) -> Done | Failure: ...

    def read(self, bundle_id: BundleId, offsets: Mapping[str, int]) -> EvidenceSeen | Failure: ...

    def make_claim(self, bundle_id: BundleId, round_k: int, weak: bool = False) -> ClaimMade | Failure: ...
    def make_mark(self, bundle_id: BundleId, round_k: int) -> Done | Failure: ...

    def set_door(self, bundle_id: BundleId, round_k: int) -> Done | Failure: ...

    def close(self, bundle_id: BundleId) -> Done | Failure: ...

    def write_commands(self, bundle_id: BundleId, text: str) -> Done | Failure: ...

    def link_outputs(self, pairs: Sequence[tuple[str, str]]) -> Done | Failure: ...

    def pack(self, bundle_id: BundleId, offsets: Mapping[str, int], bytes_max: int) -> Done | Failure: ...

    def remove(self, bundle_id: BundleId) -> Done | Failure: ...


# --- inputs of jobs ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class InputSeen:
    """Inputs of one job: their sizes, or the first `trouble` (a definite no), or why it is not known."""

    sizes: tuple[int, ...]
    trouble: str = ""
    unknown: str = ""


@dataclass(frozen=True, slots=True)
class InputsSeen:
    """One look at the inputs of several jobs."""

    jobs: Mapping[JobKey, InputSeen]


class Inputs(Protocol):
    """Input files of jobs, as the edge sees them."""

    def look(self, paths: Mapping[JobKey, Sequence[str]]) -> InputsSeen: ...


# --- space left -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SpaceSeen:
    """What is left for this user; `free_inodes` None: the filesystem counts none."""

    free_mib: int
    free_inodes: int | None


class Space(Protocol):
    """Space and inodes left, by the name of each directory."""

    def look(self, directories: Mapping[str, str]) -> Mapping[str, SpaceSeen] | Failure: ...


@dataclass(frozen=True, slots=True)
class AllocationLeft:
    """What the site says is left of the allocation, in node-hours; below 0 where it is overdrawn."""

    node_h: float


# --- credentials ----------------------------------------------------------------------------------------------


class CredentialKind(StrEnum):
    """X509: a proxy file (certificates and key). TOKEN: an OIDC token file, shown with an Origin."""

    X509 = "x509"
    TOKEN = "token"  # noqa: S105 (a kind, no secret)


@dataclass(frozen=True, slots=True)
class Credential:
    """What the file held when it was read. `fingerprint` changes with its content and tells nothing of it."""

    kind: CredentialKind
    path: str
    ends_at: datetime
    fingerprint: str


class Credentials(Protocol):
    """The credential of one PanDA server. `deliver` copies it by an atomic rename, mode 0600; `withdraw` removes the
    copy. `Refused`: the file is there and must not be used (others can read it, no end of life, another's)."""

    def current(self) -> Credential | Failure: ...

    def deliver(self, target: str) -> Done | Failure: ...

    def withdraw(self, target: str) -> Done | Failure: ...


# --- store, clock, lanes ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Appended:
    """Records up to and including commit `commit` are durable; `highest_epoch` was read from the lease after that.

    `sealed`: segments of this epoch that get no further record.
    """

    commit: int
    highest_epoch: int
    sealed: int = 0


class Store(Protocol):
    """The journal: records are JSON objects. `append` is one write and one fsync (group commit).

    `load` gives those of the newest snapshot first, if there is one.
    """

    def load(self) -> Iterable[Mapping[str, Any]]: ...

    def append(self, commit: int, records: Sequence[Mapping[str, Any]]) -> Appended | Failure: ...


class Clock(Protocol):
    """The only source of time. `now` is aware UTC for records; `monotonic` is seconds for durations."""

    def now(self) -> datetime: ...

    def monotonic(self) -> float: ...


@dataclass(frozen=True, slots=True)
class Answer:
    """What a lane brought back for one `ask`. `outcome` is the port's value or a Failure."""

    ticket: Ticket
    action: Any
    outcome: Any
    asked_at_s: float
    took_s: float


@dataclass(frozen=True, slots=True)
class LaneAge:
    """State of one lane for status: waiting requests and age of the one under way (None: idle)."""

    lane: str
    waiting: int
    under_way_s: float | None
    last_failure: str = ""


class Lanes(Protocol):
    """Where the decision thread puts actions and finds answers; never blocks."""

    def ask(self, action: Any) -> Ticket: ...

    def answers(self) -> tuple[Answer, ...]: ...

    def ages(self) -> tuple[LaneAge, ...]: ...
