"""The agenda of jobs: nothing that is due is left out, however it came onto it."""

from __future__ import annotations

import shlex

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilot.experiments.jobtext import BadJobText, parse_job_text
from pilot.multijob.agenda import LOOKS_AT_ONCE, Agenda
from pilot.ports import JobKey, PandaId
from pilot.ticktimes import TickTimes

TIMES = st.floats(0.0, 50.0)


@given(
    st.lists(st.tuples(st.integers(1, 20), TIMES), max_size=60),
    st.lists(TIMES, min_size=1, max_size=20),
)
def test_a_job_is_taken_in_the_first_tick_of_its_second_or_later_and_then_no_more(
    noted: list[tuple[int, float]], ticks: list[float]
) -> None:
    agenda = Agenda()
    for number, due_s in noted:
        agenda.note_at(PandaId(number), due_s)
    left = list(noted)
    for now_s in sorted(ticks):
        taken = agenda.take(now_s)
        assert len(set(taken)) == len(taken)
        assert set(taken) == {number for number, due_s in left if due_s // 1 <= now_s}
        left = [(number, due_s) for number, due_s in left if due_s // 1 > now_s]


def test_more_than_one_tick_takes_waits_its_turn_and_is_not_lost() -> None:
    agenda = Agenda()
    for number in range(3 * LOOKS_AT_ONCE):
        agenda.note(PandaId(number))
    taken = [agenda.take(0.0) for _ in range(4)]
    assert [len(part) for part in taken] == [LOOKS_AT_ONCE] * 3 + [0]
    assert sorted(number for part in taken for number in part) == list(range(3 * LOOKS_AT_ONCE))


def test_other_rules_bring_all_jobs_onto_the_agenda_once() -> None:
    agenda = Agenda()
    agenda.rules_are("first", lambda: {"long": [JobKey(1)], "short": [JobKey(2)]})
    assert agenda.take(0.0) == (1, 2)
    agenda.rules_are("first", lambda: {"long": [JobKey(1)]})
    assert agenda.take(0.0) == ()
    agenda.rules_are("second", lambda: {"long": [JobKey(1)]})
    assert agenda.take(0.0) == (1,)
    assert list(agenda.unheard_of("long")) == [1]


@settings(deadline=None)
@given(st.lists(st.integers(0, 3000), min_size=1, max_size=50))
def test_of_all_ticks_so_many_took_no_longer_than_told(lengths_ms: list[int]) -> None:
    times = TickTimes()
    for length_ms in lengths_ms:
        times.add(length_ms / 1000)
    for share in (0.5, 0.999):
        told_ms = times.share_ms(share)
        assert sum(length <= told_ms for length in lengths_ms) >= share * len(lengths_ms)
        assert told_ms <= max(lengths_ms) + 1


@given(st.text(alphabet="ab=#$ \t'\"\\  é", max_size=30))
def test_words_are_those_of_a_posix_shell_whatever_is_quoted(text: str) -> None:
    try:
        wanted = shlex.split(f"cmd {text}")
    except ValueError:
        with pytest.raises(BadJobText):
            parse_job_text(f"cmd {text}")
        return
    assert list(parse_job_text(f"cmd {text}").argv) == wanted
