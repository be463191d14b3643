"""What a listing of batch jobs tells: who is over, who is absent, which lost submission was found by its name.

*Absent* needs two complete listings. A listing is complete if a batch job seen alive before is in it; where none
is, or three and more without end evidence vanish at once, each missing id is asked for singly (DESIGN 3).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pilot.multijob.events import BatchJobAccepted, BatchJobEnded, Event
from pilot.multijob.memory import Memory
from pilot.multijob.model import Bundle, BundleState, Limits, Round, RoundState, State
from pilot.ports import BatchId, BatchJobSeen, BatchState, BundleId, Listing

ABSENCES = 2
VANISHED_AT_ONCE = 3
# A batch system may round what was asked for: Slurm to whole minutes.
WALLTIME_ROUNDED_S = 60


@dataclass(frozen=True, slots=True)
class Expected:
    """A batch job that should be in a listing."""

    bundle: Bundle
    round: Round
    batch_id: BatchId


def round_name(bundle: Bundle, number: int) -> str:
    """Name of the batch job of one round: the tag and the round."""
    return f"{bundle.bundle_id}.{number}"


def open_rounds(state: State) -> Iterator[tuple[Bundle, Round]]:
    """Rounds whose batch job is not known to be over."""
    for bundle in state.bundles.values():
        if bundle.state is BundleState.OPEN:
            for found in bundle.rounds.values():
                if found.state is not RoundState.VOID and not found.batch_job_over:
                    yield bundle, found


def recognise_listing(
    state: State, memory: Memory, listing: Listing, asked_s: float, utc: str, now_s: float, limits: Limits
) -> Iterator[Event]:
    """Events of one listing. `asked_s`: when it was asked for; only later facts than a claim's reading count."""
    if listing.server != limits.batch_server:
        memory.raise_alarm("wrong-batch-server", f"listing of {listing.server[:60]!a}", now_s)
        return
    memory.clear_alarm("wrong-batch-server")
    present = {job.batch_id: job for job in listing.jobs}
    expected = [
        Expected(bundle, found, batch_id)
        for bundle, found in open_rounds(state)
        for batch_id in found.owners
        if batch_id not in found.ended
    ]
    counted = _absent(memory, listing, present, expected, limits)
    if listing.asked_ids is None:
        memory.listing_ok_s = now_s
        yield from list(_names(state, memory, present, asked_s, utc))
        memory.strays = _strays(state, present)
        memory.others_waiting = _others_waiting(state, listing, limits)
    for item in expected:
        seen = present.get(item.batch_id)
        if seen is not None:
            yield from _seen(
                memory, item, seen, utc, later=asked_s >= _read_s(memory, item.bundle, item.round)
            )
        elif item.batch_id in counted and asked_s >= _read_s(memory, item.bundle, item.round):
            memory.absences[item.batch_id] = memory.absences.get(item.batch_id, 0) + 1
            if memory.absences[item.batch_id] >= ABSENCES:
                memory.seen_live.pop(item.batch_id, None)
                yield BatchJobEnded(utc, item.bundle.bundle_id, item.round.number, item.batch_id, "absent")
    _note_walltimes(memory, expected, now_s)


def _note_walltimes(memory: Memory, expected: list[Expected], now_s: float) -> None:
    """A live batch job whose walltime is not what was asked for: somebody changed it, and its agents do not know."""
    for item in expected:
        bundle_id, asked_s = item.bundle.bundle_id, item.bundle.walltime_s
        seen = memory.seen_live.get(item.batch_id)
        has_s = seen.walltime_s if seen is not None else None
        if has_s is None or abs(has_s - asked_s) <= WALLTIME_ROUNDED_S:
            memory.clear_alarm(f"walltime-changed-{bundle_id}")
            continue
        reason = f"batch job {item.batch_id} has {has_s} s of walltime, {asked_s} s were asked for"
        memory.raise_alarm(f"walltime-changed-{bundle_id}", reason, now_s)


def _read_s(memory: Memory, bundle: Bundle, found: Round) -> float:
    return memory.claim_read_s.get((bundle.bundle_id, found.number), memory.started_s)


