"""Two real connections change the same rows: nobody's change is lost, nothing is done twice."""

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.db import connection

from prodsys_core.lifecycle import Role
from prodsys_core.models import Task, Transition
from prodsys_core.services.lease import take_lease
from prodsys_core.services.moves import Mover, move
from prodsys_core.tables import edges


def in_thread(call):
    """Run `call` in a thread of its own, with its own connection; returns the thread, started."""

    def run():
        try:
            call()
        finally:
            connection.close()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


@pytest.mark.parametrize("seed", range(20))
def test_manager_and_service_race_for_a_task(rig, seed):
    rig.create({274495: [300]})
    task = rig.task()
    Task.objects.filter(pk=task.pk).update(status="send")
    barrier = threading.Barrier(2)
    moved = {}

    def race(name, role, new):
        def call():
            barrier.wait()
            moved[name] = move(Mover(name, role, rig.now), "task", [task.pk], "send", new)

        return call

    racers = [race("service", Role.SERVICE, "running"), race("manager", Role.MANAGER, "paused")]
    random.Random(seed).shuffle(racers)
    for thread in [in_thread(call) for call in racers]:
        thread.join()
    winners = [name for name, ids in moved.items() if ids]
    assert len(winners) == 1
    assert rig.task().status == {"service": "running", "manager": "paused"}[winners[0]]
    assert Transition.objects.filter(subject="task", subject_id=task.pk, old="send").count() == 1


class Writer:
    """Somebody with a connection of his own who reads a status, and later moves it from what he has read."""

    def __init__(self, name, role, now):
        self.mover, self.seen = Mover(name, role, now), None
        self.pool = ThreadPoolExecutor(1)

    def read(self, task):
        self.seen = self.pool.submit(
            lambda: Task.objects.values_list("status", flat=True).get(pk=task.pk)
        ).result()

    def move(self, task, chooser):
        """Returns (old, new) if his change was made."""
        chosen = [
            new for (old, new), who in edges("task").items() if old == self.seen and self.mover.role in who
        ]
        if not chosen:
            return None
        new = chooser.choice(chosen)
        moved = self.pool.submit(move, self.mover, "task", [task.pk], self.seen, new).result()
        return (self.seen, new) if moved else None

    def end(self):
        self.pool.submit(lambda: connection.close()).result()  # of its own thread
        self.pool.shutdown()


INTERLEAVINGS = 1000


def test_no_update_is_lost_in_a_thousand_interleavings(rig):
    """Each seed: a manager and a service read and move one task in an order of their own, on two connections."""
    rig.create({274495: [300]})
    task = rig.task()
    writers = [Writer("ann", Role.MANAGER, rig.now), Writer("tick", Role.SERVICE, rig.now)]
    made = refused = 0
    try:
        for seed in range(INTERLEAVINGS):
            chooser = random.Random(seed)
            first = status = chooser.choice(("ready", "send", "running", "archive"))
            Task.objects.filter(pk=task.pk).update(status=first)
            done = []
            turns = [*writers, *writers]
            chooser.shuffle(turns)
            for writer in turns:
                if writer.seen is None:
                    writer.read(task)
                    continue
                change = writer.move(task, chooser)
                done += [change] if change else []
                refused += change is None
                writer.seen = None
            for old, new in done:
                assert old == status, (seed, first, done)
                status = new
            assert Task.objects.values_list("status", flat=True).get(pk=task.pk) == status
            made += len(done)
    finally:
        for writer in writers:
            writer.end()
    assert Transition.objects.filter(subject="task", subject_id=task.pk).exclude(old="").count() == made
    assert made > INTERLEAVINGS
    assert refused > INTERLEAVINGS / 10


def test_of_many_ticks_one_has_the_lease(rig):
    got = []
    barrier = threading.Barrier(4)

    def contend(name):
        def call():
            barrier.wait()
            if take_lease(name, rig.now, 60) is None:
                got.append(name)

        return call

    for thread in [in_thread(contend(f"host{n}:1:1")) for n in range(4)]:
        thread.join()
    assert len(got) == 1
    assert take_lease("other:1:1", rig.now, 60) == got[0]
    assert take_lease("other:1:1", rig.now + timedelta(seconds=61), 60) is None
