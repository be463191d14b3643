"""A row that cannot be worked on holds only itself: it says why and when it is looked at again, and the others of a
thousand are done in the same tick. One kind of row after the other."""

import zlib
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from crowd import FIRST, PLACE, Crowd, N, held, poison, save

from prodsys_core.models import Job, MergeGroup, PandaAttempt, Run, SendBatch, Step, Task
from prodsys_core.ports import Broken, Description
from prodsys_core.selectors import job_rows, run_rows, task_rows
from prodsys_core.services.answers import batches_settle
from prodsys_core.services.following import jobs_follow
from prodsys_core.services.sending import steps_send
from prodsys_core.services.tasks import tasks_generate
from prodsys_core.tick import tick

# --- making jobs ----------------------------------------------------------------------------------------------


def bad_catalogue(folder, content):
    path = folder / f"catalogue-{zlib.adler32(content)}"
    path.write_bytes(content)
    return str(path)


def other_name_of_a_chunk(task):
    run = Run.objects.create(task=task, number=1, status_at=task.status_at)
    Job.objects.create(task=task, run=run, file="cdr1-1.raw", chunk=1)


def test_a_task_whose_source_cannot_be_used_waits_alone(rig):
    draft = rig.create({FIRST: [300]})
    fields = {name: getattr(draft, name) for name in "type sites production path soft template".split()}
    fields |= {"files_home": draft.files_home, "files_home_prefix": draft.files_home_prefix}
    fields |= {"files_source": "files list", "source": "cdr00001-1.raw", "created_at": rig.now}
    Task.objects.bulk_create(
        Task(name=f"crowd{k}", status="ready", status_at=rig.now, **fields) for k in range(N)
    )
    of_runs = {"files_source": "runs list", "source": "1"}
    poisons = [
        (lambda task: save(task, catalogue="/nowhere/catalogue"), "cannot be read"),
        (lambda task: save(task, catalogue="/nowhere\0"), "null byte"),
        (lambda task: save(task, catalogue=bad_catalogue(rig.folder, b"\xff\xfe")), "cannot be read"),
        (lambda task: save(task, catalogue=bad_catalogue(rig.folder, b"x"), **of_runs), "found 1 words"),
        (
            lambda task: save(task, catalogue=bad_catalogue(rig.folder, b""), **of_runs),
            "run 1 is not in the catalogue",
        ),
        (lambda task: save(task, files_source="runs list", source="no number"), "ValueError"),
        (lambda task: save(task, source="cdr00001-1.raw ; rm"), "is not named"),
        (other_name_of_a_chunk, "IntegrityError"),
    ]
    tasks = list(Task.objects.filter(status="ready").order_by("pk"))
    wanted = poison(tasks, poisons)
    assert tasks_generate(rig.config, Crowd.service_at(rig)) == N - len(poisons)
    assert Task.objects.filter(status="jobs ready").count() == N - len(poisons)
    for task in Task.objects.filter(status="ready"):
        assert task.reason == "bad-source"
        assert wanted[task.pk] in task.message
        assert task.next_try_at > rig.now


# --- sending --------------------------------------------------------------------------------------------------


def name_taken(step):
    batch = SendBatch.objects.create(
        number=1, site="DEMO", panda_queue="LONG", status="settled", n_jobs=1, made_at=step.status_at
    )
    PandaAttempt.objects.create(step=step, number=1, job_name="x", batch=batch, made_at=step.status_at)


def without_subject(step):
    save(step, job=None, group=None)


@pytest.mark.parametrize("product", [None, "mdst", "hist", "dump"])
def test_a_step_that_cannot_be_sent_waits_alone(rig, product):
    crowd = Crowd(rig, product).chunks()
    poisons, kind = [(name_taken, "cannot-send"), (without_subject, "cannot-send")], "reconstruct"
    if product:
        crowd.ended().planned()
        kind = f"merge {product}"
        lists = Path(rig.root, "prodsys-lists")
        poisons = [
            (name_taken, "cannot-send"),
            (without_subject, "no-input-list"),
            (lambda step: save(step, work="../../../out"), "no-input-list"),
            (lambda step: save(step, work="nul\0"), "no-input-list"),
            (lambda step: (lists / f"{step.work}.txt").mkdir(parents=True), "no-input-list"),
            (lambda step: MergeGroup.objects.filter(pk=step.group_id).update(product="?"), "no-input-list"),
        ]
    wanted = poison(crowd.steps(kind), poisons)
    assert steps_send(rig.config, rig.panda, crowd.service) == N - len(poisons)
    assert held(Step, kind=kind) == wanted
    left = Step.objects.filter(kind=kind).exclude(status="sent")
    assert {step.pk for step in left} == wanted.keys()
    assert all(step.next_try_at > rig.now for step in left)
    assert not PandaAttempt.objects.filter(step__in=left).exclude(job_name="x").exists()


# --- settling -------------------------------------------------------------------------------------------------


