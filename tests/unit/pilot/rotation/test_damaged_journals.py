"""A node journal that cannot be read whole: what is not in it is unknown, not absent."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from rig import Rig, Site, good_end, make_job

from pilot.multijob import actions as a
from pilot.multijob.model import JobState
from pilot.ports import Damage, EvidenceSeen

FILE = "node.0.x.journal"
HOLE = Damage(FILE, 1, "damaged line")


def _walk(
    holes: dict[str, tuple[Damage, ...]], last_holes: dict[str, tuple[Damage, ...]]
) -> tuple[Rig, Site]:
    """Two jobs with lines, two of which no line speaks; what readings find damaged."""
    site, rig = Site([make_job(n) for n in range(1, 5)]), Rig()

    def respond(action: a.Action) -> Any:
        seen = site.respond(action)
        if isinstance(seen, EvidenceSeen) and isinstance(action, a.ReadEvidence):
            return replace(seen, **(last_holes if action.last else holes))
        return seen

    for _ in range(80):
        rig.run(respond, 1, 5.0)
        for batch_id, job in list(site.batch.items()):
            if job.state == "waiting" and site.start(batch_id):
                tag = job.name.partition(".")[0]
                for panda_id in rig.state.bundles[tag].job_keys[:2]:
                    site.line(tag, "job_started", panda_id=panda_id, attempt_nr=1)
                    site.line(tag, "job_ended", **good_end(rig.state.jobs[panda_id].job))
            elif job.state == "running":
                site.end(batch_id)
        if any(bundle.settled_at for bundle in rig.state.bundles.values()):
            break
    return rig, site


def test_no_start_line_in_a_damaged_journal_is_lost_and_never_not_started() -> None:
    other = replace(HOLE, file="node.1.x.journal")
    for found in ({"damaged": (HOLE, other)}, {"tails": (HOLE, other)}):
        rig, _ = _walk({}, found)
        assert rig.state.totals["long"].returned == 0
        assert rig.state.totals["long"].failed == 2
        judged = [record.verdict for record in rig.state.jobs.values() if record.verdict]
        assert {verdict.charge for verdict in judged if verdict.code} <= {"infrastructure"}


def test_damage_that_heals_before_the_last_reading_costs_nothing() -> None:
    rig, _ = _walk({"damaged": (HOLE,)}, {})
    assert rig.state.totals["long"].returned == 2
    assert rig.state.totals["long"].failed == 0


def test_what_is_damaged_is_not_passed_by_before_the_last_reading() -> None:
    site, rig = Site([make_job(n) for n in range(1, 5)]), Rig()
    rig.run(site.respond, 6, 5.0)
    tag = next(iter(rig.state.bundles))
    for batch_id in list(site.batch):
        site.start(batch_id)
    site.line(tag, "job_started", panda_id=1, attempt_nr=1)
    site.line(tag, "job_started", panda_id=2, attempt_nr=1)
    site.line(tag, "job_started", panda_id=3, attempt_nr=1)

    def respond(action: a.Action) -> Any:
        seen = site.respond(action)
        if isinstance(seen, EvidenceSeen):
            # the middle line is a hole
            return replace(seen, lines=tuple(x for x in seen.lines if x.sequence != 2), damaged=(HOLE,))
        return seen

    rig.run(respond, 6, 5.0)
    assert rig.state.bundles[tag].offsets.get(FILE, 0) <= HOLE.at
    assert rig.state.jobs[3].state is JobState.STARTED
    rig.run(site.respond, 6, 5.0)
    assert rig.state.jobs[2].state is JobState.STARTED
