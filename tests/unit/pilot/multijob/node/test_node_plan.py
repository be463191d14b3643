"""What an agent does next."""

from __future__ import annotations

import pytest

from pilot.multijob.node.manifest import Job, Kind, Limits
from pilot.multijob.node.plan import (
    EndAgent,
    EndPayload,
    GiveBack,
    GiveUpCaldb,
    KillPayload,
    NodeState,
    Running,
    StartJob,
    asked_to_end,
    decide,
    next_due_s,
    over_limit,
    quick_failures_after,
    slot_cpus,
    slot_domain,
)

PLAIN = Kind("plain", False, None, (), None, None)
CALIB = PLAIN._replace(name="calib", needs_caldb=True)
LIMITS = Limits(margin_s=10.0, kill_s=30.0)


def job(number, predicted_s=5.0, kind=PLAIN):
    return Job(number, 1, kind, predicted_s, ("x",), {}, (), None)


def todo(state, now_s=0.0, slots=2, seconds_left=100.0, limits=LIMITS):
    return decide(state, now_s, limits, slots, seconds_left)


def running(number, slot=0, **more):
    return Running(job(number, kind=more.pop("kind", PLAIN)), slot, 0.0, **more)


def test_free_slots_take_the_next_jobs_in_order():
    state = NodeState(pending=(job(1), job(2), job(3)))
    assert todo(state) == (StartJob(job(1), 0), StartJob(job(2), 1))


def test_a_taken_slot_is_not_taken_again():
    state = NodeState(pending=(job(2), job(3)), running=(running(1, slot=0),))
    assert todo(state) == (StartJob(job(2), 1),)


def test_next_job_that_still_fits_goes_first_and_what_never_fits_is_given_back():
    state = NodeState(pending=(job(1, 95.0), job(2, 50.0)))
    assert todo(state, slots=1) == (
        GiveBack((job(1, 95.0),), "does not fit before the deadline"),
        StartJob(job(2, 50.0), 0),
    )


def test_a_job_that_ends_exactly_at_the_deadline_fits():
    state = NodeState(pending=(job(1, 90.0),))
    assert todo(state) == (StartJob(job(1, 90.0), 0),)


def test_jobs_wait_for_the_calibration_server_and_others_do_not():
    state = NodeState(pending=(job(1, kind=CALIB), job(2)), caldb="starting", caldb_due_s=60.0)
    assert todo(state) == (StartJob(job(2), 0),)
    assert todo(state._replace(caldb="ready"))[0] == StartJob(job(1, kind=CALIB), 0)


def test_failed_calibration_server_gives_back_and_ends_only_who_needs_it():
    state = NodeState(
        pending=(job(1, kind=CALIB), job(2)),
        running=(running(3, 0, kind=CALIB), running(4, 1)),
        caldb="failed",
        caldb_reason="full",
    )
    assert todo(state) == (
        EndPayload(0, "caldb-lost", 5.0),
        GiveBack((job(1, kind=CALIB),), "calibration server: full"),
    )


def test_keeper_that_says_nothing_is_given_up():
    state = NodeState(pending=(job(1, kind=CALIB),), caldb="starting", caldb_due_s=60.0)
    assert todo(state, now_s=59.0) == ()
    assert todo(state, now_s=60.0) == (GiveUpCaldb("no answer in 120 s"),)
    assert next_due_s(state, 0.0, LIMITS, 100.0) == 60.0


def test_closed_ends_at_once_and_gives_nothing_back():
    state = NodeState(pending=(job(2),), running=(running(1),), closed=True)
    assert todo(state) == (EndPayload(0, "closed", 0.0), KillPayload(0))
    assert todo(state._replace(running=())) == (EndAgent("closed"),)


def test_closed_overtakes_a_polite_end():
    state = NodeState(pending=(), running=(running(1, ended_by="deadline", kill_at_s=95.0),), closed=True)
    assert todo(state, now_s=91.0) == (KillPayload(0),)


def test_terminated_ends_at_once_and_gives_back():
    state = NodeState(pending=(job(2),), running=(running(1),), terminated=True)
    assert todo(state) == (
        EndPayload(0, "terminated", 0.0),
        KillPayload(0),
        GiveBack((job(2),), "agent was asked to end"),
    )


