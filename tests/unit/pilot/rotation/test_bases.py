"""The text that jobs of a task are kept against goes with the last of them."""

from __future__ import annotations

from collections import Counter

from rig import Rig, Site, good_end, make_job, make_limits


def at_work(rig: Rig) -> Counter[str]:
    """Jobs in their small form, by the task or queue they are kept for."""
    kept = (record for record in rig.state.jobs.values() if isinstance(record.held, bytes))
    return Counter(record.task or record.queue for record in kept)


def test_a_base_is_kept_while_a_job_needs_it_and_no_longer() -> None:
    site, rig = Site([make_job(n) for n in range(1, 9)]), Rig(make_limits(retain_ok_s=300.0))
    most = 0
    for _ in range(300):
        rig.run(site.respond, 1, 5.0)
        assert rig.state.base_users == dict(at_work(rig))
        assert rig.state.bases.keys() == rig.state.base_users.keys()
        most = max(most, len(rig.state.bases))
        for batch_id, job in list(site.batch.items()):
            if job.state == "waiting" and site.start(batch_id):
                tag = job.name.partition(".")[0]
                for record in [r for r in rig.state.jobs.values() if r.bundle_id == tag]:
                    site.line(tag, "job_started", panda_id=record.panda_id, attempt_nr=1)  # type: ignore[arg-type]
                    site.line(tag, "job_ended", **good_end(record.job))  # type: ignore[arg-type]
            elif job.state == "running":
                site.end(batch_id)
    assert most == 1
    assert not rig.state.jobs and not rig.state.bases
