"""The batch server's state machine: time goes in, what has to be done comes out."""

from __future__ import annotations

from dataclasses import replace

import pytest

from simulators.torque.errors import Pbse, TorqueError
from simulators.torque.job import JobOver, KillJob, Letter, StartJob, Submission, TerminateJob
from simulators.torque.model import TorqueModel
from simulators.torque.site import QueueSpec, TorqueSite

SITE = TorqueSite(
    nodes=4,
    slots=4,
    keep_completed_s=60,
    scheduler_interval_s=1,
    walltime_poll_s=10,
    kill_delay_s=2,
    queues={
        "normal": QueueSpec(walltime_max_s=7200),
        "short": QueueSpec(priority=100, walltime_max_s=600, nodes_max=2, user_jobs_max=2, jobs_max=3),
        "off": QueueSpec(enabled=False),
        "closed": QueueSpec(users=("bob",)),
    },
)
JOB = Submission("alice", "b.1", "#!/bin/sh\n", resources=(("nodes", "2:ppn=4"), ("walltime", "00:10:00")))


def kinds(outputs):
    return [(type(output).__name__, output.batch_id) for output in outputs]


def submit(model, now=0.0, **changes):
    return model.submit(now, replace(JOB, **changes))


@pytest.fixture
def model():
    return TorqueModel(SITE)


def running(model, **changes):
    batch_id = submit(model, **changes)
    model.advance(0.0)
    assert model.jobs[batch_id].state is Letter.RUNNING
    return batch_id


def test_job_is_started_at_the_next_pass_and_completes_with_its_exit_code(model):
    batch_id = submit(model, 0.3)
    assert batch_id == "1.sim" and model.advance(0.3) == () and model.next_at() == 1.0
    assert kinds(model.advance(1.0)) == [("StartJob", "1.sim")]
    job = model.jobs[batch_id]
    assert (job.state, job.start_count, [share.node for share in job.placement]) == (
        Letter.RUNNING,
        1,
        [1, 2],
    )
    model.job_ended(31.0, batch_id, 3)
    assert kinds(model.advance(31.0)) == [("JobOver", "1.sim")]
    assert (job.state, job.exit_status, job.completed_at) == (Letter.COMPLETE, 3, 31.0)


def test_completed_job_is_forgotten_after_keep_completed(model):
    batch_id = running(model)
    model.job_ended(10.0, batch_id, 0)
    model.advance(69.9)
    assert batch_id in model.jobs
    model.advance(70.0)
    assert batch_id not in model.jobs
    assert model.delete(71.0, batch_id, "alice") == TorqueError(Pbse.UNKJOBID)


def test_refused_submission_burns_an_id(model):
    assert submit(model) == "1.sim"
    assert isinstance(submit(model, queue="nosuch"), TorqueError)
    assert submit(model) == "3.sim"


def test_empty_script_is_accepted_and_does_not_exist(model):
    batch_id = submit(model, script="\n")
    assert batch_id == "1.sim" and batch_id not in model.jobs


@pytest.mark.parametrize(
    ("changes", "number"),
    [
        ({"queue": "nosuch"}, Pbse.UNKQUE),
        ({"queue": "off"}, Pbse.QUNOENB),
        ({"queue": "closed"}, Pbse.PERM),
        ({"resources": (("nosuchres", "5"),)}, Pbse.UNKRESC),
        ({"resources": (("walltime", "abc"),)}, Pbse.BADATVAL),
        ({"resources": (("nodes", "1:ppn=abc"),)}, Pbse.INVALID_SYNTAX),
        ({"resources": (("walltime", "99:00:00"),)}, Pbse.EXCQRESC),
        ({"resources": (("nodes", "5:ppn=4"),)}, Pbse.EXCQRESC),
        ({"resources": (("nodes", "1:ppn=5"),)}, Pbse.EXCQRESC),
        ({"resources": (("nodes", "1:ppn=4:xk"),)}, Pbse.EXCQRESC),
        ({"queue": "short", "resources": (("nodes", "3"), ("walltime", "60"))}, Pbse.EXCQRESC),
    ],
    ids=str,
)
def test_what_the_server_refuses(model, changes, number):
    answer = submit(model, **changes)
    assert isinstance(answer, TorqueError) and answer.number is number