def test_without_a_journal_nothing_may_run():
    state = NodeState(pending=(job(2),), running=(running(1),), stop="journal: full", journal_lost=True)
    assert todo(state)[:2] == (EndPayload(0, "terminated", 0.0), KillPayload(0))


def test_stop_gives_back_but_lets_run_what_runs():
    state = NodeState(pending=(job(2),), running=(running(1),), stop="no space")
    assert todo(state) == (GiveBack((job(2),), "no space"),)


def test_asked_to_end_names_an_attempt():
    state = NodeState(
        pending=(job(2), job(3)), running=(running(1),), asked_to_end=frozenset([(1, 1), (2, 1), (3, 2)])
    )
    assert todo(state) == (
        EndPayload(0, "killed", 5.0),
        GiveBack((job(2),), "asked to end before it started"),
        StartJob(job(3), 1),
    )


def test_deadline_ends_politely_then_hard():
    state = NodeState(pending=(), running=(running(1),))
    assert todo(state, now_s=89.9) == ()
    assert todo(state, now_s=90.0) == (EndPayload(0, "deadline", 5.0),)
    state = state._replace(running=(running(1, ended_by="deadline", kill_at_s=95.0),))
    assert todo(state, now_s=94.0) == ()
    assert todo(state, now_s=95.0) == (KillPayload(0),)
    assert next_due_s(state, 0.0, LIMITS, 100.0) == 95.0


def test_grace_is_at_most_half_of_kill_s():
    state = NodeState(pending=(), running=(running(1),))
    limits = LIMITS._replace(kill_s=4.0)
    assert todo(state, now_s=91.0, limits=limits) == (EndPayload(0, "deadline", 2.0),)


def test_over_limit_ends_its_own_job_only():
    state = NodeState(pending=(), running=(running(1, over="limit-rss"), running(2, 1)))
    assert todo(state) == (EndPayload(0, "limit-rss", 5.0),)


def test_what_is_being_placed_is_left_alone():
    state = NodeState(pending=(), running=(running(1, placing=True),), closed=True, terminated=True)
    assert todo(state) == ()


def test_an_order_to_end_is_too_late_for_a_job_whose_outputs_are_being_placed():
    placing, other = running(1, placing=True), running(2, 1)
    state = NodeState(pending=(), running=(placing, other), asked_to_end=frozenset([(1, 1)]))
    assert todo(state) == ()
    ordered = state._replace(asked_to_end=frozenset([(1, 1), (2, 1)]))
    assert todo(ordered) == (EndPayload(1, "killed", 5.0),)


def test_agent_ends_when_the_list_is_worked():
    assert todo(NodeState(pending=())) == (EndAgent("list worked"),)


def test_agent_does_not_wait_for_placing_beyond_the_walltime():
    state = NodeState(pending=(), running=(running(1, placing=True),))
    assert todo(state, now_s=94.0) == ()
    assert todo(state, now_s=95.0) == (EndAgent("deadline"),)


def test_three_quick_failures_in_a_row_stop_the_node():
    state = NodeState(pending=(job(2),), running=(running(1),), quick_failures=3)
    assert todo(state) == (GiveBack((job(2),), "3 quick failures in a row on this node"),)


def facts(exit_code=0, marker=True, size=1, wall_s=1.0, ended_by=None):
    files = [{"size": size}]
    return {"exit_code": exit_code, "marker": marker, "files": files, "wall_s": wall_s, "ended_by": ended_by}


@pytest.mark.parametrize(
    ("change", "after"),
    [
        ({}, 0),
        ({"exit_code": 1}, 3),
        ({"exit_code": None}, 3),
        ({"marker": False}, 3),
        ({"marker": None}, 0),
        ({"size": None}, 3),
        ({"exit_code": 1, "wall_s": 60.0}, 0),
        ({"exit_code": 1, "ended_by": "killed"}, 2),
    ],
)
def test_row_of_quick_failures(change, after):
    assert quick_failures_after(2, facts(**change), Limits()) == after


@pytest.mark.parametrize(
    "commands", [None, {}, {"serial": 2}, {"serial": "3", "end": []}, {"serial": 2, "end": []}]
)
def test_commands_that_are_old_or_make_no_sense_are_none(commands):
    assert asked_to_end(commands, 2) is None


