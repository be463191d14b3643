"""A walltime that somebody changed is told; a batch system that rounds is not."""

from __future__ import annotations

from dataclasses import replace

import pytest
from rig import Rig, Site, make_job

from pilot.ports import BatchState


@pytest.mark.parametrize(("more_s", "told"), [(0, False), (60, False), (61, True), (-61, True), (7200, True)])
def test_a_changed_walltime_is_an_alarm_until_the_batch_job_ends(more_s: int, told: bool) -> None:
    rig, site = Rig(), Site([make_job(number) for number in range(1, 5)])
    rig.run(site.respond, 6, 30.0)
    ((batch_id, job),) = site.batch.items()
    (bundle,) = rig.state.bundles.values()
    site.batch[batch_id] = replace(job, walltime_s=bundle.walltime_s + more_s)
    rig.run(site.respond, 4, 30.0)
    site.start(batch_id)
    rig.run(site.respond, 4, 30.0)
    name = f"walltime-changed-{bundle.bundle_id}"
    assert (name in rig.memory.alarms) is told
    if told:
        assert f"{bundle.walltime_s} s were asked for" in rig.memory.alarms[name].reason
    assert site.batch[batch_id].state is BatchState.RUNNING
    site.end(batch_id)
    rig.run(site.respond, 4, 30.0)
    assert name not in rig.memory.alarms


def test_the_alarm_ends_with_a_batch_job_that_vanished() -> None:
    rig, site = Rig(), Site([make_job(number) for number in range(1, 5)])
    rig.run(site.respond, 6, 30.0)
    ((batch_id, job),) = site.batch.items()
    site.batch[batch_id] = replace(job, walltime_s=9999)
    rig.run(site.respond, 4, 30.0)
    assert any(name.startswith("walltime-changed-") for name in rig.memory.alarms)
    del site.batch[batch_id]
    rig.run(site.respond, 8, 60.0)
    assert not any(name.startswith("walltime-changed-") for name in rig.memory.alarms)