def test_a_batch_whose_jobs_cannot_be_found_waits_alone(rig):
    crowd = Crowd(rig).chunks("sent").attempted(batches=N, known=False)
    batches = list(SendBatch.objects.order_by("pk"))
    broken, raising, hidden = (batch.number for batch in batches[:3])
    names = dict(PandaAttempt.objects.values_list("batch__number", "job_name"))

    def job_ids(number):
        if number == raising:
            raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "half a character")
        return Broken("not a list of PanDA ids") if number == broken else (number,)

    rig.panda.job_ids = job_ids
    rig.panda.descriptions = lambda ids: {
        pk: Description(pk, names[pk], 1, "activated", None) for pk in ids if pk != hidden
    }
    assert batches_settle(rig.config, rig.panda, crowd.service) == N - 3
    waiting = dict(SendBatch.objects.filter(status="unknown").values_list("number", "message"))
    assert waiting.keys() == {broken, raising, hidden}
    assert "broken: not a list" in waiting[broken]
    assert "UnicodeDecodeError" in waiting[raising]
    rig.panda.job_ids = lambda number: (number,)
    assert batches_settle(rig.config, rig.panda, crowd.service) == 2


# --- following ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("counts", "status", "reason"),
    [
        ((299, 299), "manual check is needed", "events-differ"),
        ((300, 301), "manual check is needed", "events-differ"),
        ((None, 300), "finished", "events-unchecked"),
        ((300, None), "finished", "events-unchecked"),
    ],
)
def test_a_job_whose_event_counts_are_not_right_stands_alone(rig, counts, status, reason):
    crowd = Crowd(rig).chunks("sent").attempted()
    steps = {row.panda_id: row for row in PandaAttempt.objects.all()}
    bad = list(steps)[PLACE]

    def record(pk):
        read, written = counts if pk == bad else (300, 280)
        return Description(pk, steps[pk].job_name, 1, "finished", read, n_written=written)

    rig.panda.statuses = lambda ids: dict.fromkeys(ids, "finished")
    rig.panda.descriptions = lambda ids: {pk: record(pk) for pk in ids}
    assert jobs_follow(rig.config, rig.panda, crowd.service) == N
    assert Step.objects.filter(status="finished", reason="finished").count() == N - 1
    step = Step.objects.exclude(reason="finished").get()
    assert (step.pk, step.status, step.reason) == (steps[bad].step_id, status, reason)
    assert "events in the catalogue 300" in step.message


HALF = "half a character \ud800 "


@pytest.mark.parametrize(
    ("reason", "changes"),
    [
        ("unknown-to-panda", None),
        ("ask-record", {"status": "no such status"}),
        ("not-this-attempt", {"job_name": "another"}),
        ("not-this-attempt", {"attempt_nr": 7}),
        ("cannot-store", {"node": HALF, "status": "failed"}),
        ("cannot-store", {"status": "failed", "codes": {"pilotErrorCode": "no number"}, "diags": None}),
        ("cannot-store", {"files": (None,)}),
    ],
)
def test_a_job_whose_record_makes_no_sense_waits_alone(rig, reason, changes):
    crowd = Crowd(rig).chunks("sent").attempted()
    steps = {step.panda_id: step for step in PandaAttempt.objects.all()}
    bad = list(steps)[PLACE]
    good = {pk: Description(pk, row.job_name, 1, "finished", 300) for pk, row in steps.items()}
    answer = {pk: record for pk, record in good.items() if pk != bad or changes is not None}
    if changes:
        answer[bad] = replace(good[bad], **changes)
    rig.panda.statuses = lambda ids: dict.fromkeys(ids, "finished")
    rig.panda.descriptions = lambda ids: {pk: answer[pk] for pk in ids if pk in answer}
    assert jobs_follow(rig.config, rig.panda, crowd.service) == N - 1
    step = Step.objects.exclude(status="finished").get()
    assert (step.pk, step.status, step.reason) == (steps[bad].step_id, "sent", reason)
    answer[bad] = good[bad]
    assert jobs_follow(rig.config, rig.panda, crowd.service) == 1


# --- damaged statuses -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("model", "rows"), [(Step, job_rows), (Run, run_rows), (Task, None)])
def test_a_row_in_a_status_that_is_none_says_so_once_and_the_others_go_on(rig, model, rows):
    crowd = Crowd(rig).chunks()
    other = rig.create({1: [300]}, name="other")
    place = 0 if model is Task else PLACE
    bad = list(model.objects.exclude(pk=other.pk if model is Task else 0).order_by("pk"))[place]
    save(bad, status="\u0161taged")
    assert tick(rig.config, rig.panda, rig.now).counts["of no status"] == 1
    bad.refresh_from_db()
    assert (bad.status, bad.reason) == ("\u0161taged", "no-such-status")
    assert "'\\u0161taged' is no status of a" in bad.message
    shown = rows(crowd.task) if rows else task_rows()
    assert [row["reason"] for row in shown if row["status"] == bad.status] == ["no-such-status"]
    assert Step.objects.filter(status="sent").count() == (0 if model is Task else N - (model is Step))
    rig.now += timedelta(seconds=1)
    assert tick(rig.config, rig.panda, rig.now).counts["of no status"] == 0
