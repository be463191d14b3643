"""Values of the batch server's model: batch jobs, nodes, and what the owner of the model has to do."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from simulators.torque.schedule import NodeRequest, Placement


class Letter(StrEnum):
    """Job states that this server shows."""

    QUEUED = "Q"
    HELD = "H"
    WAITING = "W"
    RUNNING = "R"
    COMPLETE = "C"


class Stop(StrEnum):
    """Why the server ends a running batch job."""

    DELETED = "deleted"
    WALLTIME = "walltime"
    REQUEUED = "requeued"


@dataclass(frozen=True, slots=True)
class Submission:
    """What qsub hands over: options and directives already merged, everything the user's side knows.

    `resources` keeps the order of the `-l` words as they were given. `variables` are those of -v and -V,
    `user_variables` the PBS_O_* of the submitting environment.
    `host` is the submitting host. Paths of the outputs are absolute, None for the default name.
    `array`, `depend`: the texts of -t and -W depend=; `start_after`: epoch seconds of -a.
    """

    owner: str
    name: str
    script: str
    queue: str | None = None
    resources: tuple[tuple[str, str], ...] = ()
    stdout: str | None = None
    stderr: str | None = None
    join: str = "n"
    rerunable: bool = True
    held: bool = False
    priority: int = 0
    account: str | None = None
    variables: tuple[tuple[str, str], ...] = ()
    user_variables: tuple[tuple[str, str], ...] = ()
    start_dir: str | None = None
    work_dir: str = "/"
    submit_args: str = ""
    host: str = "localhost"
    mail_points: str = "a"
    shell: str | None = None
    array: str | None = None
    start_after: float | None = None
    depend: str | None = None


@dataclass(slots=True)
class BatchJob:
    """One batch job as the server knows it, or one element of an array. Times are epoch seconds.

    `holds`: u by the user, s by the server (a dependency), l by the array's limit. `depends`: kind and ids of
    what it waits for. `restarted`: the server was restarted while it ran.
    """

    sequence: int
    batch_id: str
    submission: Submission
    queue: str
    parts: tuple[NodeRequest, ...]
    walltime_s: int
    state: Letter
    created_at: float
    changed_at: float
    eligible_at: float
    resources: tuple[tuple[str, str], ...]
    comment: str = ""
    placement: Placement = ()
    started_at: float | None = None
    last_start_at: float | None = None
    completed_at: float | None = None
    script_ended_at: float | None = None
    start_count: int = 0
    session_id: int = 0
    exit_status: int | None = None
    stop: Stop | None = None
    reservation: int = 0
    index: int | None = None
    holds: str = ""
    depends: tuple[tuple[str, tuple[str, ...]], ...] = ()
    hint: str = ""
    restarted: bool = False

    @property
    def name(self) -> str:
        """Its name; an element's ends with its index."""
        return self.submission.name if self.index is None else f"{self.submission.name}-{self.index}"

    def default_output(self, letter: str) -> str:
        """File name of stdout ("o") or stderr ("e") where the user gave none."""
        ending = "" if self.index is None else f"-{self.index}"
        return f"{self.submission.name}.{letter}{self.sequence}{ending}"

    @property
    def start(self) -> float:
        """When a job that runs was started."""
        if self.started_at is None:
            raise AssertionError(f"{self.batch_id} was never started")
        return self.started_at


@dataclass(frozen=True, slots=True)
class JobArray:
    """What -t made: `elements` are the ids of its batch jobs, of which `limit` may run at once."""

    sequence: int
    batch_id: str
    submission: Submission
    queue: str
    resources: tuple[tuple[str, str], ...]
    created_at: float
    elements: tuple[str, ...]
    limit: int | None


@dataclass(slots=True)
class Node:
    """A compute node; `jobs` are the batch jobs that hold slots on it."""

    number: int
    up: bool = True
    died_at: float | None = None
    jobs: dict[str, tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StartJob:
    """Start the batch job's script; its nodes are reserved."""

    batch_id: str


@dataclass(frozen=True, slots=True)
class TerminateJob:
    """SIGTERM to the script's session; `note` goes to the end of its stderr."""

    batch_id: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class KillJob:
    """SIGKILL to everything of the batch job."""

    batch_id: str


@dataclass(frozen=True, slots=True)
class JobOver:
    """The batch job's nodes are free: deliver its output, empty its nodes."""

    batch_id: str
    placement: Placement


Output = StartJob | TerminateJob | KillJob | JobOver
