"""Holds, arrays, dependencies, limits, backfill windows and assumed delays of the batch server's model."""

from __future__ import annotations

from typing import Any

import pytest

from pilot.batch import torque
from pilot.batch.dialect import Reply as Answer
from simulators.torque import commands, orders
from simulators.torque.arrays import parse_array, parse_start_time
from simulators.torque.errors import Pbse
from simulators.torque.job import Letter, Submission
from simulators.torque.model import TorqueModel
from simulators.torque.request import Request
from simulators.torque.site import QueueSpec, TorqueSite

SITE = TorqueSite(nodes=4, slots=4, features=(), feature_nodes={"xe": (1, 3), "xk": (4, 4)})


def submit(model: TorqueModel, now: float = 0.0, **fields: Any) -> str:
    made = model.submit(now, Submission("alice", "n", "x", **fields))
    assert isinstance(made, str), made
    return made


def nodes(text: str, walltime: str = "100") -> dict[str, Any]:
    return {"resources": (("nodes", text), ("walltime", walltime))}


def state(model: TorqueModel, batch_id: str) -> Letter:
    return model.jobs[batch_id].state


def site(**changes: Any) -> TorqueSite:
    return TorqueSite.model_validate({**SITE.model_dump(), **changes})


def test_a_missing_feature_word_lets_a_job_land_on_the_wrong_nodes():
    model = TorqueModel(SITE)
    submit(model, **nodes("3:ppn=4:xe"))
    plain = submit(model, **nodes("1:ppn=4"))
    model.advance(0.0)
    assert [share.node for share in model.jobs[plain].placement] == [4]


def test_more_nodes_of_a_feature_than_there_are_is_refused():
    made = TorqueModel(SITE).submit(0.0, Submission("alice", "n", "x", **nodes("4:ppn=4:xe")))
    assert not isinstance(made, str) and made.number is Pbse.EXCQRESC


def test_a_held_job_starts_only_when_released():
    model = TorqueModel(SITE)
    batch_id = submit(model)
    assert orders.hold(model, 0.0, batch_id, "alice") is None
    model.advance(10.0)
    assert state(model, batch_id) is Letter.HELD
    assert orders.release(model, 10.0, batch_id, "alice") is None
    model.advance(11.0)
    assert state(model, batch_id) is Letter.RUNNING


def test_orders_for_another_users_job_are_refused():
    model = TorqueModel(SITE)
    batch_id = submit(model)
    for order in (orders.hold, orders.release):
        no = order(model, 0.0, batch_id, "bob")
        assert no is not None and no.number is Pbse.PERM


def test_the_walltime_of_a_queued_job_can_be_altered_within_its_queue():
    model = TorqueModel(site(queues={"normal": {"walltime_max_s": 500}}))
    batch_id = submit(model, held=True, resources=(("walltime", "100"),))
    assert orders.alter(model, 0.0, batch_id, "alice", {"walltime": "00:05:00"}) is None
    assert dict(model.jobs[batch_id].resources)["walltime"] == "00:05:00"
    no = orders.alter(model, 0.0, batch_id, "alice", {"walltime": "00:10:00"})
    assert no is not None and no.number is Pbse.EXCQRESC and model.jobs[batch_id].walltime_s == 300


def test_an_array_runs_no_more_elements_at_once_than_its_limit():
    model = TorqueModel(SITE)
    array = submit(model, array="0-4%2", **nodes("1:ppn=4"))
    now = 0.0
    for _ in range(5):
        model.advance(now)
        running = [job for job in model.jobs.values() if job.state is Letter.RUNNING]
        assert 0 < len(running) <= 2
        model.job_ended(now, running[0].batch_id, 0)
        now += 1
    assert array == "1[].sim"


def test_an_array_is_unknown_when_all_its_elements_are_forgotten():
    model = TorqueModel(site(keep_completed_s=5.0))
    array = submit(model, array="1-2")
    for batch_id in list(model.jobs):
        model.delete(0.0, batch_id, "alice")
    model.advance(6.0)
    assert array not in model.arrays and not model.jobs


