"""Two real connections change the same rows: nobody's change is lost, nothing is done twice."""

import random
import threading
from datetime import timedelta

import pytest
from django.db import connection

from prodsys_core.lifecycle import Role
from prodsys_core.models import Task, Transition
from prodsys_core.services.lease import take_lease
from prodsys_core.services.moves import Mover, move


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
