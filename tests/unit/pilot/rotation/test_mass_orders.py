"""Orders to end many jobs at once wait for a person; what a person confirmed is obeyed and survives a restart."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import pytest
from rig import make_job, make_limits

from pilot.monitor.status import render_status, render_text
from pilot.multijob import actions as a
from pilot.multijob.apply import apply, replay
from pilot.multijob.codec import decode, encode
from pilot.multijob.events import Event, JobFetched, JobOrphaned, KillOrdered
from pilot.multijob.memory import Memory
from pilot.multijob.model import JobState, State
from pilot.multijob.recognise import Now
from pilot.multijob.reporting import confirm_kills, questions, recognise_acks, recognise_statuses
from pilot.ports import Ack, JobStatus, PandaId, ServerStatus, Update
from pilot.rotation.commands import Command, obey
from pilot.rotation.why import why

AT = "2026-01-01T00:00:00+00:00"
NOW = Now(AT, 0.0)
JOBS = 300
ASKED = a.AskStatus("panda", ())


class Desk:
    """State, memory and limits with hands."""

    def __init__(self) -> None:
        self.state, self.memory, self.limits = State(), Memory(1, 0.0), make_limits()
        self.events: list[Event] = []
        self.take(JobFetched(AT, "long", make_job(number)) for number in range(1, JOBS + 1))

    def take(self, events: Iterable[Event]) -> None:
        """Apply each event before the next is asked for."""
        for event in events:
            apply(self.state, event)
            self.events.append(event)

    def order(self, numbers: Iterable[int], now_s: float, status: str = "running") -> None:
        """The server says tobekilled, and to the question `status`."""
        ids = [PandaId(number) for number in numbers]
        self.memory.questioned.update(dict.fromkeys(ids, "long"))
        command = "tobekilled" if status == "running" else ""
        answer = tuple(ServerStatus(panda_id, 0, status, command) for panda_id in ids)
        self.take(recognise_statuses(self.state, self.memory, ASKED, answer, AT, now_s, self.limits))

    def heartbeat(self, number: int, command: str, now_s: float) -> None:
        """A heartbeat was accepted with this command."""
        update = Update(PandaId(number), 1, JobStatus.STARTING, "Q")
        acks = (Ack(update.panda_id, 1, True, command),)
        action = a.ReportJobs("panda", (update,), 3, False)
        self.take(recognise_acks(self.state, self.memory, action, acks, AT, now_s, self.limits))

    @property
    def ordered(self) -> set[int]:
        return {int(panda_id) for panda_id, record in self.state.jobs.items() if record.kill_ordered}


def test_a_few_orders_are_obeyed_at_once() -> None:
    desk = Desk()
    desk.order(range(1, 20), 0.0)
    assert desk.ordered == set(range(1, 20))
    assert "mass-kill" not in desk.memory.alarms


@pytest.mark.parametrize("per_answer", [1, 5, 19, 300])
def test_orders_of_one_cycle_count_together_however_many_answers_bring_them(per_answer: int) -> None:
    desk = Desk()
    for first in range(1, JOBS + 1, per_answer):
        desk.order(range(first, min(first + per_answer, JOBS + 1)), first * 0.1)
    assert len(desk.ordered) < desk.limits.tobekilled_floor
    assert len(desk.memory.kills_held) + len(desk.ordered) == JOBS
    assert "mass-kill" in desk.memory.alarms


def test_orders_of_different_cycles_do_not_add_up() -> None:
    desk = Desk()
    for cycle in range(15):
        desk.order(range(19 * cycle + 1, 19 * cycle + 20), cycle * desk.limits.listing_every_s)
    assert len(desk.ordered) == 15 * 19
    assert "mass-kill" not in desk.memory.alarms


def _asked(desk: Desk) -> tuple[int, ...]:
    (question,) = questions(desk.memory, desk.limits)
    return question.ids


def test_one_order_has_others_compared_and_a_mass_that_comes_one_by_one_ends_nothing() -> None:
    desk = Desk()
    desk.heartbeat(7, "tobekilled", 0.0)
    asked = _asked(desk)
    assert len(asked) == desk.limits.tobekilled_sample + 1
    answer = tuple(ServerStatus(PandaId(i), 0, "running", "tobekilled") for i in asked)
    desk.take(recognise_statuses(desk.state, desk.memory, ASKED, answer, AT, 1.0, desk.limits))
    assert not desk.ordered and "mass-kill" in desk.memory.alarms


def test_no_job_is_asked_for_twice_in_one_question() -> None:
    desk = Desk()
    desk.heartbeat(7, "tobekilled", 0.0)
    for number in range(1, JOBS, 2):
        desk.heartbeat(number, "tobekilled", 1.0)
    asked = _asked(desk)
    assert len(set(asked)) == len(asked)


def test_where_all_that_is_compared_comes_with_orders_of_its_own_others_are_taken() -> None:
    desk = Desk()
    desk.take(JobOrphaned(AT, PandaId(number), "server says unknown") for number in range(9, JOBS + 1))
    for number in range(1, 9):
        desk.heartbeat(number, "tobekilled", 0.0)
    assert set(_asked(desk)) == set(range(1, 9)) and not desk.memory.compared
    desk.take(JobFetched(AT, "long", make_job(number)) for number in range(1001, 1011))
    desk.heartbeat(1001, "tobekilled", 30.0)
    assert set(range(1002, 1011)) <= set(_asked(desk))


def test_a_persons_order_is_obeyed_and_what_it_is_compared_with_runs_on() -> None:
    desk = Desk()
    desk.heartbeat(7, "tobekilled", 0.0)
    answer = tuple(
        ServerStatus(PandaId(i), 0, "running", "tobekilled" if i == 7 else "") for i in _asked(desk)
    )
    desk.take(recognise_statuses(desk.state, desk.memory, ASKED, answer, AT, 1.0, desk.limits))
    assert desk.ordered == {7}
    assert not any(isinstance(event, JobOrphaned) for event in desk.events)
    assert not questions(desk.memory, desk.limits)


def test_few_among_many_compared_are_ended_with_the_one_that_was_asked_for() -> None:
    desk = Desk()
    desk.heartbeat(7, "tobekilled", 0.0)
    asked = _asked(desk)
    answer = tuple(
        ServerStatus(PandaId(i), 0, "running", "tobekilled" if i in (7, *asked[-2:]) else "") for i in asked
    )
    desk.take(recognise_statuses(desk.state, desk.memory, ASKED, answer, AT, 1.0, desk.limits))
    assert desk.ordered == {7, *asked[-2:]}


def test_while_orders_are_held_a_single_new_one_is_held_too() -> None:
    desk = Desk()
    desk.order(range(1, 101), 0.0)
    desk.order([200], 1000.0)
    assert not desk.ordered and PandaId(200) in desk.memory.kills_held


def test_confirmed_orders_are_obeyed_and_survive_a_restart() -> None:
    desk = Desk()
    desk.order(range(1, 101), 0.0)
    desk.take(confirm_kills(desk.state, desk.memory, AT, desk.limits))
    assert desk.ordered == set(range(1, 101))
    assert all(desk.state.jobs[PandaId(number)].state is JobState.JUDGED for number in range(1, 101))
    assert not desk.memory.kills_held and "mass-kill" not in desk.memory.alarms
    confirmed = [event for event in desk.events if isinstance(event, KillOrdered)]
    assert all(event.confirmed for event in confirmed) and len(confirmed) == 100
    assert replay(decode(encode(event)) for event in desk.events) == desk.state
    desk.take(confirm_kills(desk.state, desk.memory, AT, desk.limits))
    assert len(desk.ordered) == 100


def test_a_confirmation_holds_for_what_was_shown_and_not_for_the_next_mass() -> None:
    desk = Desk()
    desk.order(range(1, 101), 0.0)
    desk.take(confirm_kills(desk.state, desk.memory, AT, desk.limits))
    desk.order(range(101, 201), 1.0)
    assert desk.ordered == set(range(1, 101))
    assert "mass-kill" in desk.memory.alarms


def test_an_order_that_the_server_takes_back_is_held_no_more_and_the_alarm_ends() -> None:
    desk = Desk()
    desk.order(range(1, 101), 0.0)
    for number in range(1, 101):
        assert "mass-kill" in desk.memory.alarms
        desk.heartbeat(number, "", 10.0)
    assert "mass-kill" not in desk.memory.alarms
    desk.take(confirm_kills(desk.state, desk.memory, AT, desk.limits))
    assert not desk.ordered


def confirm(desk: Desk, at_most: int | None = None) -> a.AnswerCommand:
    """`pilot confirm-kill`."""
    answers = []
    for result in obey(
        desk.state, desk.memory, Command(1, "confirm-kill", at_most=at_most), NOW, desk.limits
    ):
        if isinstance(result, a.AnswerCommand):
            answers.append(result)
        else:
            desk.take([cast(Event, result)])
    (answer,) = answers
    return answer


def test_the_command_confirms_and_says_what_it_did() -> None:
    desk = Desk()
    assert confirm(desk).lines == ("no order to end a job is held: nothing is changed",)
    desk.order(range(1, 101), 0.0)
    answer = confirm(desk)
    assert answer.done
    assert (
        "100 orders were held: 0 jobs in bundles are being ended, 100 that waited are over" in answer.lines[0]
    )
    assert desk.ordered == set(range(1, 101))


def test_a_confirmation_of_fewer_than_are_held_by_now_changes_nothing() -> None:
    desk = Desk()
    desk.order(range(1, 101), 0.0)
    assert not confirm(desk, at_most=99).done
    assert not desk.ordered and len(desk.memory.kills_held) == 100
    assert confirm(desk, at_most=100).done


def test_the_alarm_and_the_status_say_how_many_are_still_held_and_which_command_ends_them() -> None:
    desk = Desk()
    desk.order(range(1, 101), 0.0)
    desk.heartbeat(1, "", 10.0)
    assert desk.memory.alarms["mass-kill"].reason.startswith("99 jobs")
    document = render_status(desk.state, desk.memory, desk.limits, (), NOW, version="1")
    assert document["orders_held"] == {"long": 99}
    assert "queue long: 99 jobs are ordered to end and held: `pilot confirm-kill`" in render_text(document)
    assert any("pilot confirm-kill" in line for line in why(desk.state, desk.memory, "2", NOW, desk.limits))


def test_a_held_job_that_the_server_gives_up_is_an_orphan_and_is_not_confirmed() -> None:
    desk = Desk()
    desk.order(range(1, 101), 0.0)
    desk.order([7], 10.0, status="failed")
    assert JobOrphaned(AT, PandaId(7), "server says failed") in desk.events
    assert PandaId(7) not in desk.memory.kills_held


def test_an_order_before_its_field_was_journalled_is_read_as_not_confirmed() -> None:
    record = {"e": "KillOrdered", "at": AT, "panda_id": 7}
    assert decode(record) == KillOrdered(AT, PandaId(7), False)
