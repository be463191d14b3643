"""A server that fails or refuses is asked less and less often, also when its answers come at once."""

from __future__ import annotations

from rig import Rig, Site, make_job

from pilot.multijob import actions as a
from pilot.ports import Appended, Refused, Unavailable


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


def test_nothing_is_said_of_a_job_whose_fetch_a_restart_would_not_know() -> None:
    site, rig = Site([make_job(1)]), Rig()
    rig.auto_append = False
    released: list[a.Action] = []
    for _ in range(20):
        for action in rig.tick(5.0):
            released.append(action)
            if not isinstance(action, a.AppendEvents):
                rig.answer(action, site.respond(action))
    assert rig.state.jobs
    assert not any(isinstance(action, a.ReportJobs) for action in released)
    append = next(action for action in released if isinstance(action, a.AppendEvents))
    rig.answer(append, Appended(append.commit, 1))
    assert any(isinstance(action, a.ReportJobs) for action in (*rig.tick(1.0), *rig.tick(1.0)))
