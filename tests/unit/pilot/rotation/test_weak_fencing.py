"""Weak fencing on the pilot's side: mark, wait, look; closing waits for every batch job that made a mark (DESIGN 3)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from rig import Rig, Site, make_job, make_limits

from pilot.monitor.status import render_status, render_text
from pilot.multijob import actions as a
from pilot.multijob.model import Bundle, BundleState, RoundState
from pilot.multijob.recognise import Now
from pilot.multijob.script import render_manifest
from pilot.ports import BatchId, BatchState, Claim, ClaimMade, Done, EvidenceSeen, Unavailable

VISIBLE_S = 10.0
A, B = BatchId("1.sim"), BatchId("2.sim")


def mark(number: int, *batch_ids: BatchId) -> Claim:
    """What the marks of a round say."""
    return Claim("gate", number, batch_ids[0], "n1", 7, "n", "utc", batch_ids[1:])


PILOTS = Claim("pilot", 1, None, "", 0, "", "")


class Weak(Site):
    """A site with weak fencing: what reading and looking show is set by the test."""

    def __init__(self) -> None:
        super().__init__([make_job(n) for n in range(1, 5)])
        self.marks: dict[int, Claim] = {}
        self.asked: list[Any] = []

    def respond(self, action: Any) -> Any:
        """Answers of a site on which nothing starts by itself."""
        self.asked.append(action)
        match action:
            case a.MakeMark():
                return Done()
            case a.MakeClaim(_, number, weak):
                assert weak
                found = self.marks.get(number, PILOTS)
                return ClaimMade(found.who == "pilot", found)
            case a.ReadEvidence():
                return EvidenceSeen(action.bundle_id, dict(self.marks), None, (), (), False, ())
            case _:
                return super().respond(action)

    def of(self, kind: type) -> list[Any]:
        """Actions of one kind that were asked for."""
        return [action for action in self.asked if isinstance(action, kind)]


def weak_rig(site: Weak) -> tuple[Rig, Bundle]:
    """A bundle with weak fencing whose batch job waits."""
    limits = make_limits()
    rig = Rig(replace(limits, protocol=replace(limits.protocol, weak=True)))
    rig.run(site.respond, 10, 5.0)
    (bundle,) = rig.state.bundles.values()
    assert bundle.weak and bundle.current is not None and bundle.current.state is RoundState.ACCEPTED
    return rig, bundle


def gone(site: Weak, rig: Rig) -> None:
    """The batch system says that the batch job is over."""
    for batch_id, job in site.batch.items():
        site.batch[batch_id] = replace(job, state=BatchState.OVER)
    rig.run(site.respond, 30, 2.0)


def test_manifest_and_status_say_weak_and_a_site_with_link_says_nothing() -> None:
    site = Weak()
    rig, bundle = weak_rig(site)
    assert '"fencing": "weak"' in render_manifest(rig.state, bundle, rig.limits)
    now = Now("2026-01-01T00:00:00+00:00", rig.now_s)
    document = render_status(rig.state, rig.memory, rig.limits, (), now, version="1")
    assert "weak fencing" in render_text(document)
    plain = render_status(rig.state, rig.memory, make_limits(), (), now, version="1")
    assert "weak fencing" not in render_text(plain)


def test_the_pilot_marks_waits_and_looks() -> None:
    site = Weak()
    rig, bundle = weak_rig(site)
    for batch_id, job in site.batch.items():
        site.batch[batch_id] = replace(job, state=BatchState.OVER)
    marked_s = looked_s = None
    for _ in range(400):
        for action in rig.tick(1.0):
            if isinstance(action, a.MakeMark):
                marked_s = rig.now_s
            if isinstance(action, a.MakeClaim):
                looked_s = looked_s or rig.now_s
            outcome = site.respond(action)
            if outcome is not None:
                rig.answer(action, outcome)
    assert marked_s is not None and looked_s is not None
    assert looked_s >= marked_s + VISIBLE_S
    assert bundle.rounds[1].state is RoundState.VOID


def test_a_batch_jobs_mark_that_the_look_shows_is_lost_and_its_end_is_waited_for() -> None:
    site = Weak()
    rig, bundle = weak_rig(site)
    (batch_id,) = site.batch
    site.batch[batch_id] = replace(site.batch[batch_id], state=BatchState.OVER)
    while not site.of(a.MakeMark):
        rig.run(site.respond, 1, 1.0)
    site.marks[1] = mark(1, batch_id)
    rig.run(site.respond, 20, 1.0)
    assert bundle.rounds[1].claim == mark(1, batch_id)
    assert not bundle.rounds[1].pilot_owns


def test_a_mark_of_an_earlier_run_is_no_claim() -> None:
    site = Weak()
    rig, bundle = weak_rig(site)
    site.marks[1] = PILOTS
    again = rig.restart()
    found = again.state.bundles[bundle.bundle_id]
    for _ in range(12):
        for action in again.tick(1.0):
            outcome = site.respond(action)
            if outcome is not None:
                again.answer(action, outcome)
        assert not found.rounds[1].pilot_owns
        if site.of(a.MakeMark):
            break
    assert site.of(a.MakeMark)
    again.run(site.respond, 30, 2.0)
    assert found.rounds[1].state is RoundState.VOID


def test_nothing_is_closed_before_every_mark_shows() -> None:
    site = Weak()
    rig, bundle = weak_rig(site)
    (first,) = site.batch
    site.marks[1] = mark(1, first)
    rig.run(site.respond, 5, 2.0)
    assert bundle.rounds[1].owners == (first,)
    site.batch[first] = replace(site.batch[first], state=BatchState.OVER)
    while first not in bundle.rounds[1].ended:
        rig.run(site.respond, 1, 1.0)
    rig.run(site.respond, 4, 1.0)
    assert bundle.state is BundleState.OPEN
    other = BatchId("99.sim")
    site.batch[other] = replace(site.batch[first], batch_id=other, state=BatchState.RUNNING)
    site.marks[1] = mark(1, first, other)
    rig.run(site.respond, 60, 2.0)
    assert set(bundle.rounds[1].owners) == {first, other}
    assert bundle.state is BundleState.OPEN
    site.batch[other] = replace(site.batch[other], state=BatchState.OVER)
    rig.run(site.respond, 60, 2.0)
    assert bundle.state is not BundleState.OPEN


def test_a_bundle_keeps_the_fencing_with_which_it_was_planned() -> None:
    site = Weak()
    rig, bundle = weak_rig(site)
    again = rig.restart()
    again.limits = make_limits()
    found = again.state.bundles[bundle.bundle_id]
    assert found.weak
    assert '"fencing": "weak"' in render_manifest(again.state, found, again.limits)


def test_a_look_without_an_answer_is_no_look() -> None:
    site = Weak()
    rig, bundle = weak_rig(site)
    plain = site.respond
    site.respond = lambda action: (  # type: ignore[method-assign]
        Unavailable("no answer") if isinstance(action, a.MakeClaim) else plain(action)
    )
    gone(site, rig)
    rig.run(site.respond, 60, 2.0)
    assert bundle.rounds[1].state is RoundState.ACCEPTED
