"""An alarm is cleared once its cause is over, and not before."""

from __future__ import annotations

from rig import Rig, Site, make_job

from pilot.multijob import actions as a
from pilot.multijob.model import BundleState
from pilot.ports import Broken, Refused


def _ticks(rig: Rig, respond: object, ticks: int = 60) -> None:
    rig.run(respond, ticks, 30.0)  # type: ignore[arg-type]


def test_an_answer_that_made_no_sense_is_forgotten_once_the_same_source_answers_well() -> None:
    site, rig, broken = Site([make_job(n) for n in range(1, 5)]), Rig(), [True]

    def respond(action: a.Action) -> object:
        if broken[0] and isinstance(action, a.ListBatchJobs | a.ReportJobs):
            return Broken("expected something else")
        return site.respond(action)

    _ticks(rig, respond, 4)
    assert "broken-list" in rig.memory.alarms
    broken[0] = False
    _ticks(rig, respond)
    assert not rig.memory.alarms


def test_a_good_answer_of_one_source_says_nothing_about_another() -> None:
    memory = Rig().memory
    one, other = (a.AskStatus(server, ()) for server in ("panda1", "panda2"))
    memory.answer_was_broken(one, "HTML", 1.0)
    memory.answer_was_good(other)
    assert "broken-status" in memory.alarms
    memory.answer_was_good(one)
    assert not memory.alarms


def test_rounds_used_up_is_cleared_by_the_next_batch_job_that_is_accepted() -> None:
    site, rig, refuse = Site([make_job(n) for n in range(1, 5)]), Rig(), [True]

    def respond(action: a.Action) -> object:
        if refuse[0] and isinstance(action, a.SubmitBatchJob):
            return Refused("15036", "no")
        return site.respond(action)

    _ticks(rig, respond, 200)
    assert "rounds-used-up-long" in rig.memory.alarms
    refuse[0] = False
    _ticks(rig, respond, 100)
    assert any(b.state is BundleState.OPEN for b in rig.state.bundles.values())
    assert "rounds-used-up-long" not in rig.memory.alarms
