"""What the world of the model looks like at one moment: plain tuples, so that equal moments are equal values."""

from __future__ import annotations

from typing import NamedTuple

# Bounds in ticks. VISIBLE is 2 so that "seen late" and "seen in time" differ from "seen at once".
VISIBLE, POLL, KILL = 2, 1, 1
SETTLE = 2 * VISIBLE + POLL + KILL

# Who made claim(k): nobody, the pilot (any epoch), else 1 + the nonce of a start.
FREE, PILOT = 0, -1
# `Files.output`: written by another bundle that the job went to.
ELSEWHERE = -2
# Bit in `Book.owners`: the claim is a batch job's and cannot be read.
UNKNOWN = 1 << 15
ABSENCES = 2
ROUNDS = 2


class Book(NamedTuple):
    """What the events of one pilot say about the bundle (production: `State`, the fold of the journal).

    `phase` of round `number`: none, intended, claimed (a batch job's), won (the pilot's), void; waiting
    only in a wrong variant. `ids`, `ended`,
    `owners` are bit masks of batch jobs: accepted or adopted, known to be over, named in the claim (weak: in marks).
    `verdict`: "" or not-started, lost, finished.
    """

    number: int = 0
    phase: str = "none"
    ids: int = 0
    ended: int = 0
    owners: int = 0
    refused: bool = False
    cancelled: bool = False
    closed: bool = False
    verdict: str = ""


class Memory(NamedTuple):
    """What a restart forgets.

    `absent`: complete listings in a row without the batch job. `settle`, `wait`: ticks, -1 not counting.
    """

    absent: int = 0
    door: bool = False
    asked_end: bool = False
    requeued: bool = False
    settle: int = -1
    wait: int = -1


class Pilot(NamedTuple):
    """One epoch. `life`: none, leased, live, stopped (SIGSTOP), dead, overtaken.

    `durable`: what its journal holds. `action` is under way and `stage` says how far: commit, lease, lane (released,
    not done yet), asked (qsub sent, no answer), marked (weak fencing: waits to look).
    """

    life: str
    book: Book = Book()
    durable: Book = Book()
    memory: Memory = Memory()
    action: str = ""
    stage: str = ""
    asked: int = -1


class BatchJob(NamedTuple):
    """`status`: sent (on its way to the server), queued, running, over. `runs`: starts so far."""

    number: int
    status: str
    runs: int = 0


class Start(NamedTuple):
    """One start of a batch job: its gate, later its agent. `nonce` = 4 x batch job + start.

    `since`: ticks since the last look (or since `closed` was seen). `excused`: it hung and has not looked since.
    """

    nonce: int
    at: str
    hung: bool = False
    excused: bool = False
    since: int = 0


class Files(NamedTuple):
    """The shared directory as its server has it. `closed`, `start_line`, `end_line`: ticks since written, -1 not there.

    `marks`: (round, maker, ticks). `late_end`: the end line was written by a start that had hung.
    """

    claims: tuple[int, ...] = (FREE, FREE)
    marks: tuple[tuple[int, int, int], ...] = ()
    door: int = 0
    closed: int = -1
    start_line: int = -1
    end_line: int = -1
    late_end: bool = False
    output: int = 0


class Truth(NamedTuple):
    """What really happened. `freed`: the verdict that was acted upon. `void`, `launched`: bit masks of rounds.

    `accepted`: maker of the output that the server knows. `bad`: a property that a step itself broke.
    """

    epoch: int = 1
    freed: str = ""
    spawns: int = 0
    void: int = 0
    launched: int = 0
    accepted: int = 0
    bad: str = ""


class State(NamedTuple):
    """One moment. `pilots`: the first epoch and the second. `faults`: how many have happened."""

    pilots: tuple[Pilot, Pilot]
    jobs: tuple[BatchJob, ...]
    starts: tuple[Start, ...]
    files: Files
    truth: Truth
    faults: int = 0


def initial() -> State:
    """The bundle is planned and prepared, no round is intended, the first epoch is in charge."""
    return State((Pilot("live"), Pilot("none")), (), (), Files(), Truth())


def job_of(start: Start) -> int:
    """Index of the batch job that this is a start of."""
    return start.nonce >> 2


def replaced(items: tuple, index: int, item: object) -> tuple:  # type: ignore[type-arg]
    """The tuple with one item changed."""
    return (*items[:index], item, *items[index + 1 :])
