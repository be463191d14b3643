"""Rows that are stored without objects hold what objects would have held."""

import pytest
from django.db import IntegrityError
from django.db.models import F, Value
from django.db.models.constants import OnConflict

from prodsys_core.models import AttemptEnd, Job, PandaAttempt, Run, Transition
from prodsys_core.services.rows import db_time, insert_from, insert_rows


@pytest.fixture
def run(rig):
    task = rig.create({274495: [300]})
    return Run.objects.create(task=task, number=274495, status_at=rig.now)


def test_columns_that_are_not_given_have_their_default(run):
    insert_rows(Job, "task_id run_id file chunk n_events", [(run.task_id, run.pk, "a", 1, None)])
    stored = Job.objects.get()
    made = Job(pk=stored.pk, task=run.task, run=run, file="a", chunk=1)
    for field in Job._meta.concrete_fields:
        assert getattr(stored, field.attname) == getattr(made, field.attname), field.attname


def test_default_that_needs_quoting_is_refused(run):
    with pytest.raises(ValueError, match="give the column"):
        insert_rows(AttemptEnd, "attempt_id", [(1,)])


def test_more_rows_than_one_statement_takes(run):
    insert_rows(Job, "task_id run_id file chunk", [(run.task_id, run.pk, f"f{n}", n) for n in range(3300)])
    assert Job.objects.count() == 3300


def test_texts_are_cut_to_their_column(run):
    insert_rows(Job, "task_id run_id file chunk", [(run.task_id, run.pk, "f" * 200, 1)])
    assert Job.objects.get().file == "f" * 100


def test_constraints_hold_and_a_row_that_is_there_stays(rig):
    rig.sent_task({274495: [300]})
    attempt = PandaAttempt.objects.get()
    columns = "attempt_id status reason message charge node files ended_at"
    for status in ("first", "second"):
        row = (attempt.pk, status, "", "", "own", "", "{}", db_time(rig.now))
        insert_rows(AttemptEnd, columns, [row], OnConflict.IGNORE)
    end = AttemptEnd.objects.get()
    assert (end.status, end.ended_at, end.n_read) == ("first", rig.now, None)
    with pytest.raises(IntegrityError):
        insert_rows(AttemptEnd, columns, [row])


def test_rows_made_of_rows_are_counted(rig, run):
    texts = {name: Value("'q' %s") for name in ("old", "new", "role", "who")}
    source = Run.objects.filter(number=274495)
    columns = {"subject": Value("run"), "subject_id": F("pk"), "at": Value(rig.now), **texts}
    assert insert_from(Transition, source, **columns) == 1
    row = Transition.objects.get(subject="run")
    assert (row.subject_id, row.who, row.reason, row.at) == (run.pk, "'q' %s", "", rig.now)
