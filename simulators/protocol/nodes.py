"""What gates and agents do, one file operation at a time."""

from __future__ import annotations

from collections.abc import Iterator

from simulators.protocol import steps as S
from simulators.protocol.state import (
    FREE,
    PILOT,
    VISIBLE,
    Start,
    State,
    job_of,
    replaced,
)
from simulators.protocol.steps import Step
from simulators.protocol.variants import Rules

Next = tuple[Step, tuple[object, ...], State]

# Places of a start before it owns its round, and those with a payload that runs.
GATE = frozenset(("link", "read", "door", "mark", "wait"))
RUNNING = frozenset(("run", "kill"))


def node_steps(state: State, rules: Rules, may_fail: bool) -> Iterator[Next]:
    """Everything that a gate or an agent may do next."""
    for index, start in enumerate(state.starts):
        if start.hung:
            # Nothing counts its time before `closed`: then it only was slow.
            after = start._replace(hung=False, since=0, excused=start.excused and state.files.closed >= 0)
            yield S.THAW, (name(start),), _with(state, index, after)
            continue
        yield from _STEPS[start.at](state, index, start, rules, may_fail)
        if may_fail:
            after = start._replace(hung=True, excused=rules.hung_is_excused)
            yield S.HANG, (name(start),), _with(state, index, after)


def name(start: Start) -> str:
    """How a story calls a start: its batch job, and a prime for each start after the first."""
    return f"{'ABCDEF'[job_of(start)]}{chr(39) * (start.nonce & 3)}"


def _with(state: State, index: int, start: Start) -> State:
    return state._replace(starts=replaced(state.starts, index, start))


def _at(state: State, index: int, start: Start, at: str) -> State:
    return _with(state, index, start._replace(at=at))


def _gone(state: State, index: int) -> State:
    return state._replace(starts=(*state.starts[:index], *state.starts[index + 1 :]))


def _round(state: State, start: Start) -> int:
    return state.jobs[job_of(start)].number


def _bad(state: State, broken: str) -> State:
    return state._replace(truth=state.truth._replace(bad=broken))


# --- gate ----------------------------------------------------------------------------------------------------------


def _link(state: State, index: int, start: Start, rules: Rules, may_fail: bool) -> Iterator[Next]:
    number = _round(state, start)
    owner = state.files.claims[number - 1]
    who = name(start)
    if owner != FREE and not rules.claim_overwrites:
        # A claim stays as it is, so finding it and reading another's nonce in it are one step.
        yield S.LINK, (who, number, "EEXIST, another's, lost"), _gone(state, index)
        return
    claims = replaced(state.files.claims, number - 1, 1 + start.nonce)
    made = state._replace(files=state.files._replace(claims=claims))
    yield S.LINK, (who, number, "won"), _at(made, index, start, "door")
    if may_fail and owner == FREE:
        yield S.REPLY_LOST, (who,), _at(made, index, start, "read")


def _read(state: State, index: int, start: Start, rules: Rules, may_fail: bool) -> Iterator[Next]:
    who = name(start)
    if rules.own_nonce_is_lost:
        yield S.READ_NONCE, (who, "lost"), _bad(_gone(state, index), "W2")
    else:
        yield S.READ_NONCE, (who, "its own, won"), _at(state, index, start, "door")
    if may_fail:
        yield S.NONCE_UNREADABLE, (who,), _gone(state, index)


def _door(state: State, index: int, start: Start, rules: Rules, may_fail: bool) -> Iterator[Next]:
    who, shut = name(start), state.files.door > _round(state, start)
    if shut:
        yield S.READ_DOOR, (who, "shut, turned away"), _gone(state, index)
    yield S.READ_DOOR, (who, "open (stale)" if shut else "open"), _at(state, index, start, "launch")


def _mark(state: State, index: int, start: Start, rules: Rules, may_fail: bool) -> Iterator[Next]:
    marks = (*state.files.marks, (_round(state, start), start.nonce, 0))
    marked = state._replace(files=state.files._replace(marks=tuple(sorted(marks))))
    yield S.GATE_MARK, (name(start),), _at(marked, index, start, "wait")


