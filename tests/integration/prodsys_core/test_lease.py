"""A tick that lasts longer than its lease: renewed while it works; once lost, nothing more is changed."""

from datetime import timedelta

from prodsys_core.models import Lease, SendBatch
from prodsys_core.services import sending
from prodsys_core.services.lease import take_lease
from prodsys_core.tick import tick

OTHER = "elsewhere:1:1"


def slow_tick(rig, during_submit):
    """A tick of 5 batches whose every submission takes 50 s of a lease of 120 s."""
    rig.create({274495: [300] * 5})
    rig.set("ready")
    rig.tick()
    rig.set("send")
    rig.at_once(submit_chunk=1)
    now, submit = [rig.now], rig.panda.submit

    def slow(jobs):
        now[0] += timedelta(seconds=50)
        during_submit(now[0])
        return submit(jobs)

    rig.panda.submit = slow
    return tick(rig.config, rig.panda, rig.now, lambda: now[0])


def test_long_tick_keeps_its_lease(rig):
    seen = []
    report = slow_tick(rig, lambda now: seen.append(take_lease(OTHER, now, 120)))
    assert report.counts["sent"] == 5
    assert OTHER not in seen
    assert None not in seen


def test_tick_that_lost_its_lease_sends_nothing_more(rig):
    def steal(now):
        Lease.objects.update(owner=OTHER, until=now + timedelta(seconds=600))

    report = slow_tick(rig, steal)
    assert report.held_by == OTHER
    assert len(rig.panda.jobs) == 1
    assert [batch.status for batch in SendBatch.objects.all()] == ["made"] * 5  # the new owner looks for them


def test_the_lease_tells_when_the_last_tick_was_and_what_it_did(rig, monkeypatch):
    rig.create({274495: [300]})
    rig.set("ready")
    rig.tick()
    lease = Lease.objects.get()
    assert (lease.ticked_at, lease.last_tick) == (rig.now, "generated: 1")

    def broken(*_):
        raise ValueError("a bug")

    monkeypatch.setattr(sending, "steps_stage", broken)
    tick(rig.config, rig.panda, rig.now + timedelta(seconds=30))
    lease = Lease.objects.get()
    assert (lease.ticked_at, lease.last_tick) == (rig.now + timedelta(seconds=30), "staged failed")
