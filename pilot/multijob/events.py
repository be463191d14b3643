"""Events: facts in the past tense. They go to the journal and are the only input of `apply`.

Every event names the UTC time `at` (ISO text, for people and for waits that survive a restart). An event of a job
names its server as well: a PandaID is one of its server only. "" stands in journals of before servers were named.
"""

from __future__ import annotations

from dataclasses import dataclass

from pilot.multijob.jobkeys import UNNAMED
from pilot.multijob.model import Outcome, Verdict
from pilot.ports import BatchId, BundleId, Claim, Job, PandaId


@dataclass(frozen=True, slots=True)
class JobFetched:
    """The server handed out a job; it is in the pool of its queue.

    `work`: its work key; `task`: whose jobs share a fate.
    """

    at: str
    queue: str
    job: Job
    work: str | None = None
    task: str | None = None
    server: str = UNNAMED


@dataclass(frozen=True, slots=True)
class BundlePlanned:
    """Jobs left the pool for a bundle. `credits`: by how much the deficits of queues changed that wanted this turn.

    `canary`: the task that it tries, all its jobs are of that one. `weak`: it has weak fencing. `server`: whose jobs
    they are, but for those of the pool that have no server's name.
    """

    at: str
    bundle_id: BundleId
    queue: str
    nodes: tuple[tuple[PandaId, ...], ...]
    walltime_s: int
    credits: tuple[tuple[str, float], ...] = ()
    canary: str | None = None
    weak: bool = False
    server: str = UNNAMED


@dataclass(frozen=True, slots=True)
class BundlePrepared:
    """The bundle's directory is in place (renamed)."""

    at: str
    bundle_id: BundleId


@dataclass(frozen=True, slots=True)
class RoundIntended:
    """Intent(k): journalled before qsub; the one submission of round k may have happened from here on."""

    at: str
    bundle_id: BundleId
    number: int


@dataclass(frozen=True, slots=True)
class BatchJobAccepted:
    """qsub answered with an id, or a batch job of the round was found by its name or in its claim (adopted)."""

    at: str
    bundle_id: BundleId
    number: int
    batch_id: BatchId
    how: str


@dataclass(frozen=True, slots=True)
class SubmitRefused:
    """qsub said a definite no to round k."""

    at: str
    bundle_id: BundleId
    number: int
    reason: str


@dataclass(frozen=True, slots=True)
class ClaimSeen:
    """claim(k) exists and is a batch job's: that one owns the round for ever."""

    at: str
    bundle_id: BundleId
    number: int
    claim: Claim


@dataclass(frozen=True, slots=True)
class RoundWon:
    """The pilot made claim(k) (or found its own): no batch job can launch round k any more."""

    at: str
    bundle_id: BundleId
    number: int


@dataclass(frozen=True, slots=True)
class RoundVoided:
    """Void(k): the door stands at k+1."""

    at: str
    bundle_id: BundleId
    number: int


@dataclass(frozen=True, slots=True)
class BatchJobEnded:
    """A batch job of round k is over; says nothing about success. `batch_id` None: no live batch job has its name.

    `how`: "over" (the batch system showed its end) or "absent" (not in two complete listings). `over_walltime`: the
    batch system showed that the walltime ended it. `used_s`: the walltime that it says was used, None if it does not.
    """

    at: str
    bundle_id: BundleId
    number: int
    batch_id: BatchId | None
    how: str
    over_walltime: bool = False
    used_s: int | None = None


@dataclass(frozen=True, slots=True)
class BundleCancelled:
    """A cancel was asked for: no further round; jobs not started go back."""

    at: str
    bundle_id: BundleId
    reason: str


@dataclass(frozen=True, slots=True)
class BundleClosed:
    """`closed` is written: agents place nothing any more."""

    at: str
    bundle_id: BundleId


@dataclass(frozen=True, slots=True)
class BundleSettled:
    """Every job of the bundle is judged or back in the pool."""

    at: str
    bundle_id: BundleId


@dataclass(frozen=True, slots=True)
class BundleRetired:
    """Its directory is removed; nothing is remembered of it."""

    at: str
    bundle_id: BundleId


@dataclass(frozen=True, slots=True)
class JournalConsumed:
    """A node journal was read up to byte `end`."""

    bundle_id: BundleId
    file: str
    end: int


@dataclass(frozen=True, slots=True)
class JobStarted:
    """A start line was read."""

    at: str
    panda_id: PandaId
    attempt_nr: int
    bundle_id: BundleId
    node_index: int
    server: str = UNNAMED


@dataclass(frozen=True, slots=True)
class NodeJournalDamaged:
    """The last reading found a part of a node's journal that is no line: nobody knows what its jobs did."""

    bundle_id: BundleId
    node_index: int
    reason: str


@dataclass(frozen=True, slots=True)
class NodeFailed:
    """An agent ended for a reason that is its node's: `file` is its journal, `host` the node's own name."""

    at: str
    host: str
    bundle_id: BundleId
    file: str
    reason: str


@dataclass(frozen=True, slots=True)
class JobGivenBack:
    """An agent said that it will not start this job (final only after settling)."""

    bundle_id: BundleId
    panda_id: PandaId
    reason: str
    server: str = UNNAMED