def test_full_queues_refuse(model):
    short = {"queue": "short", "resources": (("nodes", "1"), ("walltime", "60"))}
    submit(model, **short), submit(model, **short)
    assert submit(model, **short).number is Pbse.MAXUSERQUED
    submit(model, owner="bob", **short)
    assert submit(model, owner="carol", **short).number is Pbse.MAXQUED


def test_whole_nodes_are_given_and_the_next_job_waits(model):
    first = submit(model, resources=(("nodes", "3:ppn=1"),))
    second = submit(model, resources=(("nodes", "2:ppn=1"),))
    assert kinds(model.advance(0.0)) == [("StartJob", first)]
    assert model.jobs[second].comment.startswith("Not Running")
    model.job_ended(5.0, first, 0)
    assert kinds(model.advance(5.0)) == [("JobOver", first), ("StartJob", second)]


def test_priority_queue_goes_first(model):
    running(model, resources=(("nodes", "4"),))
    low = submit(model, resources=(("nodes", "4"), ("walltime", "60")))
    high = submit(model, queue="short", resources=(("nodes", "1"), ("walltime", "60")))
    model.advance(1.0)
    model.job_ended(2.0, "1.sim", 0)
    assert kinds(model.advance(2.0))[1:] == [("StartJob", high)]
    assert model.jobs[low].state is Letter.QUEUED


def test_backfill_does_not_delay_the_first_in_line(model):
    running(model, resources=(("nodes", "2"), ("walltime", "600")))
    large = submit(model, resources=(("nodes", "4"), ("walltime", "600")))
    long = submit(model, resources=(("nodes", "1"), ("walltime", "601")))
    fits = submit(model, resources=(("nodes", "1"), ("walltime", "500")))
    assert kinds(model.advance(1.0)) == [("StartJob", fits)]
    assert {model.jobs[i].state for i in (large, long)} == {Letter.QUEUED}


def test_walltime_ends_a_job_late_by_the_poll_and_with_its_own_status(model):
    batch_id = running(model, resources=(("nodes", "1"), ("walltime", "5")))
    assert model.advance(9.9) == ()
    note = "=>> PBS: job killed: walltime 10 exceeded limit 5\n"
    assert model.advance(10.0) == (TerminateJob(batch_id, note),)
    assert model.advance(12.0) == (KillJob(batch_id),)
    model.job_ended(12.1, batch_id, 137)
    model.advance(12.1)
    assert model.jobs[batch_id].exit_status == -11


def test_deleted_running_job_stays_r_until_its_script_has_ended(model):
    batch_id = running(model)
    assert model.delete(5.0, batch_id, "alice") is None
    assert model.advance(5.0) == (TerminateJob(batch_id, ""),)
    assert model.jobs[batch_id].state is Letter.RUNNING
    assert model.delete(5.5, batch_id, "alice") is None and model.advance(5.5) == ()
    model.job_ended(6.0, batch_id, 143)
    model.advance(6.0)
    assert (model.jobs[batch_id].state, model.jobs[batch_id].exit_status) == (Letter.COMPLETE, 271)
    assert model.advance(7.0) == ()  # no SIGKILL to what has ended


def test_deleted_waiting_job_has_no_exit_status(model):
    batch_id = submit(model, held=True)
    assert model.jobs[batch_id].state is Letter.HELD
    assert model.delete(1.0, batch_id, "alice") is None
    assert (model.jobs[batch_id].state, model.jobs[batch_id].exit_status) == (Letter.COMPLETE, None)
    assert model.delete(2.0, batch_id, "alice").message.endswith("COMPLETE")


def test_only_the_owner_may_delete(model):
    batch_id = submit(model)
    assert model.delete(1.0, batch_id, "bob").number is Pbse.PERM


