"""Submission: committed before the call, found again after a lost answer, never doubled, never lost."""

import re

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from prodsys_core.models import AttemptEnd, PandaAttempt, SendBatch, Step, Transition
from prodsys_core.ports import Refused
from prodsys_core.services.tasks import CannotCreate, as_manager, steps_resend
from prodsys_core.tick import tick


def test_generated_jobs_skip_zero_event_files(rig):
    rig.create({274495: [300, 0, 200]})
    rig.set("ready")
    rig.tick()
    task = rig.task()
    assert (task.status, task.files_skipped, len(rig.steps())) == ("jobs ready", 1, 2)


def test_generating_again_adds_nothing(rig):
    rig.create({274495: [300, 200]})
    for _ in range(2):
        rig.set("ready")
        rig.tick()
    assert len(rig.steps()) == 2


@pytest.mark.parametrize(
    "text",
    [
        "274495 cdr11001-274495.raw 300\n274495 cdr11002-274495.raw many\n",
        "274495 cdr11001-274495.raw 300\n274496 cdr11002-274495.raw 3\n",
        "274495 cdr11001-274495.raw 300\n274495 cdr11001-274495.raw 301\n",
        "100000 cdr11001-100000.raw 300\n",
        None,
    ],
)
def test_bad_catalogue_is_not_released(rig, text):
    rig.create({274495: [300]})
    path = rig.folder / "catalogue.txt"
    path.unlink() if text is None else path.write_text(text)
    rig.set("ready")
    rig.tick()
    task = rig.task()
    assert (task.status, task.reason, len(rig.steps())) == ("ready", "bad-source", 0)
    assert str(path) in task.message or "274495" in task.message


def test_bad_source_is_read_again_after_its_back_off(rig):
    rig.create({274495: [300]})
    path = rig.folder / "catalogue.txt"
    path.write_text("nonsense\n")
    rig.set("ready")
    rig.tick()
    rig.write_catalogue({274495: [300]})
    rig.tick(1)
    assert rig.task().status == "ready"
    rig.tick(10)
    assert rig.task().status == "jobs ready"


@pytest.mark.parametrize("status", ["send", "paused", "cancelled"])
def test_a_task_of_which_anything_was_sent_is_never_replaced(rig, status):
    rig.sent_task({274495: [200, 900]})
    if status != "send":
        rig.set(status)
    with pytest.raises(CannotCreate, match="of which nothing was sent"):
        rig.create({274495: [200]}, replace=True)
    assert len(rig.steps()) == 2


def test_a_cancelled_task_of_which_nothing_was_sent_gives_its_name_back(rig):
    old = rig.create({274495: [200, 900]})
    rig.set("ready")
    rig.tick()
    rig.set("cancelled")
    rig.tick()
    task = rig.create({274495: [200]}, replace=True)
    assert (rig.task().pk, task.status, rig.steps()) == (task.pk, "draft", [])
    last = Transition.objects.filter(subject="task", subject_id=old.pk).latest("pk")
    assert (last.old, last.new, last.who, last.reason) == ("cancelled", "", "ann", "replaced")
    assert old.pk != task.pk


def test_largest_event_counts_are_sent_first(rig):
    rig.sent_task({274495: [200, 900, 300]})
    assert [item.job.n_events for item in rig.panda.jobs.values()] == [900, 300, 200]


def test_job_parameters_hold_names_and_work_key(rig):
    rig.sent_task({274495: [200]})
    job = rig.panda.jobs[1001].job
    step = rig.step()
    assert f"PRODSYS_WORK={step.work}" in job.job_parameters
    assert "PRODSYS_NEVENTS=200" in job.job_parameters
    assert f"PRODSYS_INPUTS={rig.root}/raw/cdr11001-274495.raw" in job.job_parameters
    assert [*job.outputs][:3] == [
        "mDST-274495-11001-3-8.a1.root",
        "274495-11001-3.a1.root",
        "evtdump3-11001-274495.a1.raw",
    ]
    assert (job.priority, job.panda_queue, job.attempt_nr, job.transformation) == (
        2000,
        "LONG",
        1,
        "mass production",
    )


def test_lost_answer_is_adopted_by_name(rig):
    rig.panda.lose_after = 3
    rig.sent_task({274495: [300, 200, 100]})
    assert SendBatch.objects.get().status == "unknown"
    rig.tick()
    assert SendBatch.objects.get().status == "settled"
    assert PandaAttempt.objects.exclude(panda_id=None).count() == 3
    assert len(rig.panda.jobs) == 3


