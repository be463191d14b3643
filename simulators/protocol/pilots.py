"""What the two epochs of the pilot decide and do: intents, commits, the lease, and released actions."""

from __future__ import annotations

from collections.abc import Iterator

from simulators.protocol import steps as S
from simulators.protocol.batch import JOBS_MAX, ended, job_name
from simulators.protocol.looks import adopted, claimed, look_steps, owned, voided
from simulators.protocol.nodes import Next
from simulators.protocol.state import (
    ABSENCES,
    FREE,
    PILOT,
    ROUNDS,
    UNKNOWN,
    VISIBLE,
    BatchJob,
    Book,
    Memory,
    Pilot,
    State,
    replaced,
)
from simulators.protocol.variants import Rules


def pilot_steps(state: State, rules: Rules, may_fail: bool) -> Iterator[Next]:
    """Everything that the two epochs may do next, or that may happen to them."""
    for which, pilot in enumerate(state.pilots):
        if pilot.life == "live":
            yield from _live(state, which, pilot, rules, may_fail)
    yield from _lives(state, may_fail)


def _with(state: State, which: int, pilot: Pilot) -> State:
    return state._replace(pilots=replaced(state.pilots, which, pilot))


def _lives(state: State, may_fail: bool) -> Iterator[Next]:
    old, new = state.pilots
    open_ = not state.truth.freed
    if may_fail and old.life == "live" and open_:
        yield S.CRASH, (), _with(state, 0, Pilot("dead", durable=old.durable))
        yield S.STOP, (), _with(state, 0, old._replace(life="stopped"))
    if old.life == "stopped":
        yield S.CONTINUE, (), _with(state, 0, old._replace(life="live"))
    if new.life == "none" and old.life in ("dead", "stopped") and open_:
        truth = state.truth._replace(epoch=2)
        yield S.TAKE_LEASE, (), _with(state._replace(truth=truth), 1, Pilot("leased"))
    if new.life == "leased":
        book = old.durable
        # Settling starts from zero: the time of the write is not known.
        memory = Memory(settle=0 if book.closed else -1)
        if old.life in ("dead", "overtaken"):
            old = Pilot(old.life)
        pilots = (old, Pilot("live", book, memory=memory))
        yield S.REPLAY, (), state._replace(pilots=pilots)


def surely_in_charge(state: State, which: int, may_fail: bool) -> bool:
    """Nothing can crash, stop or overtake this pilot any more: what its journal holds makes no difference.

    Its `durable` is left empty, so that histories which differ in it only are one.
    """
    return which == 1 or (not may_fail and state.pilots[1].life == "none")


def _overtaken(state: State, durable: Book) -> Pilot:
    """A pilot that has ended itself; its journal matters until it was replayed."""
    return Pilot("overtaken", durable=Book() if state.pilots[1].life == "live" else durable)


def forget_journal(state: State) -> State:
    """The state after the last fault: without the journal of a pilot that is in charge for good."""
    old = state.pilots[0]
    if old.life != "live" or state.pilots[1].life != "none":
        return state
    stage = "lane" if old.stage in ("commit", "lease") else old.stage
    return _with(state, 0, old._replace(durable=Book(), stage=stage))


def _live(state: State, which: int, pilot: Pilot, rules: Rules, may_fail: bool) -> Iterator[Next]:
    who = which + 1
    sure = surely_in_charge(state, which, may_fail)
    if pilot.action:
        yield from _under_way(state, which, pilot, rules, may_fail)
        if pilot.stage != "asked":
            return
    elif state.truth.freed and pilot.book.verdict:
        return
    else:
        yield from _decisions(state, which, pilot, rules, may_fail)
    if not sure and pilot.book != pilot.durable:
        durable = pilot._replace(durable=pilot.book)
        after = _overtaken(state, pilot.book) if state.truth.epoch > who else durable
        yield S.COMMIT, (who,), _with(state, which, after)
    yield from look_steps(state, which, pilot, rules, may_fail)
    if may_fail and not pilot.book.cancelled and not pilot.book.closed and not pilot.book.verdict:
        book = pilot.book._replace(cancelled=True)
        yield S.CANCEL, (who,), _with(state, which, pilot._replace(book=book))


# --- decisions -----------------------------------------------------------------------------------------------------


def _decisions(state: State, which: int, pilot: Pilot, rules: Rules, may_fail: bool) -> Iterator[Next]:
    """What is due now.

    Intent and commit are one step: a crash or SIGSTOP between them leaves what one before them leaves.
    """
    due = _due(state, pilot, rules)
    if due is None:
        return
    who = which + 1
    action, book = due
    after = pilot._replace(book=book, action=action, stage="lane")
    sure = surely_in_charge(state, which, may_fail)
    if sure or book == pilot.durable:
        # Nothing to commit (or nobody who could tell): released at once, and the lease is not read again.
        yield from _ACTIONS[action](state, which, after, rules, may_fail)
        return
    if rules.lease_after_commit:
        after = after._replace(durable=book, stage="lease")
    elif state.truth.epoch > who:
        after = _overtaken(state, pilot.durable)
    else:
        after = after._replace(stage="commit")
    if action == "submit":
        yield S.INTEND, (who, book.number), _with(state, which, after)
    else:
        yield S.DECIDE, (who, action), _with(state, which, after)


