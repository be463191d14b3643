"""What prodsys decides: what is sent and in which order, when a lost submission is settled, how a run is merged,
whether merged files hold what went in. Pure: values in, values out; time is an argument.
"""

import hashlib
import itertools
import operator
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

# --- sending ------------------------------------------------------------------------------------------------

SHORT_EVERY = 8
"""Of so many jobs one is the shortest that is left: bundles get short ones to fill their ends with."""
STRAGGLERS_SHARE = 0.1
"""A run with no more than this share of its chunks left has stragglers: they keep the whole run from its merge."""


@dataclass(frozen=True, slots=True)
class Sendable:
    """A step that may be sent now. `n_events` None: not known. `straggler`: one of the last of its run."""

    step_id: int
    panda_queue: str
    priority: int
    n_events: int | None
    straggler: bool = False


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """Steps that go to one PanDA queue in one call, in the order in which they are sent."""

    panda_queue: str
    step_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class QueueUse:
    """Our jobs in one PanDA queue: waiting, running, and how many it has ended during the last `queue_days`."""

    waiting: int = 0
    running: int = 0
    ended: int = 0

    def room(self, active_max: int, waiting_min: int) -> int:
        """How many more it is given: no more waiting than it ends in `queue_days`, or `waiting_min` where it is new
        or was closed; never more than `active_max` in all."""
        waiting_max = max(waiting_min, self.ended) - self.waiting
        return max(0, min(waiting_max, active_max - self.waiting - self.running))


def has_stragglers(n_chunks: int, n_left: int) -> bool:
    """Whether what is left of a run is so little that it goes first."""
    return 0 < n_left < n_chunks and n_left <= max(1.0, n_chunks * STRAGGLERS_SHARE)


def send_order(steps: Iterable[Sendable]) -> list[Sendable]:
    """Highest priority first, then stragglers, then largest event count with a short one between, unknown counts last,
    then oldest step. PanDA hands out equal priorities in the order of submission."""
    order: list[Sendable] = []
    key = operator.attrgetter("priority", "straggler")
    for _, same in itertools.groupby(sorted(steps, key=key, reverse=True), key):
        items = sorted(same, key=lambda step: (-(step.n_events or 0), step.step_id))
        known = deque(step for step in items if step.n_events is not None)
        for place in range(1, len(known) + 1):
            order.append(known.popleft() if place % SHORT_EVERY else known.pop())
        order += [step for step in items if step.n_events is None]
    return order


def plan_batches(steps: Iterable[Sendable], room: Mapping[str, int], chunk: int) -> tuple[BatchPlan, ...]:
    """Batches of at most `chunk` steps, queue by queue in `send_order`, until a queue's room is used up."""
    queues: dict[str, list[int]] = {}
    for step in send_order(steps):
        chosen = queues.setdefault(step.panda_queue, [])
        if len(chosen) < room.get(step.panda_queue, 0):
            chosen.append(step.step_id)
    return tuple(
        BatchPlan(queue, tuple(ids[start : start + chunk]))
        for queue, ids in queues.items()
        for start in range(0, len(ids), chunk)
    )


@dataclass(frozen=True, slots=True)
class Homeless:
    """A run that no site has taken yet: how many of its steps may be sent, and (site, PanDA queue) of its task's open
    sites in order."""

    run_id: int
    n_steps: int
    choices: tuple[tuple[str, str], ...]


def place_runs(runs: Iterable[Homeless], room: Mapping[str, int]) -> dict[int, str]:
    """The site of each run: the first of its choices that has room left, for the whole run, which is never split: what
    does not fit waits there. A run for which nobody has room stays where it is."""
    left = dict(room)
    placed: dict[int, str] = {}
    for run in runs:
        site, queue = next((choice for choice in run.choices if left.get(choice[1], 0) > 0), ("", ""))
        if site:
            placed[run.run_id] = site
            left[queue] -= run.n_steps
    return placed


