"""One tick looks at no more jobs than the configuration says; the rest follows."""

from __future__ import annotations

from rig import Rig, Site, make_job, make_limits

from pilot.multijob import actions as a


def test_reports_that_are_due_at_once_come_in_parts_of_the_configured_size() -> None:
    site, rig = Site([make_job(n) for n in range(1, 9)]), Rig(make_limits(looks_at_once=3))
    parts = []
    for _ in range(20):
        asked = rig.run(site.respond, 1)
        parts.append(sum(len(action.updates) for action in asked if isinstance(action, a.ReportJobs)))
    # the answers of a tick's appends come in the same one, so it may look twice
    assert max(parts) <= 6
    assert sum(parts) >= 8
