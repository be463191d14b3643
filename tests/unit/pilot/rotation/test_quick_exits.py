"""Bundles that start no job: each further one waits longer, and the one that starts a job ends the waits."""

from __future__ import annotations

from rig import Rig, Site, make_job

from pilot.multijob import actions as a
from pilot.ports import Refused


def _submissions(ticks: int) -> tuple[int, Rig]:
    site, rig, count = Site([make_job(n) for n in range(1, 5)]), Rig(), [0]

    def respond(action: a.Action) -> object:
        if isinstance(action, a.SubmitBatchJob):
            count[0] += 1
            return Refused("15036", "no")
        return site.respond(action)

    rig.run(respond, ticks, 30.0)
    return count[0], rig


def test_a_site_that_starts_nothing_is_not_flooded_with_batch_jobs() -> None:
    day, rig = _submissions(2880)
    # Five rounds a bundle, a bundle an hour once the ladder is climbed.
    assert day <= 5 * 30
    assert "pilots-start-nothing-long" in rig.memory.alarms
    assert rig.state.jobs


def test_the_first_bundle_that_starts_a_job_ends_the_waits() -> None:
    memory = Rig().memory
    for _ in range(3):
        memory.bundle_was_settled("long", 0, 1.0)
    assert memory.fruitless["long"] == (3, 1.0)
    assert "pilots-start-nothing-long" in memory.alarms
    memory.bundle_was_settled("long", 1, 2.0)
    assert not memory.fruitless
    assert not memory.alarms