def test_lost_answer_is_not_sent_again_before_it_is_settled(rig):
    rig.panda.lose_after = 1
    rig.sent_task({274495: [300, 200, 100]})
    rig.tick()
    rig.tick(600)
    assert len(rig.panda.jobs) == 1
    rig.tick(400)
    rig.tick()
    assert len(rig.panda.jobs) == 3
    names = [item.job.job_name for item in rig.panda.jobs.values()]
    assert len(set(names)) == 3
    assert AttemptEnd.objects.filter(status="not sent", charge="none").count() == 2
    assert [step.charged for step in rig.steps()] == [0, 0, 0]


def test_server_that_goes_on_inserting_restarts_the_wait(rig):
    rig.panda.lose_after = 1
    rig.sent_task({274495: [300, 200]})
    late = PandaAttempt.objects.filter(panda_id=None).order_by("pk")
    first = rig.panda.jobs[1001].job
    rig.tick()
    missing = next(a for a in late if a.job_name != first.job_name)
    import dataclasses

    rig.panda.store(dataclasses.replace(first, job_name=missing.job_name))
    rig.tick(899)
    assert len(rig.panda.jobs) == 2
    assert SendBatch.objects.get().status == "settled"


def test_crash_between_commit_and_call_loses_nothing(rig):
    class Crash(BaseException):
        pass

    def crash(jobs):
        raise Crash

    rig.create({274495: [300, 200]})
    rig.set("ready")
    rig.tick()
    rig.set("send")
    submit, rig.panda.submit = rig.panda.submit, crash
    with pytest.raises(Crash):
        rig.tick()
    rig.panda.submit = submit
    assert SendBatch.objects.get().status == "made"
    rig.tick()
    rig.tick(901)
    rig.tick()
    assert len(rig.panda.jobs) == 2
    assert sorted(rig.panda.jobs) == sorted(step.panda_id for step in rig.steps())


def test_crash_after_the_call_doubles_nothing(rig):
    class Crash(BaseException):
        pass

    submit = rig.panda.submit

    def crash(jobs):
        submit(jobs)
        raise Crash

    rig.create({274495: [300, 200]})
    rig.set("ready")
    rig.tick()
    rig.set("send")
    rig.panda.submit = crash
    with pytest.raises(Crash):
        rig.tick()
    rig.panda.submit = submit
    rig.tick()
    rig.tick(1000)
    assert len(rig.panda.jobs) == 2
    assert sorted(rig.panda.jobs) == sorted(step.panda_id for step in rig.steps())


def test_job_stored_twice_keeps_the_lower_id(rig):
    rig.panda.lose_after = 1
    rig.sent_task({274495: [300]})
    rig.panda.store(rig.panda.jobs[1001].job)
    rig.tick()
    assert rig.step().panda_id == 1001
    assert rig.panda.jobs[1002].status == "cancelled"


def test_refused_batch_waits_and_charges_nothing(rig):
    submit, rig.panda.submit = rig.panda.submit, lambda jobs: Refused("no role")
    rig.sent_task({274495: [300]})
    step = rig.step()
    assert (step.status, step.reason, step.charged) == ("staged", "refused", 0)
    rig.panda.submit = submit
    rig.tick()
    assert not rig.panda.jobs
    rig.tick(301)
    assert rig.step().status == "sent"


def test_nothing_is_committed_while_panda_is_down(rig):
    rig.panda.down = True
    rig.sent_task({274495: [300]})
    assert SendBatch.objects.count() == 0
    rig.panda.down = False
    rig.tick()
    assert rig.step().attempt == 1


def test_one_batch_per_chunk_and_numbers_never_repeat(rig):
    rig.at_once(submit_chunk=2)
    rig.sent_task({274495: [300] * 5})
    assert rig.panda.calls == [2, 2, 1]
    numbers = list(SendBatch.objects.values_list("number", flat=True))
    assert numbers == [900_000_000, 900_000_001, 900_000_002]


def test_ids_of_a_batch_are_stored_before_the_next_call(rig):
    rig.at_once(submit_chunk=2)
    submit, known = rig.panda.submit, []

    def watched(jobs):
        known.append(PandaAttempt.objects.exclude(panda_id=None).count())
        return submit(jobs)

    rig.panda.submit = watched
    rig.sent_task({274495: [300] * 5})
    assert known == [0, 2, 4]
    assert PandaAttempt.objects.count() == 5
    assert {batch.status for batch in SendBatch.objects.all()} == {"answered"}


