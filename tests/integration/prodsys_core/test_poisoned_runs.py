"""Runs and the work that is done here: one that cannot be done waits alone, with its reason and its next try; the
others of a thousand are done in the same tick."""

from datetime import timedelta
from pathlib import Path

import pytest
from crowd import FIRST, PLACE, Crowd, N, held, poison, save

from prodsys_core.models import AttemptEnd, Job, MergeGroup, MergeInput, Run, Step, Task, Transfer
from prodsys_core.services.local import steps_do
from prodsys_core.services.looks import look_delivery
from prodsys_core.services.runs import runs_advance, runs_merge, tasks_close
from prodsys_core.services.tasks import as_manager


def change_end(**columns):
    """Of the attempt that counts of a run's chunk."""
    return lambda run: AttemptEnd.objects.filter(attempt__step__run=run).update(**columns)


def of_another_type(row):
    """The row belongs to a task of a type that no table has."""
    task = Task.objects.get(pk=row.task_id)
    task.pk, task.name, task.type = None, f"other {row.pk}", "no such type"
    task.save()
    save(row, task=task)


def of_a_bad_place(row):
    """The row belongs to a task whose files lie nowhere."""
    task = Task.objects.get(pk=row.task_id)
    task.pk, task.name, task.soft = None, f"other {row.pk}", "../../../../elsewhere"
    task.save()
    save(row, task=task)


def test_a_run_whose_merge_cannot_be_planned_waits_alone(rig):
    crowd = Crowd(rig).chunks().ended()
    too_large = f'{{"evtdump3-1-{FIRST + PLACE}.a1.raw": [{2**70}, null]}}'
    poisons = [
        (change_end(files=too_large), "cannot-plan"),
        (change_end(files="{not JSON"), "cannot-plan"),
        (change_end(files="[1, 2]"), "cannot-plan"),
        (lambda run: save(Job.objects.get(run=run), chunk=2), "no-size"),
        (lambda run: save(run, site="GONE"), "no-site"),
        (of_another_type, "cannot-plan"),
    ]
    runs = list(Run.objects.order_by("pk"))
    wanted = poison(runs, poisons)
    assert runs_merge(rig.config, crowd.service) == N - len(poisons)
    assert held(Run) == wanted
    left = Run.objects.filter(status="open")
    assert {run.pk for run in left} == wanted.keys()
    assert all(run.next_try_at > rig.now for run in left)
    change_end(files="{}")(runs[PLACE])
    assert runs_merge(rig.config, crowd.service) == 0
    rig.now += timedelta(hours=1)
    assert runs_merge(rig.config, Crowd.service_at(rig)) == 1


def test_a_run_whose_next_work_cannot_be_opened_waits_alone(rig):
    crowd = Crowd(rig).chunks().ended().planned().ended("merge dump")
    wanted = poison(
        list(Run.objects.order_by("pk")),
        [
            (of_another_type, "cannot-advance"),
            (lambda run: save(Step.objects.get(run=run, kind="merge dump"), kind="?"), "cannot-advance"),
        ],
    )
    assert runs_advance(rig.config, crowd.service) == N - 2
    assert held(Run) == wanted
    assert all(run.next_try_at > rig.now for run in Run.objects.filter(pk__in=wanted))


def test_a_task_that_cannot_be_closed_keeps_no_other_one_open(rig):
    crowd = Crowd(rig).chunks("finished", "checked")
    other = Task.objects.get()
    of_another_type(Run.objects.first())
    tasks = [Task.objects.get(type="no such type"), other]
    Step.objects.bulk_create(
        crowd.local(kind, chunk) for kind in ("cross-check", "transfer") for chunk in crowd.steps()
    )
    Step.objects.update(status="finished")
    tasks_close(rig.config, crowd.service)
    assert [(Task.objects.get(pk=task.pk).status, Task.objects.get(pk=task.pk).reason) for task in tasks] == [
        ("running", "cannot-close"),
        ("done", "all-runs-checked"),
    ]


def merged_file(rig, step):
    return next(Path(rig.root, rig.folder.name).rglob(f"evtdump3-{step.run.number}.a1.raw"))


def chunk_file(rig, step):
    return next(Path(rig.root, rig.folder.name).rglob(f"evtdump3-1-{step.run.number}.a1.raw"))


def without_end(step):
    AttemptEnd.objects.filter(attempt__step__kind="merge dump", attempt__step__run=step.run).delete()


def a_directory_instead(path):
    path.unlink()
    path.mkdir()


def bad_receipt(rig, step):
    path = Path(rig.config.sites[0].tape.root, "receipts", f"kept/{step.run.number}.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\xff\xfe")