def test_commands_name_jobs():
    commands = {"serial": 3, "end": [{"panda_id": 5, "attempt_nr": 2, "why": "killed"}]}
    assert asked_to_end(commands, 2) == (3, frozenset([(5, 2)]))


def test_limits_of_a_payload():
    limits = Limits(rss_max_mib=100.0, stdout_max_mib=10.0)
    assert over_limit(101.0, 0.0, limits) == "limit-rss"
    assert over_limit(99.0, 11.0, limits) == "limit-stdout"
    assert over_limit(99.0, 9.0, limits) is None
    assert over_limit(1e9, 9.0, limits._replace(rss_max_mib=None)) is None


def test_next_due_never_spins_on_jobs_of_a_closed_bundle():
    state = NodeState(pending=(job(1, 1000.0),), running=(running(2, placing=True),), closed=True)
    assert next_due_s(state, 0.0, LIMITS, 100.0) == 95.0


@pytest.mark.parametrize(
    ("slots", "shares"),
    [
        (4, [{0, 1}, {2, 3}, {6, 7}, {8, 9}]),
        (3, [{0, 1}, {2, 3, 6}, {7, 8, 9}]),
        (8, [{0}, {1}, {2}, {3}, {6}, {7}, {8}, {9}]),
        (9, [{0}, {1}, {2}, {3}, {6}, {7}, {8}, {9}, {0}]),
    ],
)
def test_slots_share_the_cores_that_the_agent_was_given(slots, shares):
    assert [slot_cpus(slot, slots, [0, 1, 2, 3, 6, 7, 8, 9]) for slot in range(slots)] == shares


@pytest.mark.parametrize(
    ("slots", "shares"),
    [
        (4, [{0, 1, 2, 3}, {0, 1, 2, 3}, {4, 5}, {4, 5}]),
        (3, [{0, 1, 2, 3}, {0, 1, 2, 3}, {4, 5}]),
        (1, [{0, 1, 2, 3, 4, 5}]),
    ],
)
def test_slots_share_the_cores_of_their_numa_domain(slots, shares):
    domains = [frozenset((0, 1, 2, 3)), frozenset((4, 5))]
    assert [slot_domain(slot, slots, domains) for slot in range(slots)] == shares


@pytest.mark.parametrize(
    ("limit", "grown_s", "now_s", "why"),
    [
        ("wall_max_s", None, 99.9, None),
        ("wall_max_s", 90.0, 100.0, "limit-wall"),
        ("quiet_max_s", None, 99.9, None),
        ("quiet_max_s", None, 100.0, "limit-quiet"),
        ("quiet_max_s", 50.0, 149.9, None),
        ("quiet_max_s", 50.0, 150.0, "limit-quiet"),
    ],
)
def test_a_payload_that_hangs_is_ended_alone(limit, grown_s, now_s, why):
    hanging = Running(job(1), 0, 0.0, grown_s=grown_s)
    state = NodeState(pending=(), running=(hanging, Running(job(2), 1, now_s - 1.0)))
    found = decide(state, now_s, Limits(**{limit: 100.0}), 2, 10_000.0)
    assert found == (() if why is None else (EndPayload(0, why, 5.0),))
    if limit == "wall_max_s":
        assert next_due_s(state, 0.0, Limits(wall_max_s=100.0), 10_000.0) == 100.0


class Walked(tuple):
    """Pending jobs that count how often one of them was looked at."""

    looks = 0

    def __iter__(self):
        for item in super().__iter__():
            Walked.looks += 1
            yield item


def test_a_long_list_is_not_walked_at_each_end_of_a_payload():
    Walked.looks = 0
    state = NodeState(pending=Walked(job(number) for number in range(10_000)), longest_s=5.0)
    assert todo(state) == (StartJob(job(0), 0), StartJob(job(1), 1))
    assert next_due_s(state, 0.0, LIMITS, 100.0) == 85.0
    assert Walked.looks <= 3


def test_what_no_longer_fits_is_given_back_though_the_longest_has_left():
    state = NodeState(pending=(job(1, 20.0), job(2, 5.0)), longest_s=50.0)
    assert next_due_s(state, 30.0, LIMITS, 100.0) == 40.0
    assert next_due_s(state, 40.0, LIMITS, 100.0) == 70.0
    assert todo(state, now_s=71.0, slots=1)[0] == GiveBack(
        (job(1, 20.0),), "does not fit before the deadline"
    )