def test_release_of_the_reservation_keeps_the_job_r_and_its_nodes(model):
    slow = TorqueModel(SITE.model_copy(update={"release_s": 120.0}))
    batch_id = running(slow)
    slow.job_ended(10.0, batch_id, 0)
    assert slow.advance(100.0) == () and slow.jobs[batch_id].state is Letter.RUNNING
    assert slow.delete(100.0, batch_id, "alice").message.endswith("EXITING")
    assert kinds(slow.advance(130.0)) == [("JobOver", batch_id)]


def test_rerunable_job_is_requeued_and_its_start_count_grows(model):
    batch_id = running(model)
    assert model.requeue(5.0, batch_id) is None
    assert model.advance(5.0) == (KillJob(batch_id),)
    model.job_ended(5.1, batch_id, 137)
    outputs = model.advance(6.0)
    assert [type(output) for output in outputs] == [JobOver, StartJob]
    assert model.jobs[batch_id].start_count == 2 and model.jobs[batch_id].exit_status is None


def test_walltime_of_the_first_start_does_not_end_the_second(model):
    batch_id = running(model, resources=(("nodes", "1"), ("walltime", "30")))
    model.requeue(25.0, batch_id)
    model.job_ended(25.0, batch_id, 137)
    model.advance(26.0)
    assert model.advance(40.0) == ()
    assert [type(output) for output in model.advance(60.0)] == [TerminateJob]


def test_job_that_is_not_rerunable_is_not_requeued(model):
    batch_id = running(model, rerunable=False)
    assert model.requeue(5.0, batch_id).number is Pbse.NORERUN
    assert model.advance(5.0) == ()


def test_node_death_in_cray_mode_leaves_the_job_r(model):
    batch_id = running(model)
    model.node_died(1)
    assert model.advance(100.0) == () and model.jobs[batch_id].state is Letter.RUNNING
    model.job_ended(100.0, batch_id, 0)
    model.advance(100.0)
    assert model.jobs[batch_id].state is Letter.COMPLETE
    nxt = submit(model, 101.0, resources=(("nodes", "4"),))
    model.advance(101.0)
    assert model.jobs[nxt].state is Letter.QUEUED
    model.node_back(110.0, 1)
    assert kinds(model.advance(110.0)) == [("StartJob", nxt)]


def test_dead_mother_superior_keeps_the_job_r_for_ever_and_qdel_is_refused():
    model = TorqueModel(SITE.model_copy(update={"cray": False}))
    batch_id = running(model, resources=(("nodes", "1:ppn=1"), ("walltime", "60")))
    model.node_died(model.jobs[batch_id].placement[0].node)
    assert model.delete(5.0, batch_id, "alice").number is Pbse.NORELYMOM
    model.job_ended(6.0, batch_id, 0)
    assert model.advance(100_000.0) == () and model.jobs[batch_id].state is Letter.RUNNING


def test_slots_are_shared_outside_cray_mode():
    model = TorqueModel(SITE.model_copy(update={"cray": False}))
    ids = [submit(model, resources=(("nodes", "1:ppn=2"),)) for _ in range(9)]
    started = [batch_id for _, batch_id in kinds(model.advance(0.0))]
    assert started == ids[:8]
    assert [(share.node, share.slots) for share in model.jobs[ids[0]].placement] == [(1, (0, 1))]


def test_start_delay_holds_a_job_back():
    model = TorqueModel(SITE.model_copy(update={"start_delay_s": 30.0}))
    batch_id = submit(model)
    assert model.advance(29.0) == ()
    assert kinds(model.advance(30.0)) == [("StartJob", batch_id)]


def test_model_that_has_nothing_to_do_wants_no_time():
    model = TorqueModel(SITE)
    assert model.next_at() is None
    batch_id = running(model)
    model.job_ended(1.0, batch_id, 0)
    model.advance(1000.0)
    assert model.next_at() is None and model.jobs == {}


def test_pass_is_never_before_the_job_is_eligible_whatever_the_rounding():
    for step in range(400):
        model, at = (
            TorqueModel(SITE.model_copy(update={"scheduler_interval_s": 0.2})),
            1795645143.2 + step * 1e-7,
        )
        submit(model, at)
        assert model.next_at() >= at and len(model.advance(at + 0.5)) == 1
