"""Life of a task, a run and a step: who may move what from where to where, and what follows from it.

Theory of operation. A *task* is what a manager defines. Its raw files become *jobs*, grouped in *runs*. All work is
*steps*: one row per kind of work on a job, a merge group or a run; the status of a job is the status of its
reconstruct step. A step that needs PanDA is `sent` from the moment its attempt is committed, before the server is
called. Statuses are spelled as the original spells them. Nothing here does I/O or reads a clock.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from pydantic.dataclasses import dataclass as table


class Role(StrEnum):
    """Who asks for a change of status."""

    MANAGER = "manager"
    SERVICE = "service"


class TaskStatus(StrEnum):
    DRAFT = "draft"
    READY = "ready"
    JOBS_READY = "jobs ready"
    SEND = "send"
    RUNNING = "running"
    PAUSED = "paused"
    DONE = "done"
    CANCELLED = "cancelled"
    ARCHIVE = "archive"
    ARCHIVING = "archiving"
    ARCHIVED = "archived"


class RunStatus(StrEnum):
    """open: chunks outstanding; merging: merge plan made; checked: cross-check passed; suspicious: it did not;
    archived: merged files confirmed, logs packed, intermediates removed."""

    OPEN = "open"
    MERGING = "merging"
    CHECKED = "checked"
    SUSPICIOUS = "suspicious"
    ARCHIVED = "archived"


class StepStatus(StrEnum):
    """Of jobs as the original has them; `ready` takes the place of `staged` where nothing comes from tape."""

    DEFINED = "defined"
    STAGING = "staging"
    STAGED = "staged"
    READY = "ready"
    SENT = "sent"
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    MANUAL_CHECK = "manual check is needed"
    PAUSED = "paused"
    CANCELLED = "cancelled"


class StepKind(StrEnum):
    RECONSTRUCT = "reconstruct"
    MERGE_MDST = "merge mdst"
    MERGE_HIST = "merge hist"
    MERGE_DUMP = "merge dump"
    CROSS_CHECK = "cross-check"
    TRANSFER = "transfer"
    ARCHIVE_LOGS = "archive logs"
    CLEAN = "clean"


MERGES = (StepKind.MERGE_MDST, StepKind.MERGE_HIST, StepKind.MERGE_DUMP)
PANDA_KINDS = (StepKind.RECONSTRUCT, *MERGES)


class NotPossible(Exception):
    """What a person asked for cannot be done; the text says why."""


class BadUsage(NotPossible):
    """It was asked for in words that mean nothing."""


_T, _P = TaskStatus, StepStatus
Edges = Mapping[tuple[str, str], frozenset[Role]]

SENDING = (_T.SEND, _T.RUNNING)
"""Tasks whose work is submitted."""

WATCHED = (_T.SEND, _T.RUNNING, _T.PAUSED, _T.CANCELLED)
"""Tasks whose PanDA jobs are followed: PanDA's jobs of a paused task run on, those of a cancelled one are ended."""

IN_PANDA = (_P.SENT, _P.RUNNING)
NOT_IN_PANDA = (_P.DEFINED, _P.STAGED, _P.READY, _P.FAILED, _P.MANUAL_CHECK)


def waiting_status(kind: str) -> StepStatus:
    """The status in which a step of this kind waits to be sent."""
    return StepStatus.STAGED if kind == StepKind.RECONSTRUCT else StepStatus.READY


def check_edge(edges: Edges, subject: str, old: str, new: str, role: Role) -> str | None:
    """None if the role may move the subject so, else one sentence that says why not."""
    roles = edges.get((old, new))
    if roles is not None and role in roles:
        return None
    allowed = sorted(to for (start, to), who in edges.items() if start == old and role in who)
    choice = ", ".join(allowed) if allowed else "nothing"
    return f"a {subject} in status {old!r} cannot be set to {new!r} by a {role}; possible: {choice}"


# A run's merge waits for its chunks until each is one of these: finished, or left out by a manager.
CHUNK_DONE = frozenset({StepStatus.FINISHED, StepStatus.CANCELLED})


@table(frozen=True, slots=True, config={"extra": "forbid"})
class ChainLink:
    """One kind of work of a task type. `of`: job, group or run. `asked`: waits for the task's status archive."""

    kind: StepKind
    of: str
    needs: tuple[StepKind, ...] = ()
    asked: bool = False


@dataclass(frozen=True, slots=True)
class RunProgress:
    """Steps of one run: for each kind that was opened, how many there are and how many are finished. `unchecked`: how
    many chunks' event counts could not be compared and were not accepted: nothing that must be asked for begins.

    A kind that is not in `opened` has not been planned yet; one with total 0 was planned and needs nothing.
    """

    opened: Mapping[StepKind, tuple[int, int]]
    unchecked: int = 0

    def complete(self, kind: StepKind) -> bool:
        """Opened, and everything of it finished."""
        counts = self.opened.get(kind)
        return counts is not None and counts[0] == counts[1]


def kinds_to_open(chain: Iterable[ChainLink], progress: RunProgress, asked: bool) -> tuple[StepKind, ...]:
    """Kinds of work that can be planned now: not opened, all they need complete, asked for where they must be."""
    return tuple(
        link.kind
        for link in chain
        if link.kind not in progress.opened
        and all(progress.complete(need) for need in link.needs)
        and (not link.asked or (asked and not progress.unchecked))
    )


def run_complete(chain: Iterable[ChainLink], progress: RunProgress, asked_too: bool) -> bool:
    """Every kind of the chain is complete; without the kinds that must be asked for unless `asked_too`."""
    return all(progress.complete(link.kind) for link in chain if asked_too or not link.asked)