def _due(state: State, pilot: Pilot, rules: Rules) -> tuple[str, Book] | None:
    """The action that is due, and the book with the events that go with it."""
    book, memory = pilot.book, pilot.memory
    if book.verdict:
        return "report", book
    if book.closed:
        return None
    if book.phase in ("none", "void"):
        if book.cancelled or book.number >= ROUNDS:
            return "report", Book(verdict="not-started")
        if len(state.jobs) >= JOBS_MAX:
            return None
        number = book.number if rules.round_reused and book.phase == "void" else book.number + 1
        return "submit", Book(number, "intended", cancelled=book.cancelled)
    if book.phase == "won":
        return "door", book
    if book.phase == "claimed":
        return _claimed(book, memory, rules)
    if book.phase == "waiting":
        return None
    if book.cancelled:
        return _cancelling(book, memory, rules)
    if book.refused or _over(book, book.ids) or memory.absent >= ABSENCES:
        return ("claim" if rules.claim_before_closing or not book.ids else "close"), book
    return None


def _over(book: Book, ids: int) -> bool:
    return ids != 0 and ids & book.ended == ids


def _claimed(book: Book, memory: Memory, rules: Rules) -> tuple[str, Book] | None:
    if _over(book, book.owners):
        return "close", book
    if (book.cancelled or memory.requeued) and not memory.asked_end and book.owners != UNKNOWN:
        return "cancel-job", book
    return None


def _cancelling(book: Book, memory: Memory, rules: Rules) -> tuple[str, Book] | None:
    if not memory.door and not rules.weak:
        return "door", book
    if book.ids & ~book.ended and not memory.asked_end:
        return "cancel-job", book
    if book.refused or _over(book, book.ids) or (memory.absent >= ABSENCES):
        if rules.claim_at_cancel:
            return "claim", book
        return "door", owned(book)
    return None


# --- what is under way ---------------------------------------------------------------------------------------------


def _under_way(state: State, which: int, pilot: Pilot, rules: Rules, may_fail: bool) -> Iterator[Next]:
    who = which + 1
    if pilot.stage == "lease":
        if state.truth.epoch > who:
            after = _overtaken(state, pilot.durable)
        else:
            after = pilot._replace(stage="lane")
        yield S.READ_LEASE, (who,), _with(state, which, after)
    elif pilot.stage == "commit":
        yield S.COMMIT, (who,), _with(state, which, pilot._replace(durable=pilot.book, stage="lane"))
    elif pilot.stage == "asked":
        yield from _answers(state, which, pilot, may_fail)
    else:
        yield from _ACTIONS[pilot.action](state, which, pilot, rules, may_fail)


def _done(state: State, which: int, pilot: Pilot, book: Book, memory: Memory) -> State:
    return _with(state, which, pilot._replace(book=book, memory=memory, action="", stage="", asked=-1))


def _submit(state: State, which: int, pilot: Pilot, rules: Rules, may_fail: bool) -> Iterator[Next]:
    who, memory = which + 1, Memory()
    if len(state.jobs) < JOBS_MAX:
        jobs = (*state.jobs, BatchJob(pilot.book.number, "sent"))
        asked = pilot._replace(stage="asked", asked=len(state.jobs), memory=memory)
        yield S.SUBMIT, (who, pilot.book.number), _with(state._replace(jobs=jobs), which, asked)
    if may_fail:
        yield S.REFUSED, (who,), _done(state, which, pilot, pilot.book._replace(refused=True), memory)


def _answers(state: State, which: int, pilot: Pilot, may_fail: bool) -> Iterator[Next]:
    who = which + 1
    if state.jobs[pilot.asked].status != "sent":
        book = adopted(pilot.book, 1 << pilot.asked)
        yield S.ACCEPTED, (who,), _done(state, which, pilot, book, pilot.memory._replace(absent=0))
    if may_fail:
        yield S.ANSWER_LOST, (who,), _done(state, which, pilot, pilot.book, pilot.memory)


