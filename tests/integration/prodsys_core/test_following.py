"""Status: end states only from full records, unknown is held, the table of codes decides."""

import pytest
from django.db import connection

from prodsys_core.lifecycle import Role
from prodsys_core.models import AttemptEnd, Step, Transition
from prodsys_core.services.following import jobs_follow
from prodsys_core.services.moves import Mover, NotAllowed, move
from prodsys_core.services.tasks import as_manager, resend_candidates, steps_resend


def test_task_runs_when_panda_reports_a_job_running(rig):
    rig.sent_task({274495: [300, 200]})
    rig.tick()
    assert rig.task().status == "send"
    rig.panda.jobs[1002].status = "running"
    rig.tick()
    assert rig.task().status == "running"
    assert sorted(step.status for step in rig.steps()) == ["running", "sent"]


def test_finished_job_is_charged_once(rig):
    rig.sent_task({274495: [300, 200]})
    rig.run_jobs(only=lambda item: item.panda_id == 1001)
    rig.tick()
    rig.tick()
    done = next(step for step in rig.steps() if step.panda_id == 1001)
    assert (done.status, done.attempt, done.charged, done.uncharged) == ("finished", 1, 1, 0)


def test_unknown_is_held_never_failed(rig):
    rig.sent_task({274495: [300]})
    rig.panda.forgets.add(1001)
    for _ in range(5):
        rig.tick(3600)
    step = rig.step()
    assert (step.status, step.reason, step.attempt) == ("sent", "unknown-to-panda", 1)
    rig.panda.forgets.clear()
    rig.run_jobs()
    rig.tick()
    assert rig.step().status == "finished"


def test_end_in_the_cheap_status_is_not_believed(rig):
    rig.sent_task({274495: [300]})
    rig.panda.statuses = lambda ids: dict.fromkeys(ids, "failed")
    rig.panda.jobs[1001].status = "running"
    rig.tick()
    assert rig.step().status == "running"


def test_record_of_another_job_is_held(rig):
    rig.sent_task({274495: [300]})
    import dataclasses

    item = rig.panda.jobs[1001]
    item.job = dataclasses.replace(item.job, job_name="other")
    item.status = "finished"
    rig.tick()
    step = rig.step()
    assert (step.status, step.reason) == ("sent", "not-this-attempt")


def test_finished_with_other_events_is_for_a_person(rig):
    rig.sent_task({274495: [300]})
    rig.run_jobs(n_events=299)
    rig.tick()
    step = rig.step()
    assert (step.status, step.reason) == ("manual check is needed", "events-differ")
    assert "299" in step.message


@pytest.mark.parametrize(
    ("codes", "status", "charged", "uncharged"),
    [
        ({"pilotErrorCode": 1344}, "failed", 0, 1),
        ({"pilotErrorCode": 1379}, "failed", 0, 1),
        ({"jobDispatcherErrorCode": 100}, "failed", 0, 1),
        ({"pilotErrorCode": 1305}, "failed", 1, 0),
        ({"pilotErrorCode": 1235}, "manual check is needed", 1, 0),
        ({"pilotErrorCode": 4711}, "failed", 1, 0),
        ({}, "failed", 1, 0),
    ],
)
def test_codes_decide_who_pays(rig, codes, status, charged, uncharged):
    rig.sent_task({274495: [300]})
    rig.set("paused")
    rig.run_jobs(status="failed", codes=codes)
    rig.tick()
    step = rig.step()
    assert (step.status, step.charged, step.uncharged) == (status, charged, uncharged)


def test_next_attempt_is_a_new_job_with_its_parent(rig):
    rig.sent_task({274495: [300]})
    rig.run_jobs(status="failed", codes={"pilotErrorCode": 1379})
    rig.tick()
    job = rig.panda.jobs[1002].job
    assert (job.attempt_nr, job.parent_id) == (2, 1001)
    assert next(iter(job.outputs)) == "mDST-274495-11001-3-8.a2.root"
    assert job.job_name != rig.panda.jobs[1001].job.job_name
    work = [word for word in job.job_parameters.split() if word.startswith("PRODSYS_WORK")]
    assert work == [f"PRODSYS_WORK={rig.step().work}"]


def test_charged_attempts_end_at_max_attempts(rig):
    rig.sent_task({274495: [300]}, max_attempts=2)
    for _ in range(4):
        rig.run_jobs(status="failed", codes={"pilotErrorCode": 1305})
        rig.tick()
    step = rig.step()
    assert (step.status, step.attempt, step.charged, step.next_try_at) == ("failed", 2, 2, None)


