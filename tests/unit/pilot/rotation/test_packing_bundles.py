"""When the directory of a bundle is packed: after its last accepted report, a few at once, once a run."""

from __future__ import annotations

from typing import Any

from rig import Rig, Site, good_end, make_job, make_limits

from pilot.multijob import actions as a
from pilot.multijob.model import BundleState
from pilot.ports import GONE, Ack, Damage, Refused, Unavailable
from pilot.rotation.why import why


class Ending(Site):
    """Bundles whose jobs end well; reports are accepted only where `accepts`."""

    accepts = True
    pack: Any = None

    def respond(self, action: a.Action) -> Any:
        if isinstance(action, a.ReportJobs) and action.final and not self.accepts:
            return tuple(Ack(u.panda_id, u.attempt_nr, False, reason="later") for u in action.updates)
        if isinstance(action, a.PackBundle) and self.pack is not None:
            return self.pack
        return super().respond(action)


def walk(rig: Rig, site: Ending, ticks: int = 60) -> list[a.PackBundle]:
    """Let bundles run and end; the packings asked for."""
    asked: list[a.PackBundle] = []
    for _ in range(ticks):
        asked += [found for found in rig.run(site.respond, 1, 5.0) if isinstance(found, a.PackBundle)]
        for batch_id, job in list(site.batch.items()):
            if job.state == "waiting" and site.start(batch_id):
                tag = job.name.partition(".")[0]
                for panda_id in rig.state.bundles[tag].job_keys:  # type: ignore[index]
                    site.line(tag, "job_started", panda_id=panda_id, attempt_nr=1)  # type: ignore[arg-type]
                    site.line(tag, "job_ended", **good_end(rig.state.jobs[panda_id].job))  # type: ignore[arg-type]
            elif job.state == "running":
                site.end(batch_id)
    return asked


def settled(rig: Rig) -> list[str]:
    return [i for i, bundle in rig.state.bundles.items() if bundle.state is BundleState.SETTLED]


def test_a_bundle_is_packed_once_after_its_last_accepted_report() -> None:
    site, rig = Ending([make_job(n) for n in range(1, 5)]), Rig()
    site.accepts = False
    assert walk(rig, site) == [] and len(settled(rig)) == 1
    site.accepts = True
    (pack,) = walk(rig, site, 400)
    bundle = rig.state.bundles[pack.bundle_id]
    assert pack.offsets == bundle.offsets != {}
    assert "packed" in why(rig.state, rig.memory, pack.bundle_id, _now(rig), rig.limits)[0]


def _now(rig: Rig) -> Any:
    from rig import START

    from pilot.multijob.recognise import Now

    return Now(START.isoformat(), rig.now_s)


def test_a_new_run_looks_again_and_no_more_than_so_many_are_packed_at_once() -> None:
    site, rig = Ending([make_job(n) for n in range(1, 17)]), Rig()
    first = walk(rig, site, 120)
    assert len({pack.bundle_id for pack in first}) == len(first) == len(settled(rig)) == 4
    again = rig.restart()
    hung = [found for found in again.run(lambda action: None, 50, 60.0) if isinstance(found, a.PackBundle)]
    assert len(hung) == again.limits.pack_at_once == 1
    again.answer(hung[0], site.respond(hung[0]))
    later = walk(again, site)
    assert {pack.bundle_id for pack in (*hung, *later)} == {pack.bundle_id for pack in first}


def test_a_packing_that_failed_is_tried_again_and_none_is_made_of_a_directory_that_is_gone() -> None:
    site, rig = Ending([make_job(n) for n in range(1, 5)]), Rig()
    site.pack = Unavailable("No space left on device")
    failed = walk(rig, site, 200)
    assert 3 <= len(failed) <= 12
    site.pack = Refused(GONE, "not there")
    assert len(walk(rig, site, 400)) == 1
    assert not rig.memory.alarms


def test_nothing_is_packed_where_the_site_says_so_nor_after_its_retention() -> None:
    site, rig = Ending([make_job(n) for n in range(1, 5)]), Rig(make_limits(pack_at_once=0))
    assert walk(rig, site, 200) == [] and settled(rig)
    site, rig = Ending([make_job(n) for n in range(1, 5)]), Rig(make_limits(retain_ok_s=0.0))
    assert walk(rig, site, 200) == [] and not rig.state.bundles


def test_a_directory_is_not_removed_while_it_is_packed() -> None:
    site, rig = Ending([make_job(n) for n in range(1, 5)]), Rig(make_limits(retain_ok_s=600.0))
    while not walk(rig, _hanging(site), 1):
        pass
    rig.run(lambda action: None if isinstance(action, a.PackBundle) else site.respond(action), 400, 60.0)
    assert settled(rig)


def _hanging(site: Ending) -> Any:
    class Hanging:
        batch, start, end, line = site.batch, site.start, site.end, site.line

        @staticmethod
        def respond(action: a.Action) -> Any:
            return None if isinstance(action, a.PackBundle) else site.respond(action)

    return Hanging


def test_a_pack_that_cannot_be_read_is_a_hole_in_the_journal_of_every_node() -> None:
    from dataclasses import replace

    from pilot.ports import EvidenceSeen

    site, rig = Ending([make_job(n) for n in range(1, 5)]), Rig()
    damage = Damage("pack.1.zip", 0, "no pack")

    def respond(action: a.Action) -> Any:
        seen = site.respond(action)
        return replace(seen, damaged=(damage,)) if isinstance(seen, EvidenceSeen) else seen

    for _ in range(60):
        rig.run(respond, 1, 5.0)
        for batch_id, job in list(site.batch.items()):
            if job.state == "waiting":
                site.start(batch_id)
            elif job.state == "running":
                site.end(batch_id)
    assert rig.state.totals["long"].returned == 0
    assert rig.state.totals["long"].failed == 4