def _claim(state: State, which: int, pilot: Pilot, rules: Rules, may_fail: bool) -> Iterator[Next]:
    """link(2) decides at once and for ever, so doing it and hearing of it are one step: a crash between the two
    leaves what a crash before the commit of the answer leaves."""
    if rules.weak:
        yield from _weak_claim(state, which, pilot, rules)
        return
    who, book, memory = which + 1, pilot.book, pilot.memory._replace(absent=0)
    owner = state.files.claims[book.number - 1]
    if owner in (FREE, PILOT):
        claims = replaced(state.files.claims, book.number - 1, PILOT)
        made = state._replace(files=state.files._replace(claims=claims))
        yield S.MAKE_CLAIM, (who, "won"), _done(made, which, pilot, owned(book), Memory())
        return
    job = (owner - 1) >> 2
    lost = claimed(book, 1 << job, pilot.memory, rules)
    yield (
        S.MAKE_CLAIM,
        (who, f"EEXIST, it is that of {job_name(job)}"),
        _done(state, which, pilot, lost, memory),
    )
    if may_fail:
        unknown = claimed(book, UNKNOWN, pilot.memory, rules)
        yield S.CLAIM_UNREADABLE, (who,), _done(state, which, pilot, unknown, memory)


def _weak_claim(state: State, which: int, pilot: Pilot, rules: Rules) -> Iterator[Next]:
    who, book, files = which + 1, pilot.book, state.files
    if pilot.stage != "marked":
        marks = files.marks
        if not any(number == book.number and maker == PILOT for number, maker, _ in marks):
            marks = tuple(sorted((*marks, (book.number, PILOT, 0))))
        waits = pilot._replace(stage="marked", memory=pilot.memory._replace(wait=0))
        yield S.PILOT_MARK, (who,), _with(state._replace(files=files._replace(marks=marks)), which, waits)
        return
    if pilot.memory.wait < VISIBLE:
        return
    memory = pilot.memory._replace(wait=-1, absent=0)
    others = tuple((m, age) for number, m, age in files.marks if number == book.number and m != PILOT)
    for seen in _seen(others):
        if seen:
            lost = claimed(book, seen, pilot.memory, rules)
            yield S.PILOT_LOOK, (who, "a batch job's is there"), _done(state, which, pilot, lost, memory)
        else:
            void = state._replace(truth=state.truth._replace(void=state.truth.void | 1 << book.number))
            yield S.PILOT_LOOK, (who, "no other, void"), _done(void, which, pilot, voided(book), Memory())


def _seen(marks: tuple[tuple[int, int], ...]) -> set[int]:
    """Bit masks of the batch jobs that a look at these marks may show: old ones surely, younger ones or not."""
    masks = {0}
    for maker, age in marks:
        bit = 1 << (maker >> 2)
        masks = {mask | bit for mask in masks} | (masks if age < VISIBLE else set())
    return masks


def _door(state: State, which: int, pilot: Pilot, rules: Rules, may_fail: bool) -> Iterator[Next]:
    book, files, truth = pilot.book, state.files, state.truth
    door = max(files.door, book.number + 1)
    memory = pilot.memory._replace(door=True)
    if book.phase == "won":
        book, memory = voided(book), Memory()
        truth = truth._replace(void=truth.void | 1 << book.number)
        if rules.round_reused:
            files = files._replace(claims=replaced(files.claims, book.number - 1, FREE))
            door = book.number
    after = state._replace(files=files._replace(door=door), truth=truth)
    yield S.SET_DOOR, (which + 1, door), _done(after, which, pilot, book, memory)


def _close(state: State, which: int, pilot: Pilot, rules: Rules, may_fail: bool) -> Iterator[Next]:
    files = state.files
    closed = files._replace(closed=0) if files.closed < 0 else files
    after = _done(state._replace(files=closed), which, pilot, Book(closed=True), Memory(settle=0))
    yield S.CLOSE, (which + 1,), after


def _cancel_job(state: State, which: int, pilot: Pilot, rules: Rules, may_fail: bool) -> Iterator[Next]:
    book = pilot.book
    owners = (book.owners if book.phase == "claimed" else book.ids) & ~book.ended
    after, names = state, []
    for index, job in enumerate(state.jobs):
        if owners >> index & 1 and job.status in ("queued", "running"):
            after = ended(after, index, False)
            names.append(job_name(index))
    memory = pilot.memory._replace(asked_end=True, requeued=False)
    what = ", ".join(names) or "what is over"
    yield S.CANCEL_JOB, (which + 1, what), _done(after, which, pilot, book, memory)


def _report(state: State, which: int, pilot: Pilot, rules: Rules, may_fail: bool) -> Iterator[Next]:
    verdict, truth = pilot.book.verdict, state.truth
    if not truth.freed:
        accepted = state.files.output if verdict == "finished" else 0
        truth = truth._replace(freed=verdict, accepted=accepted)
    after = _done(state._replace(truth=truth), which, pilot, pilot.book, pilot.memory)
    yield S.REPORT, (which + 1, verdict), after


_ACTIONS = {
    "submit": _submit,
    "claim": _claim,
    "door": _door,
    "close": _close,
    "cancel-job": _cancel_job,
    "report": _report,
}