@dataclass(frozen=True, slots=True)
class JobJudged:
    """The final verdict. Later lines about this job are ignored."""

    at: str
    panda_id: PandaId
    attempt_nr: int
    verdict: Verdict
    outcome: Outcome
    server: str = UNNAMED


@dataclass(frozen=True, slots=True)
class JobReturned:
    """Not started for certain: back to the pool, its PandaID lives on."""

    at: str
    panda_id: PandaId
    reason: str
    server: str = UNNAMED


@dataclass(frozen=True, slots=True)
class KillOrdered:
    """A person asked PanDA to end this job. `confirmed`: one of a mass, and the operator said that it is meant."""

    at: str
    panda_id: PandaId
    confirmed: bool = False
    server: str = UNNAMED


@dataclass(frozen=True, slots=True)
class JobOrphaned:
    """The server gave this job up (lost heartbeat, unknown); it runs on, nothing is reported for it."""

    at: str
    panda_id: PandaId
    reason: str
    server: str = UNNAMED


@dataclass(frozen=True, slots=True)
class JobKept:
    """A finished job that the server has done with: its outputs are there for another PandaID of its work."""

    at: str
    panda_id: PandaId
    server: str = UNNAMED


@dataclass(frozen=True, slots=True)
class JobBound:
    """A further PandaID of the same work: it follows the first one's run or evidence and does not run itself."""

    at: str
    panda_id: PandaId
    to: PandaId
    server: str = UNNAMED
    to_server: str = UNNAMED


@dataclass(frozen=True, slots=True)
class JobUnbound:
    """What it followed came to nothing: back to the pool."""

    at: str
    panda_id: PandaId
    reason: str
    server: str = UNNAMED


@dataclass(frozen=True, slots=True)
class PauseOrdered:
    """A person wants no new pilots for this queue: nothing is fetched, no bundle is planned."""

    at: str
    queue: str


@dataclass(frozen=True, slots=True)
class DrainOrdered:
    """A person wants this queue empty: as a pause, and what waits in the pool ends as not started.

    `cancel_queued`: bundles whose batch job has not started are cancelled. `until`: UTC time (ISO text) at which
    the drain ends by itself, None for a resume only.
    """

    at: str
    queue: str
    cancel_queued: bool = False
    until: str | None = None


@dataclass(frozen=True, slots=True)
class QueueResumed:
    """The pause or drain of this queue is over; `reason` says who or what ended it."""

    at: str
    queue: str
    reason: str


@dataclass(frozen=True, slots=True)
class TaskStopped:
    """Too many jobs of this task failed, or of its probe: nothing of it is submitted but a probe later on."""

    at: str
    task: str
    reason: str


@dataclass(frozen=True, slots=True)
class TaskResumed:
    """A person says that this task is well: it is submitted again."""

    at: str
    task: str


@dataclass(frozen=True, slots=True)
class JobRecalled:
    """The server handed out a job again that a bundle of ours has had: judged by its evidence, never run again."""

    at: str
    queue: str
    job: Job
    bundle_id: BundleId
    server: str = UNNAMED


@dataclass(frozen=True, slots=True)
class AdoptedJob:
    """A job of a directory that was found. `turn`: so many bundles had it then, this one included.

    `orphaned`: the server has given it up, or has had its end. `server` "": it is known without its server's name.
    """

    job: Job
    turn: int
    work: str | None = None
    task: str | None = None
    orphaned: bool = False
    server: str = UNNAMED


@dataclass(frozen=True, slots=True)
class BundleAdopted:
    """A bundle directory that the journal did not know belongs to this daemon now, as its manifest has it.

    `rounds`: its newest round; those before it are void. `jobs`: of `nodes`, those that may still need a verdict.
    """

    at: str
    bundle_id: BundleId
    queue: str
    nodes: tuple[tuple[PandaId, ...], ...]
    walltime_s: int
    rounds: int
    jobs: tuple[AdoptedJob, ...]
    weak: bool = False
    server: str = UNNAMED


@dataclass(frozen=True, slots=True)
class JobFoundOver:
    """The server was asked and wants this job no more: it has had its end, or gave it up. The job is forgotten."""

    at: str
    panda_id: PandaId
    reason: str
    server: str = UNNAMED


@dataclass(frozen=True, slots=True)
class FinalAccepted:
    """The server has the final report; the job is forgotten."""

    at: str
    panda_id: PandaId
    attempt_nr: int
    server: str = UNNAMED


Event = (
    JobFetched
    | BundlePlanned
    | BundlePrepared
    | RoundIntended
    | BatchJobAccepted
    | SubmitRefused
    | ClaimSeen
    | RoundWon
    | RoundVoided
    | BatchJobEnded
    | BundleCancelled
    | BundleClosed
    | BundleSettled
    | BundleRetired
    | JournalConsumed
    | NodeJournalDamaged
    | NodeFailed
    | JobStarted
    | JobGivenBack
    | JobJudged
    | JobReturned
    | KillOrdered
    | JobOrphaned
    | JobKept
    | JobBound
    | JobUnbound
    | JobRecalled
    | BundleAdopted
    | JobFoundOver
    | FinalAccepted
    | PauseOrdered
    | DrainOrdered
    | QueueResumed
    | TaskStopped
    | TaskResumed
)
