"""What prodsys asks of the outside: the workload server (`JobSink`) and storage, with three failures as values.

An adapter returns its value or one of `Unavailable`, `Refused`, `Broken`; it raises only for bugs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class _Failure:
    reason: str

    def __str__(self) -> str:
        return f"{type(self).__name__.lower()}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Unavailable(_Failure):
    """We know nothing: time-out, 5xx, a database error of the server.

    `reached` False: the request certainly never left this machine (no connection was made).
    """

    reached: bool = True


@dataclass(frozen=True, slots=True)
class Refused(_Failure):
    """A definite no: the other side has done nothing."""


@dataclass(frozen=True, slots=True)
class Broken(_Failure):
    """An answer that makes no sense; treated as `Unavailable`, and shown."""

    excerpt: str = ""


Failure = Unavailable | Refused | Broken


# --- the workload server ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PandaJob:
    """One PanDA job as submitted. `batch_number` travels as jediTaskID, the only key a lost job can be found by.
    `outputs`: PanDA's file type (output or log) by LFN."""

    job_name: str
    batch_number: int
    panda_queue: str
    transformation: str
    job_parameters: str
    outputs: Mapping[str, str]
    attempt_nr: int
    max_attempt: int
    priority: int
    task_id: int
    n_events: int | None = None
    parent_id: int | None = None
    prod_source_label: str = "prod_test"
    vo: str = "vo.compass.cern.ch"
    max_walltime_s: int | None = None


@dataclass(frozen=True, slots=True)
class FileSeen:
    """A file of a job description. `adler32` is 8 hex digits, None where the server has another checksum or none."""

    lfn: str
    kind: str
    size: int
    adler32: str | None


@dataclass(frozen=True, slots=True)
class Description:
    """What the server stores of one job. `codes` holds the non-zero error codes by PanDA's field name. `n_events` read
    and `n_written`: as its pilot reported them, None: it did not."""

    panda_id: int
    job_name: str
    attempt_nr: int
    status: str
    n_events: int | None
    codes: Mapping[str, int] = field(default_factory=dict)
    diags: Mapping[str, str] = field(default_factory=dict)
    files: tuple[FileSeen, ...] = ()
    node: str = ""
    n_written: int | None = None


class JobSink(Protocol):
    """PanDA, seen by a submitter."""

    def alive(self) -> bool | Failure:
        """True if the server answers at all."""

    def submit(self, jobs: Sequence[PandaJob]) -> Mapping[str, int | None] | Failure:
        """Store jobs; their PanDA ids by name, None: the server says that it has not stored this one. Anything but an
        answer or `Refused` means that some, all or none are stored."""

    def job_ids(self, batch_number: int) -> tuple[int, ...] | Failure:
        """PanDA ids that carry this jediTaskID, sorted. May be partial while the server still inserts."""

    def statuses(self, ids: Sequence[int]) -> Mapping[int, str] | Failure:
        """Cheap look at active jobs. "unknown" says nothing (older than an hour, or not known)."""

    def descriptions(self, ids: Sequence[int]) -> Mapping[int, Description] | Failure:
        """Full records, archive included. An id that is missing in the answer is unknown, not absent."""

    def cancel(self, ids: Sequence[int]) -> Mapping[int, bool] | Failure:
        """Ask PanDA to end jobs. True: the request was taken; the end itself is seen in the description."""


# --- storage ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Stored:
    """A file as storage sees it. `adler32` is 8 hex digits, None: not known."""

    size: int
    adler32: str | None = None


@dataclass(frozen=True, slots=True)
class NotThere:
    """Storage looked and has no such file."""


@dataclass(frozen=True, slots=True)
class UnderWay:
    """Storage has taken the request and is not done."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """The request was taken or has had its effect already."""


class LongTermStorage(Protocol):
    """Tape behind a path name. Every method may be called again after a lost answer."""

    def put(self, source: str, target: str) -> Accepted | Failure:
        """Ask for `source` (absolute path on the site) to be kept as `target` (relative path on the storage)."""

    def confirm(self, target: str) -> Stored | UnderWay | NotThere | Failure:
        """Size and checksum as computed by the storage itself, of what is safely kept."""
