"""How often the database is asked, by everything that jobs go through from generated to finished.

The goal of `prodsys.queries_per_1000`. Each look at PanDA, a transaction's BEGIN and every statement of it count.
"""

import pytest
from django.db import connection

from prodsys_core.lifecycle import Role
from prodsys_core.models import AttemptEnd, PandaAttempt, Step
from prodsys_core.services.answers import batches_settle
from prodsys_core.services.following import jobs_follow
from prodsys_core.services.moves import Mover
from prodsys_core.services.sending import steps_send, steps_stage

GOAL = 60
"""Statements for 1,000 jobs."""
CHUNKS = 1000


class Counted:
    """Number of statements of a call."""

    def __init__(self):
        self.n = 0

    def __call__(self, execute, sql, params, many, context):
        self.n += 1
        return execute(sql, params, many, context)

    def of(self, call, *arguments):
        with connection.execute_wrapper(self):
            return call(*arguments)


class Dies(BaseException):
    """The process is gone."""


def generated(rig, jobs):
    """A task in `send` whose jobs are made, all of which may be sent at once."""
    runs = {280000 + first: [300] * min(CHUNKS, jobs - first) for first in range(0, jobs, CHUNKS)}
    rig.create(runs)
    rig.set("ready")
    rig.tick()
    rig.set("send")
    rig.at_once(active_max=10**6, waiting_min=10**6)


def follow(rig, count, status, **changes):
    for place, item in enumerate(rig.panda.jobs.values()):
        item.status = status
        if status == "finished":
            item.n_events = item.n_written = item.job.n_events
        for name, value in changes.items():
            setattr(item, name, value(place))
    return count.of(jobs_follow, rig.config, rig.panda, Mover("test", Role.SERVICE, rig.now))


@pytest.mark.parametrize("jobs", [1000, 1100, 5000])
def test_statements_for_a_thousand_jobs_are_few_however_many_there_are(rig, jobs):
    generated(rig, jobs)
    count, mover = Counted(), Mover("test", Role.SERVICE, rig.now)
    assert count.of(steps_stage, mover) == jobs
    assert count.of(steps_send, rig.config, rig.panda, mover) == jobs
    assert count.of(batches_settle, rig.config, rig.panda, mover) == 0
    follow(rig, count, "running")
    assert Step.objects.filter(status="running").count() == jobs
    assert follow(rig, count, "finished") == jobs
    assert Step.objects.filter(status="finished", panda_id__gt=0).count() == jobs
    assert count.n * 1000 / jobs <= GOAL


def test_jobs_that_a_dead_tick_has_sent_are_found_in_few_statements(rig):
    generated(rig, 1000)
    count, mover = Counted(), Mover("test", Role.SERVICE, rig.now)
    submit, calls = rig.panda.submit, []

    def dies_at_last(jobs):
        calls.append(submit(jobs))
        if len(calls) == 5:
            raise Dies
        return {}

    rig.panda.submit = dies_at_last
    count.of(steps_stage, mover)
    with pytest.raises(Dies):
        count.of(steps_send, rig.config, rig.panda, mover)
    assert not PandaAttempt.objects.exclude(panda_id=None).exists()
    assert count.of(batches_settle, rig.config, rig.panda, mover) == 1000
    follow(rig, count, "running")
    assert follow(rig, count, "finished") == 1000
    assert Step.objects.filter(status="finished", panda_id__gt=0).count() == 1000
    assert count.n <= GOAL + 5  # and one for each answer that named no job


def test_ends_with_words_of_their_own_take_no_statement_each(rig):
    generated(rig, 1000)
    count, mover = Counted(), Mover("test", Role.SERVICE, rig.now)
    steps_stage(mover)
    steps_send(rig.config, rig.panda, mover)
    assert follow(rig, count, "finished", n_events=lambda place: 1000 + place) == 1000
    steps = Step.objects.filter(status="manual check is needed", reason="events-differ")
    assert len(set(steps.values_list("message", flat=True))) == 1000
    assert AttemptEnd.objects.filter(message__contains="read 1999, written").count() == 1
    assert count.n <= 20


def test_jobs_that_cannot_be_made_up_take_no_statement_each(rig):
    generated(rig, 1000)
    count, mover = Counted(), Mover("test", Role.SERVICE, rig.now)
    steps_stage(mover)
    (site,) = rig.config.sites
    rig.config = rig.config.model_copy(update={"sites": [site.model_copy(update={"commands": {}})]})
    assert count.of(steps_send, rig.config, rig.panda, mover) == 0
    assert Step.objects.filter(status="staged", reason="cannot-send", attempt=0).count() == 1000
    assert count.n <= 20


def test_merges_take_no_statement_each(rig):
    counts = []
    for runs in (3, 30):
        name = f"t{runs}"
        rig.create({280000 + 100 * runs + run: [20] for run in range(runs)}, name, type="DDD filtering")
        rig.set("ready", name)
        rig.tick()
        rig.set("send", name)
        (site,) = rig.config.sites
        commands = site.commands | {"reconstruct": "reco --raw {raw} --dump {dump}"}
        rig.config = rig.config.model_copy(update={"sites": [site.model_copy(update={"commands": commands})]})
        rig.tick()
        rig.run_jobs()
        sending = rig.panda.alive
        rig.panda.alive = lambda: False
        rig.tick()
        rig.panda.alive = sending
        count, sent = Counted(), len(rig.panda.jobs)
        assert count.of(steps_send, rig.config, rig.panda, Mover("test", Role.SERVICE, rig.now)) == runs
        assert len(rig.panda.jobs) == sent + runs
        counts.append(count.n)
        rig.run_jobs()
        rig.tick()
    assert counts[0] == counts[1]