def of_a_bad_group(step):
    MergeGroup.objects.filter(plan__run=step.run).update(product="?")


POISONS = {
    "cross-check": lambda rig: [
        lambda step: chunk_file(rig, step).unlink(),
        lambda step: merged_file(rig, step).unlink(),
        lambda step: Step.objects.filter(run=step.run, kind="merge dump").delete(),
        lambda step: MergeInput.objects.filter(group__plan__run=step.run).update(lfn="../../../../out"),
        lambda step: MergeInput.objects.filter(group__plan__run=step.run).update(lfn="nul\0"),
        of_a_bad_group,
    ],
    "transfer": lambda rig: [
        lambda step: merged_file(rig, step).unlink(),
        lambda step: a_directory_instead(merged_file(rig, step)),
        without_end,
        lambda step: AttemptEnd.objects.filter(attempt__step__run=step.run).update(files="{not JSON"),
        lambda step: save(step, group=None),
        of_a_bad_place,
        of_a_bad_group,
    ],
    "archive logs": lambda rig: [
        lambda step: next(
            Path(rig.root, rig.folder.name).rglob(f"*-{step.run.number}-1-*.job.log.tgz")
        ).unlink(),
        lambda step: Step.objects.filter(run=step.run, kind="reconstruct").update(job=None),
        of_a_bad_group,
    ],
    "clean": lambda rig: [
        lambda step: a_directory_instead(chunk_file(rig, step)),
        lambda step: save(Step.objects.get(run=step.run, kind="reconstruct"), job=None),
        of_a_bad_group,
    ],
}


@pytest.mark.parametrize("kind", POISONS)
def test_work_that_cannot_be_done_here_waits_alone(rig, kind):
    crowd = Crowd(rig).chunks().ended().planned().ended("merge dump").opened(kind)
    poisons = [*POISONS[kind](rig), lambda step: save(step.run, site="GONE")]
    wanted = poison(crowd.steps(kind), [(change, "not-yet") for change in poisons])
    wanted[max(wanted)] = "no-site"
    steps_do(rig.config, crowd.service)
    assert held(Step, kind=kind) == wanted
    done = Step.objects.filter(kind=kind).exclude(pk__in=wanted)
    assert set(done.values_list("status", flat=True)) == {
        "sent" if kind in ("transfer", "archive logs") else "finished"
    }
    for step in Step.objects.filter(pk__in=wanted):
        assert step.status == "ready"
        assert step.next_try_at > rig.now
        assert step.message


def test_a_copy_that_cannot_be_confirmed_waits_alone(rig):
    crowd = Crowd(rig).chunks().ended().planned().ended("merge dump").opened("transfer", "sent")
    site = rig.config.sites[0]
    tape = site.tape.model_copy(update={"kind": "dropbox"})
    rig.config = rig.config.model_copy(update={"sites": [site.model_copy(update={"tape": tape})]})
    crowd.on_tape("transfer", Path(tape.root))
    wanted = poison(
        crowd.steps("transfer"),
        [
            (lambda step: bad_receipt(rig, step), "tape-unavailable"),
            (lambda step: Transfer.objects.filter(step=step).update(target="../out"), "not-yet"),
            (lambda step: Transfer.objects.filter(step=step).delete(), "not-yet"),
        ],
    )
    assert steps_do(rig.config, crowd.service) == N - 3
    assert held(Step, kind="transfer") == wanted
    assert set(Step.objects.filter(pk__in=wanted).values_list("status", flat=True)) == {"sent"}


def test_a_delivered_file_that_cannot_be_looked_at_holds_its_job_alone(rig):
    crowd = Crowd(rig).chunks()
    folder = rig.folder / "raw"
    folder.mkdir()
    Task.objects.update(files_home=f"{folder}/")
    for job in Job.objects.all():
        (folder / job.file).write_bytes(b"raw")
    listed = rig.folder / "delivery.txt"
    listed.write_text("".join(f"{folder}/{job.file} 3\n" for job in Job.objects.all()))
    jobs = list(Job.objects.order_by("pk"))
    wanted = poison(
        jobs,
        [
            (lambda job: save(job, home="/nul\0/"), "missing"),
            (lambda job: a_directory_instead(folder / job.file), "too long"),
            (lambda job: (folder / job.file).unlink(), "missing"),
            (lambda job: save(job, file="../../out"), "missing"),
        ],
    )
    found = look_delivery(Task.objects.get(), str(listed), sizes_only=False)
    assert found.perform(as_manager("ann", rig.now)) == len(wanted)
    for job in Job.objects.exclude(undelivered=""):
        assert job.undelivered.startswith(wanted.pop(job.pk))
    assert wanted == {}
    assert crowd.service
