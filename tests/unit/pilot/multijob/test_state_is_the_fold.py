"""The state is the fold of the journal: after every tick, replaying what is durable gives the same state."""

from __future__ import annotations

from rig import Rig, Site, good_end, make_job

from pilot.multijob.apply import replay
from pilot.multijob.codec import decode
from pilot.multijob.model import BundleState


def check_fold(rig: Rig) -> None:
    assert replay(decode(record) for record in rig.durable) == rig.state


def test_after_every_tick_the_journal_folds_to_the_same_state() -> None:
    site = Site([make_job(n) for n in range(1, 11)])
    rig = Rig()
    for _ in range(80):
        rig.run(site.respond, 1, 5.0)
        for batch_id, job in list(site.batch.items()):
            if job.state == "waiting" and site.start(batch_id):
                tag = job.name.partition(".")[0]
                for place, panda_id in enumerate(rig.state.bundles[tag].job_keys):
                    site.line(tag, "job_started", panda_id=panda_id, attempt_nr=1)
                    if place % 4 == 1:
                        continue
                    facts = good_end(rig.state.jobs[panda_id].job)
                    facts.update(exit_code=3 if place % 4 == 2 else 0)
                    site.line(tag, "job_ended", **facts)
            elif job.state == "running":
                site.end(batch_id)
        check_fold(rig)
    assert rig.state.totals["long"].finished and rig.state.totals["long"].failed
    assert any(bundle.state is BundleState.SETTLED for bundle in rig.state.bundles.values())


def test_a_round_given_up_folds_to_the_same_state() -> None:
    site = Site([make_job(n) for n in range(1, 5)])
    rig = Rig()
    for _ in range(60):
        rig.run(site.respond, 1, 5.0)
        for batch_id, job in list(site.batch.items()):
            if job.name.endswith(".1") and job.state == "waiting":
                site.end(batch_id)  # over before its gate ran
        check_fold(rig)
    assert any(len(bundle.rounds) > 1 for bundle in rig.state.bundles.values())