def test_uncharged_attempts_wait_longer_and_longer(rig):
    rig.sent_task({274495: [300]}, max_attempts=1)
    sent = []
    for _ in range(3):
        rig.run_jobs(status="failed", codes={"pilotErrorCode": 1344})
        rig.tick()
        sent.append(len(rig.panda.jobs))
        rig.tick(70)
    assert sent == [2, 2, 3]
    assert rig.step().charged == 0


def test_cancelled_task_ends_its_jobs_and_keeps_what_finished(rig):
    rig.sent_task({274495: [300, 200]})
    rig.run_jobs(only=lambda item: item.panda_id == 1001)
    rig.tick()
    rig.set("cancelled")
    rig.tick()
    rig.tick()
    assert sorted(step.status for step in rig.steps()) == ["cancelled", "finished"]


def test_managers_change_during_the_call_is_not_overwritten(rig):
    rig.sent_task({274495: [300]})
    rig.run_jobs(status="failed", codes={"pilotErrorCode": 1305})

    def meddle():
        Step.objects.update(status="cancelled")

    rig.panda.before_descriptions = meddle
    rig.tick()
    assert rig.step().status == "cancelled"
    assert AttemptEnd.objects.count() == 1


def test_move_from_a_status_that_has_changed_does_nothing(rig):
    rig.create({274495: [300]})
    task = rig.task()
    service = Mover("x", Role.MANAGER, rig.now)
    assert move(service, "task", [task.pk], "draft", "ready") == [task.pk]
    assert move(service, "task", [task.pk], "draft", "cancelled") == []
    assert rig.task().status == "ready"


def test_edge_that_is_not_in_the_table_is_refused(rig):
    rig.create({274495: [300]})
    with pytest.raises(NotAllowed, match="possible: cancelled, ready"):
        rig.set("archived")
    assert rig.task().status == "draft"


def test_every_change_has_its_transition(rig):
    rig.sent_task({274495: [300]})
    rig.run_jobs()
    rig.tick()
    story = Transition.objects.filter(subject="step", subject_id=rig.step().pk).order_by("pk")
    assert [row.new for row in story] == ["staged", "sent", "finished"]


def test_poisoned_row_holds_only_itself(rig):
    rig.create({274495: [300, 200]})
    rig.set("ready")
    rig.tick()
    rig.create({274495: [100]}, name="t2")
    rig.set("ready", "t2")
    rig.tick()
    task = rig.task("t2")
    task.type = "no such type"
    task.save()
    rig.set("send", "t2")
    rig.set("send")
    rig.tick()
    assert len(rig.panda.jobs) == 2
    poisoned = Step.objects.get(task__name="t2")
    assert (poisoned.status, poisoned.reason) == ("staged", "cannot-send")
    assert poisoned.next_try_at is not None


def test_resend_gives_one_more_attempt(rig):
    task = rig.sent_task({274495: [300, 200]}, max_attempts=1)
    rig.run_jobs(status="failed", codes={"pilotErrorCode": 1305})
    rig.tick()
    assert len(rig.panda.jobs) == 2
    steps = resend_candidates(task, "failed")
    assert steps_resend(steps, as_manager("ann", rig.now)) == 2
    rig.tick()
    assert len(rig.panda.jobs) == 4
    rig.run_jobs(status="failed", codes={"pilotErrorCode": 1235})
    rig.tick()
    assert [step.charged for step in rig.steps()] == [2, 2]
    assert len(resend_candidates(task, "manual check is needed")) == 2
    assert len(rig.panda.jobs) == 4


def test_resend_leaves_what_has_a_next_try_of_its_own(rig):
    task = rig.sent_task({274495: [300]})
    rig.set("paused")
    rig.run_jobs(status="failed", codes={"pilotErrorCode": 1344})
    rig.tick()
    assert resend_candidates(task, "failed") == []


def test_statements_do_not_grow_faster_than_jobs(rig):
    counts = []
    for number, jobs in enumerate((100, 400)):
        name = f"t{number}"
        rig.create({280000 + number: [300] * jobs}, name=name)
        rig.set("ready", name)
        rig.tick()
        rig.set("send", name)
        rig.tick()
        for item in rig.panda.jobs.values():
            item.status = "finished"
        statements = []

        def count(execute, sql, params, many, context, statements=statements):
            statements.append(sql)
            return execute(sql, params, many, context)

        with connection.execute_wrapper(count):
            assert jobs_follow(rig.config, rig.panda, Mover("test", Role.SERVICE, rig.now)) == jobs
        counts.append(len(statements))
    assert counts[1] - counts[0] <= 60 * 300 / 1000
