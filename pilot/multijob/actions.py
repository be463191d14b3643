"""Actions: imperative, not yet done. Each is a request to a lane; `key` tells whether it is under way already.

`Barrier` says what an action waits for: EVENTS until every event recorded before it is durable, NOTHING if it
only looks or repeats what the server knows (heartbeats go on when the journal cannot be written).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from pilot.ports import BatchId, BundleFiles, BundleId, JobKey, PandaId, Refused, Update


class Barrier(StrEnum):
    """What an action waits for before it is released."""

    EVENTS = "events"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class AppendEvents:
    """Write and fsync journal records (group commit)."""

    commit: int
    records: tuple[Mapping[str, Any], ...]
    barrier = Barrier.NOTHING

    @property
    def key(self) -> tuple[Any, ...]:
        return ("append",)


@dataclass(frozen=True, slots=True)
class TakeSnapshot:
    """Write the state as it was after so many sealed segments of this epoch: what a start reads in their place."""

    epoch: int
    segment: int
    barrier = Barrier.NOTHING

    @property
    def key(self) -> tuple[Any, ...]:
        return ("snapshot",)


@dataclass(frozen=True, slots=True)
class FetchJobs:
    """Ask the server for up to `count` jobs of one queue."""

    queue: str
    server: str
    panda_queue: str
    count: int
    barrier = Barrier.EVENTS

    @property
    def key(self) -> tuple[Any, ...]:
        return ("fetch", self.queue)


@dataclass(frozen=True, slots=True)
class ReportJobs:
    """Report up to a chunk of updates to one server. `rank`: 0 is the most urgent (DESIGN 2)."""

    server: str
    updates: tuple[Update, ...]
    rank: int
    final: bool

    @property
    def barrier(self) -> Barrier:
        return Barrier.EVENTS if self.final else Barrier.NOTHING

    @property
    def key(self) -> tuple[Any, ...]:
        return ("report", self.server, self.updates[0].panda_id)


@dataclass(frozen=True, slots=True)
class AskStatus:
    """Ask the server what it thinks of these jobs (after tobekilled)."""

    server: str
    ids: tuple[PandaId, ...]
    barrier = Barrier.NOTHING

    @property
    def key(self) -> tuple[Any, ...]:
        return ("status", self.server)


@dataclass(frozen=True, slots=True)
class FindBundles:
    """List the bundle directories in place."""

    barrier = Barrier.EVENTS

    @property
    def key(self) -> tuple[Any, ...]:
        return ("find",)


@dataclass(frozen=True, slots=True)
class AdoptBundle:
    """Make claim(1) as the pilot in a directory that the journal does not know, and read what it is."""

    bundle_id: BundleId
    barrier = Barrier.EVENTS

    @property
    def key(self) -> tuple[Any, ...]:
        return ("adopt", self.bundle_id)


@dataclass(frozen=True, slots=True)
class PrepareBundle:
    """Write manifest and first script into the bundle's directory and rename it into place.

    `render`: makes their texts, in the lane: those of 512 jobs take longer than a tick may. `Refused`: of which jobs
    none can be made.
    """

    bundle_id: BundleId
    render: Callable[[], BundleFiles | Refused] = field(repr=False, compare=False)
    barrier = Barrier.EVENTS

    @property
    def files(self) -> BundleFiles:
        """The texts of a bundle whose jobs all fit, made anew."""
        files = self.render()
        assert isinstance(files, BundleFiles)
        return files

    @property
    def key(self) -> tuple[Any, ...]:
        return ("prepare", self.bundle_id)


@dataclass(frozen=True, slots=True)
class AddScript:
    """Write the script of a later round."""

    bundle_id: BundleId
    number: int
    text: str
    barrier = Barrier.EVENTS

    @property
    def key(self) -> tuple[Any, ...]:
        return ("script", self.bundle_id, self.number)


@dataclass(frozen=True, slots=True)
class SubmitBatchJob:
    """qsub the script of round k. Asked at most once for each Intent."""

    bundle_id: BundleId
    number: int
    name: str
    barrier = Barrier.EVENTS

    @property
    def key(self) -> tuple[Any, ...]:
        return ("submit", self.bundle_id, self.number)


@dataclass(frozen=True, slots=True)
class ListBatchJobs:
    """One listing for all bundles, or the named ids singly."""

    ids: tuple[BatchId, ...] | None = None
    barrier = Barrier.NOTHING

    @property
    def key(self) -> tuple[Any, ...]:
        return ("list",) if self.ids is None else ("list", "singly")


@dataclass(frozen=True, slots=True)
class CancelBatchJob:
    """qdel one batch job."""

    bundle_id: BundleId
    batch_id: BatchId
    why: str
    barrier = Barrier.EVENTS

    @property
    def key(self) -> tuple[Any, ...]:
        return ("cancel", self.batch_id)


@dataclass(frozen=True, slots=True)
class ReadEvidence:
    """Read claims, doors and new journal lines of one bundle. `last`: the reading after settling."""

    bundle_id: BundleId
    offsets: Mapping[str, int]
    last: bool = False
    barrier = Barrier.NOTHING

    @property
    def key(self) -> tuple[Any, ...]:
        return ("read", self.bundle_id)


@dataclass(frozen=True, slots=True)
class MakeClaim:
    """Make claim(k) as the pilot. `weak`: look at all marks of k, visible_s after the own one was made."""

    bundle_id: BundleId
    number: int
    weak: bool = False
    barrier = Barrier.EVENTS

    @property
    def key(self) -> tuple[Any, ...]:
        return ("claim", self.bundle_id, self.number)


@dataclass(frozen=True, slots=True)
class MakeMark:
    """Make the pilot's mark of round k: weak fencing only."""

    bundle_id: BundleId
    number: int
    barrier = Barrier.EVENTS

    @property
    def key(self) -> tuple[Any, ...]:
        return ("mark", self.bundle_id, self.number)


