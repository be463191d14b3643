"""Seeded histories: answers lost, servers that insert late, crashes at any query or call, outages, bad ends.

Safety while faults happen: no work is alive twice in PanDA, none is sent again after it finished. When the faults
stop everything must come to its end: task archived, one finished job for each work, nothing lost.
"""

import os
import random
import re

import pytest
from django.db import connection
from prodsys_rig import LOST, FakePanda

from prodsys_core.models import PandaAttempt, Run, Step

SEEDS = int(os.environ.get("PRODSYS_SEEDS", "5"))
LIVE = ("activated", "running")
CRASHES_UP_TO_QUERY = 120
TICKS_WITH_FAULTS, TICKS_WITHOUT = 60, 60


class Crash(BaseException):
    """The process is gone."""


class RoughPanda(FakePanda):
    """A server that loses answers, inserts late, forgets for a while; it notices work that is alive twice."""

    def __init__(self, seed):
        super().__init__()
        self.random = random.Random(seed)
        self.rough = True
        self.late, self.later = [], []
        self.doubled = []

    def chance(self, probability):
        return self.rough and self.random.random() < probability

    def submit(self, jobs):
        if self.chance(0.1):
            raise Crash
        if self.chance(0.3):
            now = self.random.randint(0, len(jobs))
            for job in jobs[:now]:
                self.store(job)
            self.late += [job for job in jobs[now:] if self.chance(0.5)]
            if self.chance(0.3):
                raise Crash
            return LOST
        answer = dict(self.store(job) for job in jobs)
        if self.chance(0.1):
            raise Crash
        return answer

    def store(self, job):
        work = work_of(job)
        others = [item for item in self.jobs.values() if work_of(item.job) == work]
        if any(item.status in (*LIVE, "finished") for item in others):
            self.doubled.append(work)
        return super().store(job)

    def insert_late(self):
        """What the server still had in its hands when the client had gone: stored one round later."""
        for job in self.later:
            self.store(job)
        self.later, self.late = self.late, []

    def statuses(self, ids):
        return LOST if self.chance(0.1) else super().statuses(ids)

    def descriptions(self, ids):
        records = super().descriptions(ids)
        return {pk: record for pk, record in records.items() if not self.chance(0.1)}

    def job_ids(self, number):
        return LOST if self.chance(0.2) else super().job_ids(number)


def work_of(job):
    return re.search(r"PRODSYS_WORK=(\S+)", job.job_parameters)[1]


class Crasher:
    """Ends the process at the n-th query."""

    def __init__(self, at):
        self.left = at

    def __call__(self, execute, sql, params, many, context):
        self.left -= 1
        if self.left == 0:
            raise Crash
        return execute(sql, params, many, context)


def live_through(rig, panda, chooser, seconds):
    """One tick that may end at any query or call."""
    at = chooser.randint(1, CRASHES_UP_TO_QUERY) if panda.chance(0.3) else 0
    try:
        with connection.execute_wrapper(Crasher(at)):
            rig.tick(seconds)
    except Crash:
        pass


def play(rig, panda, chooser):
    """PanDA's side: jobs run and end, one way or another."""
    panda.insert_late()
    ends = [("finished", {}), ("failed", {"pilotErrorCode": 1379}), ("failed", {"pilotErrorCode": 1344})]
    for status, codes in ends if panda.rough else ends[:1]:
        picked = {pk for pk in panda.jobs if not panda.rough or chooser.random() < 0.3}
        rig.run_jobs(status=status, only=lambda item, picked=picked: item.panda_id in picked, codes=codes)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_every_history_ends_well(rig, seed):
    chooser = random.Random(seed)
    panda = rig.panda = RoughPanda(seed)
    panda.rough = False
    rig.config = rig.config.model_copy(
        update={"retry": rig.config.retry.model_copy(update={"uncharged_max": 1000, "backoff_s": (0.0, 5.0)})}
    )
    rig.at_once(submit_chunk=4)
    rig.sent_task({274495: [20, 30, 40], 274496: [13, 50]}, max_attempts=50)
    panda.rough = True
    for _ in range(TICKS_WITH_FAULTS):
        live_through(rig, panda, chooser, chooser.choice((1, 30, 500)))
        play(rig, panda, chooser)
        if rig.task().status == "done":
            rig.set("archive")
    panda.rough = False
    for _ in range(TICKS_WITHOUT):
        if rig.task().status == "archived":
            break
        rig.tick(500)
        play(rig, panda, chooser)
        if rig.task().status == "done":
            rig.set("archive")
    assert panda.doubled == []
    assert rig.task().status == "archived", [
        (s.work, s.kind, s.status, s.message) for s in Step.objects.all()
    ]
    assert {run.status for run in Run.objects.all()} == {"archived"}
    finished = [work_of(item.job) for item in panda.jobs.values() if item.status == "finished"]
    steps = Step.objects.filter(kind__in=("reconstruct", "merge mdst", "merge hist", "merge dump"))
    assert sorted(finished) == sorted(step.work for step in steps)
    assert set(panda.jobs) == set(
        PandaAttempt.objects.exclude(panda_id=None).values_list("panda_id", flat=True)
    )


@pytest.mark.parametrize("start", [1, 2])
def test_crash_at_every_query(rig, start):
    """Tick after tick ends at its 1st, 3rd, 5th... (2nd, 4th...) query, until the task is archived."""
    panda = rig.panda = RoughPanda(0)
    panda.rough = False
    rig.sent_task({274495: [20, 30], 274496: [13]})
    at = start
    for _ in range(600):
        try:
            with connection.execute_wrapper(Crasher(at)):
                rig.tick(500)
                at = start
        except Crash:
            at += 2
        play(rig, panda, random.Random(0))
        if rig.task().status == "done":
            rig.set("archive")
        if rig.task().status == "archived":
            break
    assert rig.task().status == "archived"
    assert panda.doubled == []
    assert len(panda.jobs) == len({work_of(item.job) for item in panda.jobs.values()})