def test_a_job_that_is_given_the_id_of_another_waits_alone_for_a_person(rig):
    rig.at_once(submit_chunk=3)
    submit, answers = rig.panda.submit, []

    def confused(jobs):
        answers.append(submit(jobs))
        first, second, third = (job.job_name for job in jobs)
        answer = answers[-1] | {third: answers[-1][second]}
        return answer if len(answers) == 1 else answer | {first: next(iter(answers[0].values()))}

    rig.panda.submit = confused
    rig.sent_task({274495: [300] * 6})
    rig.panda.submit = submit
    held = [step for step in rig.steps() if step.status == "manual check is needed"]
    assert [(step.reason, step.charged) for step in held] == [("id-of-another", 0)] * 3
    assert not PandaAttempt.objects.filter(step__in=held).exclude(panda_id=None).exists()
    owners = {panda_id: name for answer in answers for name, panda_id in answer.items()}
    for step in held:
        panda_id, owner = re.fullmatch(r"PanDA gave it id (\d+), which (\S+) has", step.message).groups()
        assert owners[int(panda_id)] == owner
    assert {batch.status for batch in SendBatch.objects.all()} == {"answered"}
    (one, two, _), (_, five, _) = (list(answer.values()) for answer in answers)
    assert {step.panda_id for step in rig.steps() if step.status == "sent"} == {one, two, five}
    assert steps_resend(held, as_manager("m", rig.now)) == 3
    rig.tick()
    again = [step for step in rig.steps() if step.attempt == 2]
    assert [(step.status, step.panda_id is None) for step in again] == [("sent", False)] * 3


def test_batches_behind_a_lost_answer_are_taken_back_at_once(rig):
    rig.at_once(submit_chunk=2)
    rig.panda.lose_after = 2
    rig.sent_task({274495: [300] * 5})
    assert [batch.status for batch in SendBatch.objects.order_by("number")] == ["unknown", "void", "void"]
    assert AttemptEnd.objects.filter(status="not sent", charge="none", reason="not-called").count() == 3
    assert sorted(step.status for step in rig.steps()) == ["sent", "sent", "staged", "staged", "staged"]
    rig.tick()
    assert len(rig.panda.jobs) == 5
    assert [step.charged for step in rig.steps()] == [0] * 5


def test_batch_whose_tick_died_with_its_ids_stored_is_not_asked_for_again(rig):
    rig.sent_task({274495: [300, 200]})
    SendBatch.objects.update(status="made")
    Step.objects.update(panda_id=None)
    rig.panda.job_ids = None
    rig.tick()
    assert SendBatch.objects.get().status == "settled"
    assert sorted(step.panda_id for step in rig.steps()) == sorted(rig.panda.jobs)


def test_when_the_batch_numbers_are_used_up_the_service_says_so_and_no_step_is_blamed(rig, caplog):
    numbers = rig.config.panda.batch_numbers.model_copy(update={"last": 900_000_000})
    rig.at_once(submit_chunk=2, batch_numbers=numbers)
    rig.create({274495: [300] * 5})
    rig.set("ready")
    rig.tick()
    rig.set("send")
    report = tick(rig.config, rig.panda, rig.now)
    assert report.failed == ("sent",)
    assert "900000000 to 900000000 are used up" in caplog.text
    assert {(step.status, step.reason, step.next_try_at) for step in rig.steps()} == {("staged", "", None)}
    assert not rig.panda.jobs


def test_queue_is_not_filled_beyond_its_limit(rig):
    rig.at_once(active_max=3)
    rig.sent_task({274495: [300] * 5})
    rig.tick()
    assert len(rig.panda.jobs) == 3


def test_paused_task_sends_nothing(rig):
    rig.create({274495: [300]})
    rig.set("ready")
    rig.tick()
    rig.set("send")
    rig.set("paused")
    rig.tick()
    assert not rig.panda.jobs


def test_id_that_another_attempt_has_is_not_taken(rig):
    rig.sent_task({274495: [300, 200]})
    first, second = rig.steps()
    assert first.panda_id != second.panda_id
    rig.panda.next_id = 1000
    rig.create({274495: [300]}, name="t2")
    rig.set("ready", "t2")
    rig.tick()
    rig.set("send", "t2")
    rig.tick()
    assert Step.objects.get(task__name="t2").panda_id is None


def test_sending_asks_the_database_no_more_often_for_more_jobs(rig):
    counts = []
    for name, n in (("few", 4), ("many", 40)):
        rig.create({274495 + n: [300 + chunk for chunk in range(n)]}, name=name)
        rig.set("ready", name=name)
        rig.tick()
        rig.set("send", name=name)
        with CaptureQueriesContext(connection) as asked:
            rig.tick()
        assert PandaAttempt.objects.filter(step__task__name=name).count() == n
        counts.append(len(asked))
    # The second tick also follows what the first one sent; one question a job would be 36 more.
    assert counts[1] < counts[0] + 10