@pytest.mark.parametrize(
    ("kind", "status", "runs"), [("afterok", 0, True), ("afterok", 1, False), ("afterany", 1, True)]
)
def test_a_dependency_decides_whether_a_job_ever_runs(kind, status, runs):
    model = TorqueModel(SITE)
    parent = submit(model)
    child = submit(model, depend=f"{kind}:{parent}")
    model.advance(1.0)
    assert state(model, child) is Letter.HELD
    model.job_ended(2.0, parent, status)
    model.advance(3.0)
    assert state(model, child) is (Letter.RUNNING if runs else Letter.COMPLETE)


def test_a_job_waits_for_its_time():
    model = TorqueModel(SITE)
    batch_id = submit(model, start_after=50.0)
    model.advance(40.0)
    assert state(model, batch_id) is Letter.WAITING
    model.advance(51.0)
    assert state(model, batch_id) is Letter.RUNNING


def test_jobs_beyond_the_eligible_ones_are_blocked_though_nodes_are_free():
    model = TorqueModel(site(eligible_max=1))
    first, second = submit(model, **nodes("4:ppn=4")), submit(model, **nodes("4:ppn=4"))
    third = submit(model, **nodes("1:ppn=4"))
    model.advance(0.0)
    model.job_ended(1.0, first, 0)
    model.advance(1.2)
    assert (state(model, second), state(model, third)) == (Letter.RUNNING, Letter.QUEUED)


def test_only_a_job_without_commtransparent_waits_for_a_convex_place():
    model = TorqueModel(site(convex_delay_s=10.0))
    convex = submit(model, **nodes("2:ppn=4"))
    free = submit(model, resources=(("nodes", "2:ppn=4"), ("flags", "commtransparent")))
    model.advance(5.0)
    assert (state(model, convex), state(model, free)) == (Letter.QUEUED, Letter.RUNNING)
    model.advance(11.0)
    assert state(model, convex) is Letter.RUNNING


def test_completed_jobs_of_a_queue_may_be_forgotten_earlier():
    model = TorqueModel(site(queues={"normal": QueueSpec(keep_completed_s=8.0), "other": QueueSpec()}))
    soon, later = submit(model), submit(model, queue="other")
    for batch_id in (soon, later):
        model.delete(0.0, batch_id, "alice")
    model.advance(9.0)
    assert list(model.jobs) == [later]


def test_showbf_shows_what_is_free_until_a_reservation_and_beyond_it():
    model = TorqueModel(SITE)
    submit(model, **nodes("2:ppn=4", "100"))
    submit(model, **nodes("3:ppn=4", "100"))
    model.advance(0.0)
    assert model.holes(0.0) == ((2, 100.0), (1, None))
    reply = commands.answer(model, "showbf", Request(("--blocking",)), 0.0)
    read = torque.parse_holes(Answer(0, reply.stdout, ""))
    assert [(hole.nodes, hole.duration_s) for hole in read] == [(2, 100), (1, None)]


def test_arrays_and_times_that_are_none_are_refused():
    assert parse_array("1,3,5-6%2") == ((1, 3, 5, 6), 2)
    assert [parse_array(text) for text in ("", "5-2", "a", "1%0", "0-99999")] == [None] * 5
    assert parse_start_time("197001010001.30") == 90.0
    assert [parse_start_time(text) for text in ("1", "209913010000", "abcdefghijkl")] == [None] * 3


def test_nothing_starts_that_reaches_into_an_operators_reservation():
    model = TorqueModel(SITE)
    running = submit(model, **nodes("1:ppn=4", "1000"))
    model.advance(0.0)
    model.reserve_nodes(50.0, 200.0, frozenset({1, 2, 3}))
    long, short = (
        submit(model, now=10.0, **nodes("2:ppn=4", "100")),
        submit(model, now=10.0, **nodes("2:ppn=4", "30")),
    )
    model.advance(11.0)
    assert [state(model, each) for each in (running, long, short)] == [
        Letter.RUNNING,
        Letter.QUEUED,
        Letter.RUNNING,
    ]
    model.job_ended(45.0, short, 0)
    model.advance(60.0)
    assert state(model, long) is Letter.QUEUED
    assert model.holes(60.0)[0][0] == 1
    model.advance(201.0)
    assert state(model, long) is Letter.RUNNING
