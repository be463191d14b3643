"""What a pilot learns by looking: claims, lines, listings. A thing that is not visible yet is a look not taken."""

from __future__ import annotations

from collections.abc import Iterator

from simulators.protocol import steps as S
from simulators.protocol.batch import job_name
from simulators.protocol.nodes import Next
from simulators.protocol.state import (
    ABSENCES,
    FREE,
    PILOT,
    UNKNOWN,
    VISIBLE,
    Book,
    Memory,
    Pilot,
    State,
    replaced,
)
from simulators.protocol.variants import Rules


def adopted(book: Book, ids: int) -> Book:
    """The book with these batch jobs known for its round."""
    return book._replace(ids=book.ids | ids)


def claimed(book: Book, owners: int, memory: Memory, rules: Rules) -> Book:
    """The book of a round that these batch jobs (may) own: only their ends matter from here on."""
    ended = book.ended
    if owners == UNKNOWN and rules.unreadable_is_the_accepted and book.ids:
        owners = book.ids
    if rules.absences_before_the_claim and memory.absent >= ABSENCES:
        ended |= owners
    return Book(book.number, "claimed", 0, ended & owners, owners, cancelled=book.cancelled)


def owned(book: Book) -> Book:
    """The book of a round that the pilot owns."""
    return Book(book.number, "won", cancelled=book.cancelled)


def voided(book: Book) -> Book:
    """The book of a void round."""
    return Book(book.number, "void", cancelled=book.cancelled)


def look_steps(state: State, which: int, pilot: Pilot, rules: Rules, may_fail: bool) -> Iterator[Next]:
    """Every look that tells this pilot something new."""
    book = pilot.book
    if book.verdict:
        return
    if state.files.end_line >= 0:
        yield S.READ_END, (which + 1,), _learnt(state, which, pilot, Book(verdict="finished"))
    if book.closed:
        if pilot.memory.settle >= rules.settle:
            yield from _last_reading(state, which, pilot)
        return
    if book.phase == "intended" or book.owners == UNKNOWN:
        if not rules.weak:
            yield from _claims(state, which, pilot, rules, may_fail)
    if book.phase in ("intended", "claimed"):
        yield from _listing(state, which, pilot, rules, may_fail)


def _learnt(state: State, which: int, pilot: Pilot, book: Book, memory: Memory | None = None) -> State:
    after = pilot._replace(book=book, memory=pilot.memory if memory is None else memory)
    return state._replace(pilots=replaced(state.pilots, which, after))


def _claims(state: State, which: int, pilot: Pilot, rules: Rules, may_fail: bool) -> Iterator[Next]:
    book, who = pilot.book, which + 1
    owner = state.files.claims[book.number - 1]
    if owner == FREE:
        return
    # Absences that count for closing are later than this reading.
    memory = pilot.memory._replace(absent=0, requeued=False)
    if owner == PILOT:
        if pilot.stage != "asked":
            after = owned(book) if rules.pilots_claim_is_won else book._replace(phase="waiting")
            yield S.READ_CLAIM, (who, "a pilot's"), _learnt(state, which, pilot, after, Memory())
        return
    job = (owner - 1) >> 2
    after = claimed(book, 1 << job, pilot.memory, rules)
    yield S.READ_CLAIM, (who, f"that of {job_name(job)}"), _learnt(state, which, pilot, after, memory)
    if may_fail and book.owners != UNKNOWN:
        after = claimed(book, UNKNOWN, pilot.memory, rules)
        yield S.CLAIM_UNREADABLE, (who,), _learnt(state, which, pilot, after, memory)


def _last_reading(state: State, which: int, pilot: Pilot) -> Iterator[Next]:
    """What the reading after settling may say: lines that are visible for sure, or may be."""
    files = state.files
    verdicts = set()
    for started in _visible(files.start_line):
        for end in _visible(files.end_line):
            verdicts.add("finished" if end else "lost" if started else "not-started")
    for verdict in sorted(verdicts):
        yield S.LAST_READ, (which + 1, verdict), _learnt(state, which, pilot, Book(verdict=verdict), Memory())


def _visible(age: int) -> tuple[bool, ...]:
    if age < 0:
        return (False,)
    return (True,) if age >= VISIBLE else (True, False)


# --- listings ------------------------------------------------------------------------------------------------------


def _listing(state: State, which: int, pilot: Pilot, rules: Rules, may_fail: bool) -> Iterator[Next]:
    book, memory, who = pilot.book, pilot.memory, which + 1
    named = [
        (index, job.status)
        for index, job in enumerate(state.jobs)
        if job.number == book.number and job.status != "sent"
    ]
    live = 0
    for index, status in named:
        if status != "over":
            live |= 1 << index
    ids = book.owners if book.phase == "claimed" else book.ids
    if ids in (0, UNKNOWN):
        yield from _by_name(state, which, pilot, live)
    else:
        after = book._replace(ended=book.ended | (ids & ~live))
        queued = any(status == "queued" and ids >> index & 1 for index, status in named)
        requeued = book.phase == "claimed" and queued and not memory.asked_end
        now = memory._replace(absent=0 if ids & live else memory.absent, requeued=requeued)
        if after != book or now != memory:
            yield S.LIST, (who, _said(after.ended & ids)), _learnt(state, which, pilot, after, now)
    # Two complete listings in a row never miss the same live batch job: that is what the protocol leans on.
    if may_fail and live and memory.absent == 0 and (ids & live or ids in (0, UNKNOWN)):
        after = book
        if rules.absences == 1 and ids not in (0, UNKNOWN):
            after = book._replace(ended=book.ended | ids)
        now = memory._replace(absent=1)
        yield S.MISSED, (who,), _learnt(state, which, pilot, after, now)


def _by_name(state: State, which: int, pilot: Pilot, live: int) -> Iterator[Next]:
    """A round whose batch job is not known: found by its name, or once more not there."""
    book, memory = pilot.book, pilot.memory
    if live:
        after = adopted(book, live) if book.phase == "intended" else book
        now = memory._replace(absent=0)
        if after != book or now != memory:
            yield S.LIST, (which + 1, "found by name"), _learnt(state, which, pilot, after, now)
        return
    absent = min(memory.absent + 1, ABSENCES)
    after = book
    if absent == ABSENCES and book.owners == UNKNOWN:
        after = book._replace(ended=book.ended | UNKNOWN)
    if absent != memory.absent or after != book:
        said = f"no batch job of this name ({absent})"
        yield S.LIST, (which + 1, said), _learnt(state, which, pilot, after, memory._replace(absent=absent))


def _said(ended: int) -> str:
    over = [job_name(index) for index in range(8) if ended >> index & 1]
    return f"{', '.join(over)} over" if over else "it lives"