@dataclass(frozen=True, slots=True)
class SetDoor:
    """Write door := number."""

    bundle_id: BundleId
    number: int
    barrier = Barrier.EVENTS

    @property
    def key(self) -> tuple[Any, ...]:
        return ("door", self.bundle_id, self.number)


@dataclass(frozen=True, slots=True)
class WriteClosed:
    """Write `closed`."""

    bundle_id: BundleId
    barrier = Barrier.EVENTS

    @property
    def key(self) -> tuple[Any, ...]:
        return ("close", self.bundle_id)


@dataclass(frozen=True, slots=True)
class WriteCommands:
    """Tell the agents of a bundle to end these jobs."""

    bundle_id: BundleId
    serial: int
    end: tuple[tuple[PandaId, int], ...]
    barrier = Barrier.EVENTS

    @property
    def key(self) -> tuple[Any, ...]:
        return ("commands", self.bundle_id)


@dataclass(frozen=True, slots=True)
class LookAtCredential:
    """Read the credential of one server: is it usable, and until when?"""

    server: str
    barrier = Barrier.NOTHING

    @property
    def key(self) -> tuple[Any, ...]:
        return ("credential", self.server)


@dataclass(frozen=True, slots=True)
class DeliverCredential:
    """Copy the server's credential into a bundle's directory. `fingerprint`: of the content last seen."""

    bundle_id: BundleId
    server: str
    target: str
    fingerprint: str
    barrier = Barrier.EVENTS

    @property
    def key(self) -> tuple[Any, ...]:
        return ("deliver", self.bundle_id)


@dataclass(frozen=True, slots=True)
class WithdrawCredential:
    """Remove the copy from a bundle's directory: its batch job is over."""

    bundle_id: BundleId
    server: str
    target: str
    barrier = Barrier.EVENTS

    @property
    def key(self) -> tuple[Any, ...]:
        return ("withdraw", self.bundle_id)


@dataclass(frozen=True, slots=True)
class LookAtInputs:
    """Look at the inputs of jobs in the pool of a queue."""

    queue: str
    paths: Mapping[JobKey, tuple[str, ...]]
    barrier = Barrier.NOTHING

    @property
    def key(self) -> tuple[Any, ...]:
        return ("inputs", self.queue)


@dataclass(frozen=True, slots=True)
class LookAtSpace:
    """Look at the space left in each directory, by its name in the configuration."""

    directories: Mapping[str, str]
    barrier = Barrier.NOTHING

    @property
    def key(self) -> tuple[Any, ...]:
        return ("space",)


@dataclass(frozen=True, slots=True)
class LookAtAllocation:
    """Ask the site's command what is left of the allocation."""

    barrier = Barrier.NOTHING

    @property
    def key(self) -> tuple[Any, ...]:
        return ("allocation",)


@dataclass(frozen=True, slots=True)
class LinkOutputs:
    """Give the outputs of an orphan a second link under the names that its new PandaID declares."""

    job: JobKey
    pairs: tuple[tuple[str, str], ...]

    barrier = Barrier.EVENTS

    @property
    def key(self) -> tuple[Any, ...]:
        return ("link", self.job)


@dataclass(frozen=True, slots=True)
class PackBundle:
    """Make one file of the small files of a settled bundle, whose journals were read so far; `bytes_max` at once."""

    bundle_id: BundleId
    offsets: Mapping[str, int]
    bytes_max: int
    barrier = Barrier.EVENTS

    @property
    def key(self) -> tuple[Any, ...]:
        return ("pack", self.bundle_id)


@dataclass(frozen=True, slots=True)
class RemoveBundle:
    """Remove the directory of a settled bundle."""

    bundle_id: BundleId
    barrier = Barrier.EVENTS

    @property
    def key(self) -> tuple[Any, ...]:
        return ("remove", self.bundle_id)


@dataclass(frozen=True, slots=True)
class AnswerCommand:
    """Tell the person behind command `serial` what became of it: once the orders in it are durable."""

    serial: int
    done: bool
    lines: tuple[str, ...]
    barrier = Barrier.EVENTS

    @property
    def key(self) -> tuple[Any, ...]:
        return ("answer", self.serial)


Action = (
    AppendEvents
    | TakeSnapshot
    | FetchJobs
    | ReportJobs
    | AskStatus
    | FindBundles
    | AdoptBundle
    | PrepareBundle
    | AddScript
    | SubmitBatchJob
    | ListBatchJobs
    | CancelBatchJob
    | ReadEvidence
    | MakeClaim
    | MakeMark
    | SetDoor
    | WriteClosed
    | WriteCommands
    | LookAtCredential
    | LookAtInputs
    | LookAtSpace
    | LookAtAllocation
    | DeliverCredential
    | WithdrawCredential
    | LinkOutputs
    | PackBundle
    | RemoveBundle
    | AnswerCommand
)
