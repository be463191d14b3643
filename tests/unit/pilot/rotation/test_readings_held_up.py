"""A filesystem on which every reading is slow settles no bundle: an alarm says so, and ends by itself."""

from __future__ import annotations

from typing import Any

from rig import Rig, Site, make_job

from pilot.multijob import actions as a
from pilot.multijob.model import BundleState
from pilot.ports import Answer, Ticket

ALARM = "readings-held-up"


class Slow(Rig):
    """Every reading of evidence takes so long."""

    took_s = 0.0

    def answer(self, action: a.Action, outcome: Any, asked_s: float | None = None) -> None:
        took_s = self.took_s if isinstance(action, a.ReadEvidence) else 0.0
        self._answers.append(Answer(Ticket(0), action, outcome, self.now_s - took_s, took_s))


def closed() -> tuple[Slow, Site]:
    """A bundle that has just been closed on a filesystem that is slow."""
    rig, site = Slow(), Site([make_job(n) for n in range(1, 5)])
    rig.took_s = rig.limits.protocol.visible_s + 1.0
    while not any(bundle.state is BundleState.CLOSED for bundle in rig.state.bundles.values()):
        rig.run(site.respond, 1, 5.0)
        for batch_id, job in list(site.batch.items()):
            if job.state == "waiting":
                site.start(batch_id)
            elif job.state == "running":
                site.end(batch_id)
    return rig, site


def test_readings_that_stay_slow_raise_an_alarm_that_ends_with_them() -> None:
    rig, site = closed()
    settle_s = rig.limits.protocol.settle_s
    rig.run(site.respond, int(2 * settle_s / 5), 5.0)
    assert ALARM not in rig.memory.alarms
    rig.run(site.respond, int(2 * settle_s / 5), 5.0)
    assert "11 s" in rig.memory.alarms[ALARM].reason
    assert all(bundle.state is BundleState.CLOSED for bundle in rig.state.bundles.values())
    rig.took_s = 1.0
    rig.run(site.respond, int(2 * settle_s / 5), 5.0)
    assert ALARM not in rig.memory.alarms
    assert any(bundle.state is BundleState.SETTLED for bundle in rig.state.bundles.values())


def test_one_slow_reading_is_no_alarm() -> None:
    rig, site = closed()
    rig.took_s = 1.0
    for _ in range(100):
        rig.run(site.respond, 1, 5.0)
        assert ALARM not in rig.memory.alarms
