"""A thousand deaths of the tick, each before or after a commit, a call of PanDA, a change of files or of the tape.

No code catches the death; what comes next is another process on another host, which waits for the lease. Answers of
PanDA get lost all the while, and what a lost call still had in its hands is stored late. A history goes on, task after
task, until it has died POINTS times; then everything must have come to its end: stuck 0, doubled 0, lost 0.
"""

import itertools
import random
from collections import Counter

import pytest
from django.db import connection, connections
from test_histories import Crash, RoughPanda, play, work_of

from prodsys_core.lifecycle import PANDA_KINDS
from prodsys_core.models import AttemptEnd, Job, PandaAttempt, Run, Step, Task, Transition
from prodsys_core.services import lease
from prodsys_core.storage import DirectoryTape, SiteFilesystem

HISTORIES, POINTS = 20, 50
TICKS_MAX = 600
FURTHEST = 24
PORTS = (
    (RoughPanda, ("alive", "submit", "job_ids", "statuses", "descriptions", "cancel")),
    (SiteFilesystem, ("write_text", "pack", "remove")),
    (DirectoryTape, ("put", "confirm")),
)
CHUNKS = ([300], [20, 30], [40, 13, 50])


class LosesAnswers(RoughPanda):
    """Loses answers and inserts late, never ends the client itself."""

    def chance(self, probability):
        return self.rough and probability != self.own_crash and super().chance(probability)

    own_crash = 0.1


class Deaths:
    """Counts the boundaries of a tick and ends the process at the n-th. `places`: where it died, and how often."""

    def __init__(self, monkeypatch):
        self.left, self.places, self.processes = 0, Counter(), itertools.count(1)
        self.patch = monkeypatch
        if connection.vendor == "sqlite":  # a process dies here, no machine: nothing needs to reach the disk
            options = connections["default"].settings_dict["OPTIONS"]
            monkeypatch.setitem(options, "init_command", "PRAGMA synchronous=OFF;")
        for owner, names in PORTS:
            for name in names:
                self.surround(owner, name)
        self.surround(type(connections["default"]), "_commit")
        self.new_process()

    def new_process(self):
        connection.close()
        name = f"elsewhere:{next(self.processes)}:1"
        self.patch.setattr(lease, "own_name", lambda: name)

    def surround(self, owner, name):
        real = getattr(owner, name)

        def called(*args, **kwargs):
            self.pass_boundary(f"before {name}")
            answer = real(*args, **kwargs)
            self.pass_boundary(f"after {name}")
            return answer

        self.patch.setattr(owner, name, called)

    def pass_boundary(self, place):
        self.left -= 1
        if self.left == 0:
            self.places[place] += 1
            raise Crash

    def around_statement(self, execute, sql, params, many, context):
        """A change outside a transaction is its own commit."""
        if sql.startswith("SELECT") or connection.in_atomic_block:
            return execute(sql, params, many, context)
        self.pass_boundary("before a statement")
        answer = execute(sql, params, many, context)
        self.pass_boundary("after a statement")
        return answer

    def tick(self, rig, at, seconds):
        """One tick that dies at its `at`-th boundary, if it has so many; 0: it lives."""
        self.left = at
        try:
            with connection.execute_wrapper(self.around_statement):
                rig.tick(seconds)
        except Crash:
            self.new_process()
        self.left = 0


@pytest.mark.parametrize("seed", range(HISTORIES))
def test_death_at_any_boundary_leaves_nothing_stuck_doubled_or_lost(rig, monkeypatch, seed):
    chooser, deaths = random.Random(seed), Deaths(monkeypatch)
    panda = rig.panda = LosesAnswers(seed)
    panda.rough = False
    retry = rig.config.retry.model_copy(update={"uncharged_max": 1000, "backoff_s": (0.0, 5.0)})
    (site,) = rig.config.sites
    commands = site.commands | {"reconstruct": "reco --raw {raw} --dump {dump}"}  # for filtering, too
    sites = (site.model_copy(update={"commands": commands}),)
    rig.config = rig.config.model_copy(update={"retry": retry, "sites": sites})
    rig.at_once(submit_chunk=4)
    names = (f"t{number}" for number in itertools.count(1))
    task = next_task(rig, chooser, next(names))
    for _ in range(TICKS_MAX):
        panda.rough = deaths.places.total() < POINTS
        at = chooser.randint(1, FURTHEST) if panda.rough else 0
        deaths.tick(rig, at, chooser.choice((130, 500, 1000)))
        play(rig, panda, chooser)
        status = rig.task(task).status
        if status == "done":
            rig.set("archive", task)
        elif status == "archived" and not panda.rough:
            break
        elif status == "archived":
            task = next_task(rig, chooser, next(names))
    assert deaths.places.total() == POINTS
    assert_nothing_is_stuck()
    assert_nothing_is_doubled(panda)
    assert_nothing_is_lost(panda)
    assert_counters_are_their_rows()


def next_task(rig, chooser, name):
    """A task whose jobs are made, with `send` asked: all that follows is the ticks'."""
    kind = chooser.choice(("mass production", "DDD filtering", "DDD filtering"))
    rig.create(
        {274495: chooser.choice(CHUNKS), 274496: chooser.choice(CHUNKS)}, name, type=kind, max_attempts=50
    )
    rig.set("ready", name)
    while rig.task(name).status != "jobs ready":
        rig.tick(130)
    rig.set("send", name)
    return name


def assert_nothing_is_stuck():
    assert {task.status for task in Task.objects.all()} == {"archived"}
    assert {run.status for run in Run.objects.all()} == {"archived"}
    held = [(step.work, step.status, step.message) for step in Step.objects.exclude(status="finished")]
    assert held == []


def assert_nothing_is_doubled(panda):
    assert panda.doubled == []
    finished = Counter(work_of(item.job) for item in panda.jobs.values() if item.status == "finished")
    assert set(finished.values()) == {1}


def assert_nothing_is_lost(panda):
    ids = PandaAttempt.objects.exclude(panda_id=None).values_list("panda_id", flat=True)
    assert sorted(ids) == sorted(panda.jobs)
    assert not PandaAttempt.objects.filter(end=None).exists()
    finished = {work_of(item.job) for item in panda.jobs.values() if item.status == "finished"}
    assert finished == set(Step.objects.filter(kind__in=PANDA_KINDS).values_list("work", flat=True))
    assert Step.objects.filter(kind="reconstruct").count() == Job.objects.count()


def assert_counters_are_their_rows():
    """Attempts and charges of each step are those of its rows; its transitions are one chain up to its status."""
    for step in Step.objects.filter(kind__in=PANDA_KINDS):
        charges = Counter(AttemptEnd.objects.filter(attempt__step=step).values_list("charge", flat=True))
        assert step.attempt == step.attempts.count() == charges.total(), step.work
        assert step.charged == charges["own"], (step.work, charges)
        assert step.uncharged == charges.total() - charges["own"] - charges["none"], (step.work, charges)
    chains = {}
    for row in Transition.objects.order_by("pk"):
        subject = (row.subject, row.subject_id)
        assert chains.get(subject, row.old) == row.old, subject
        chains[subject] = row.new
    assert {pk: new for (subject, pk), new in chains.items() if subject == "step"} == dict(
        Step.objects.values_list("pk", "status")
    )