def _wait(state: State, index: int, start: Start, rules: Rules, may_fail: bool) -> Iterator[Next]:
    number, who = _round(state, start), name(start)
    others, ripe = [], False
    for at, maker, age in state.files.marks:
        if at != number:
            continue
        if maker == start.nonce:
            ripe = age >= VISIBLE
        elif not (rules.marks_by_batch_id and maker != PILOT and maker >> 2 == job_of(start)):
            others.append(age)
    if not ripe:
        return
    if others:
        yield S.GATE_LOOK, (who, "another's is there, lost"), _gone(state, index)
    if all(age < VISIBLE for age in others):
        yield S.GATE_LOOK, (who, "none seen, won"), _at(state, index, start, "launch")


def _launch(state: State, index: int, start: Start, rules: Rules, may_fail: bool) -> Iterator[Next]:
    number = _round(state, start)
    truth = state.truth._replace(launched=state.truth.launched | 1 << number)
    at = "line" if rules.line_before_look else "look"
    yield S.LAUNCH, (name(start), number), _at(state._replace(truth=truth), index, start, at)


# --- agent ---------------------------------------------------------------------------------------------------------


def _looks(state: State) -> tuple[bool, ...]:
    """What a look for `closed` may say now."""
    age = state.files.closed
    if age < 0:
        return (False,)
    return (True,) if age >= VISIBLE else (True, False)


def _line(state: State, index: int, start: Start, rules: Rules, may_fail: bool) -> Iterator[Next]:
    files = state.files
    written = state._replace(files=files._replace(start_line=0)) if files.start_line < 0 else state
    at = "look" if rules.line_before_look and rules.look_before_start else "spawn"
    yield S.START_LINE, (name(start),), _at(written, index, start, at)


def _look(state: State, index: int, start: Start, rules: Rules, may_fail: bool) -> Iterator[Next]:
    after = start._replace(at="spawn" if rules.line_before_look else "line", since=0, excused=False)
    for closed in _looks(state):
        if closed:
            yield S.LOOK, (name(start), "closed"), _gone(state, index)
        else:
            yield S.LOOK, (name(start), "not closed"), _with(state, index, after)


def _spawn(state: State, index: int, start: Start, rules: Rules, may_fail: bool) -> Iterator[Next]:
    truth = state.truth._replace(spawns=state.truth.spawns + 1)
    yield S.SPAWN, (name(start),), _at(state._replace(truth=truth), index, start, "run")


def _run(state: State, index: int, start: Start, rules: Rules, may_fail: bool) -> Iterator[Next]:
    at = "place-look" if rules.look_before_placing else "place"
    yield S.PAYLOAD_ENDS, (name(start),), _at(state, index, start, at)
    if not rules.look_while_running or state.files.closed < 0:
        return
    for closed in _looks(state):
        if closed:
            yield (
                S.POLL_LOOK,
                (name(start), "closed"),
                _with(state, index, start._replace(at="kill", since=0)),
            )
        else:
            after = start._replace(since=0, excused=False)
            yield S.POLL_LOOK, (name(start), "not closed"), _with(state, index, after)


def _kill(state: State, index: int, start: Start, rules: Rules, may_fail: bool) -> Iterator[Next]:
    yield S.KILL_PAYLOAD, (name(start),), _gone(state, index)


def _place_look(state: State, index: int, start: Start, rules: Rules, may_fail: bool) -> Iterator[Next]:
    for closed in _looks(state):
        if closed:
            yield S.LOOK_TO_PLACE, (name(start), "closed"), _gone(state, index)
        else:
            after = start._replace(at="place", since=0, excused=False)
            yield S.LOOK_TO_PLACE, (name(start), "not closed"), _with(state, index, after)


def _place(state: State, index: int, start: Start, rules: Rules, may_fail: bool) -> Iterator[Next]:
    if state.files.output and not rules.placement_overwrites:
        yield S.PLACE, (name(start), "EEXIST"), _gone(state, index)
        return
    placed = state._replace(files=state.files._replace(output=1 + start.nonce))
    yield S.PLACE, (name(start), "done"), _at(placed, index, start, "end-line")


def _end_line(state: State, index: int, start: Start, rules: Rules, may_fail: bool) -> Iterator[Next]:
    files = state.files
    if files.end_line < 0:
        files = files._replace(end_line=0, late_end=start.excused)
    yield S.END_LINE, (name(start),), _gone(state._replace(files=files), index)


_STEPS = {
    "link": _link,
    "read": _read,
    "door": _door,
    "mark": _mark,
    "wait": _wait,
    "launch": _launch,
    "line": _line,
    "look": _look,
    "spawn": _spawn,
    "run": _run,
    "kill": _kill,
    "place-look": _place_look,
    "place": _place,
    "end-line": _end_line,
}