def _absent(
    memory: Memory,
    listing: Listing,
    present: dict[BatchId, BatchJobSeen],
    expected: list[Expected],
    limits: Limits,
) -> frozenset[BatchId]:
    """Ids whose absence counts in this listing; the others are noted for single questions."""
    if listing.asked_ids is not None:
        memory.singles = ()
        return frozenset(listing.unknown_ids)
    missing = [item.batch_id for item in expected if item.batch_id not in present]
    witness = any(batch_id in memory.ever_seen for batch_id in present)
    if witness and len(missing) < VANISHED_AT_ONCE:
        memory.singles = ()
        return frozenset(missing)
    memory.singles = tuple(missing[: limits.singles_per_cycle])
    return frozenset()


def _seen(memory: Memory, item: Expected, seen: BatchJobSeen, utc: str, *, later: bool) -> Iterator[Event]:
    """A batch job in the listing. `later`: asked for after its claim was read; an older one shows no requeue."""
    memory.absences.pop(item.batch_id, None)
    memory.ever_seen.add(item.batch_id)
    if seen.state is BatchState.OVER:
        memory.seen_live.pop(item.batch_id, None)
        yield BatchJobEnded(
            utc,
            item.bundle.bundle_id,
            item.round.number,
            item.batch_id,
            "over",
            seen.over_walltime,
            seen.used_walltime_s,
        )
    elif later:
        memory.seen_live[item.batch_id] = seen


def _names(
    state: State, memory: Memory, present: dict[BatchId, BatchJobSeen], asked_s: float, utc: str
) -> Iterator[Event]:
    """Rounds whose batch job is not known: found again by name, or one more listing without the name.

    Where the claim cannot be read, it is a listing without a *live* batch job of this name that counts, later than the
    reading: the owner may be one that was never accepted.
    """
    by_name: dict[str, list[BatchId]] = {}
    for job in present.values():
        by_name.setdefault(job.name, []).append(job.batch_id)
    for bundle, found in open_rounds(state):
        if found.claim is not None and found.claim.batch_id is not None:
            continue
        key = (bundle.bundle_id, found.number)
        named = by_name.get(round_name(bundle, found.number), [])
        for batch_id in named:
            if batch_id not in found.batch_ids:
                yield BatchJobAccepted(utc, bundle.bundle_id, found.number, batch_id, "name")
        if found.claim_unreadable:
            there = any(present[batch_id].state is not BatchState.OVER for batch_id in named)
        else:
            there = bool(found.batch_ids or named)
        if there:
            memory.name_absences.pop(key, None)
        elif asked_s >= memory.round_since_s.get(key, asked_s) and asked_s >= _read_s(memory, bundle, found):
            memory.name_absences[key] = memory.name_absences.get(key, 0) + 1
            if found.claim is not None and memory.name_absences[key] >= ABSENCES:
                yield BatchJobEnded(utc, bundle.bundle_id, found.number, None, "absent")


def _others_waiting(state: State, listing: Listing, limits: Limits) -> int:
    """Batch jobs of our user that wait and are none of ours: counted, never touched."""
    return sum(
        job.state is BatchState.WAITING
        and job.owner.partition("@")[0] == limits.user
        and BundleId(job.name.partition(".")[0]) not in state.bundles
        for job in listing.jobs
    )


def _strays(state: State, present: dict[BatchId, BatchJobSeen]) -> dict[BatchId, BundleId]:
    """Live batch jobs of rounds that they cannot own any more. Cancelling them is courtesy."""
    strays: dict[BatchId, BundleId] = {}
    for batch_id, seen in present.items():
        tag, _, number = seen.name.partition(".")
        bundle = state.bundles.get(BundleId(tag))
        if bundle is None or not number.isdigit() or seen.state in (BatchState.OVER, BatchState.EXITING):
            continue
        found = bundle.rounds.get(int(number))
        if found is None:
            continue
        owned = found.claim is not None and found.claim.batch_id is not None
        if found.state is RoundState.VOID or (owned and batch_id not in found.owners):
            strays[batch_id] = bundle.bundle_id
    return strays