# --- finding jobs again after a lost answer -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Listed:
    """The last listing of a batch: digest of the ids, and when this same list was first seen."""

    digest: str
    since: datetime


def settle(
    before: Listed | None, ids: Sequence[int], n_records: int, now: datetime, settle_s: float
) -> Listed | None:
    """Judge a listing of a batch whose answer was lost: what is to be kept for the next look, None if the list is final
    and what is not in it was not stored. Servers go on inserting after the client has gone: final is only a list that
    is the same at least `settle_s` later, and of which every id has shown its record (`n_records`): one without may be
    any of the batch's jobs."""
    digest = hashlib.sha256(",".join(map(str, sorted(set(ids)))).encode()).hexdigest()
    if before is None or before.digest != digest:
        return Listed(digest, now)
    old = (now - before.since).total_seconds() >= settle_s
    return None if old and n_records == len(ids) else before


def adopt(names: Iterable[str], seen: Iterable[tuple[int, str]]) -> tuple[dict[str, int], tuple[int, ...]]:
    """Match PanDA jobs (id, name) with the names of a batch. Returns ids by name, and those that were stored a second
    time and must be ended: of two with one name the lower id is kept."""
    wanted = set(names)
    found: dict[str, int] = {}
    doubles: list[int] = []
    for panda_id, name in sorted(seen):
        if name not in wanted:
            continue
        if name in found:
            doubles.append(panda_id)
        else:
            found[name] = panda_id
    return found, tuple(doubles)


# --- merging ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class MergeInput:
    """One chunk's file of one product. `n_events` is planned with; `n_written`: known to be in it."""

    job_id: int
    chunk: int
    lfn: str
    size: int
    n_events: int | None
    n_written: int | None = None


@dataclass(frozen=True, slots=True)
class MergeLimits:
    """A merged file is closed before it would pass one of these; None: no limit."""

    bytes_max: int
    events_max: int | None = None
    files_max: int | None = None


def plan_groups(
    inputs: Iterable[MergeInput], limits: MergeLimits, placeholder_size: int | None
) -> tuple[tuple[MergeInput, ...], ...]:
    """Groups in chunk order, each within the limits; an input that alone passes one has a group of its own.

    Inputs of exactly `placeholder_size` bytes stand for an empty file and are left out. No input, no group.
    """
    groups: list[list[MergeInput]] = []
    size = events = 0
    for item in sorted(inputs, key=lambda item: (item.chunk, item.lfn)):
        if item.size == placeholder_size:
            continue
        count = item.n_events or 0
        full = groups and (
            size + item.size > limits.bytes_max
            or (limits.events_max is not None and events + count > limits.events_max)
            or (limits.files_max is not None and len(groups[-1]) >= limits.files_max)
        )
        if full or not groups:
            groups.append([])
            size = events = 0
        groups[-1].append(item)
        size += item.size
        events += count
    return tuple(tuple(group) for group in groups)


# --- cross-check ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class GroupCount:
    """What was counted for one merged file, in the product's unit. `expected` None: only files are compared."""

    name: str
    unit: str
    expected: int | None
    in_chunks: int
    in_merged: int

    @property
    def agrees(self) -> bool:
        """Chunks, merged file and, where known, what the jobs reported are the same."""
        return self.in_chunks == self.in_merged and self.expected in (None, self.in_merged)


def crosscheck_problems(counts: Iterable[GroupCount]) -> tuple[str, ...]:
    """One sentence per merged file that does not hold what went in."""
    return tuple(
        f"{count.name}: expected {'?' if count.expected is None else count.expected} {count.unit}, "
        f"in its chunks {count.in_chunks}, in the merged file {count.in_merged}"
        for count in counts
        if not count.agrees
    )


# --- waiting --------------------------------------------------------------------------------------------------


def backoff_s(failures: int, first_s: float, longest_s: float) -> float:
    """Wait after the n-th failure in a row (1, 2, ...): doubled each time, never longer than `longest_s`."""
    return min(first_s * 2.0 ** min(max(failures - 1, 0), 30), longest_s)
