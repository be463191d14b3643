"""A server that fails or refuses is asked less and less often, also when its answers come at once."""

from __future__ import annotations

from rig import Rig, Site, make_job

from pilot.multijob import actions as a
from pilot.ports import Refused, Unavailable


def _reports(answer: object, ticks: int) -> int:
    site, rig, count = Site([make_job(n) for n in range(1, 5)]), Rig(), [0]

    def respond(action: a.Action) -> object:
        if isinstance(action, a.ReportJobs):
            count[0] += 1
            return answer
        return site.respond(action)

    rig.run(respond, ticks, 1.0)
    return count[0]


def test_a_failed_report_is_repeated_after_a_growing_pause() -> None:
    for answer in (Unavailable("no answer"), Refused("403", "permission denied")):
        # 30, 60, 120, 240, 480 s and so on within 900 s, never at every tick
        assert 3 <= _reports(answer, 900) <= 7
