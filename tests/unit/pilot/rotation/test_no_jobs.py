"""A server without jobs is asked later and later, and `--once` ends with its own exit code."""

from __future__ import annotations

from itertools import pairwise

from rig import Rig, Site, make_job

from pilot.multijob import actions as a

KEY = ("fetch", "long")


def test_a_server_without_jobs_is_asked_less_and_less() -> None:
    site, rig = Site([]), Rig()
    asked = []
    for _ in range(400):
        actions = rig.run(site.respond, 1, 5.0)
        asked += [rig.now_s for action in actions if isinstance(action, a.FetchJobs)]
    pauses = [later - earlier for earlier, later in pairwise(asked)]
    assert pauses == sorted(pauses)
    assert pauses[-1] >= 4 * pauses[0]
    assert pauses[-1] <= rig.limits.fetch_retry_max_s + 10.0
    assert rig.memory.delays[KEY].failures == len(asked)


def test_jobs_end_the_pause() -> None:
    site, rig = Site([]), Rig()
    rig.run(site.respond, 40, 10.0)
    assert rig.memory.delays[KEY].failures > 1
    site.waiting = [make_job(1)]
    for _ in range(80):
        rig.run(site.respond, 1, 10.0)
        if rig.state.jobs:
            break
    assert rig.state.jobs
    assert KEY not in rig.memory.delays or rig.memory.delays[KEY].failures == 1
