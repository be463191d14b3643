"""Node-hour caps: what holds the next bundle, what `status` and `why` say, which alarm a person gets."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import pytest
from rig import Rig, Site, make_job, make_limits

from pilot.multijob.apply import apply
from pilot.multijob.events import (
    BatchJobAccepted,
    BatchJobEnded,
    BundleClosed,
    BundlePlanned,
    BundlePrepared,
    ClaimSeen,
    JobFetched,
    RoundIntended,
)
from pilot.multijob.model import Bundle, Limits, NodeUse, State
from pilot.multijob.nodehours import HOUR_S
from pilot.multijob.recognise import Now
from pilot.ports import BatchId, BundleId, Claim, PandaId
from pilot.rotation.caps import held_by_caps, note_caps, shown
from pilot.rotation.why import why

DAY = "2026-01-01T12:00:00+00:00"


def with_caps(day_h: float | None, all_h: float | None) -> Limits:
    limits = make_limits()
    queue = replace(
        limits.queues["long"],
        node_hours_day_max=day_h,
        node_hours_max=all_h,
        fill_wait_s=0.0,
        wanted=20,
        queued_max=20,
    )
    return replace(limits, queues={"long": queue})


def used(total_h: float, today_h: float, open_h: float) -> State:
    state = State()
    state.uses["long"] = NodeUse(total_h * HOUR_S, {"2026-01-01": today_h * HOUR_S})
    if open_h:
        nodes = ((PandaId(1),),)
        state.bundles[BundleId("a")] = Bundle(BundleId("a"), "long", DAY, nodes, int(open_h * HOUR_S))
    return state


@pytest.mark.parametrize(
    ("day_h", "all_h", "total_h", "today_h", "open_h", "need_h", "held"),
    [
        (None, None, 1e6, 1e6, 5, 1, None),
        (10, None, 50, 9, 0, 1, None),
        (10, None, 50, 9.1, 0, 1, "cap of this UTC day: 9.10 node-hours used and 0.00 committed of 10"),
        (10, None, 50, 5, 4.5, 1, "cap of this UTC day: 5.00 node-hours used and 4.50 committed of 10"),
        (None, 10, 9, 0, 0, 1, None),
        (None, 10, 5, 0, 4.5, 1, "cap of all node-hours: 5.00 node-hours used and 4.50 committed of 10"),
        (10, 10, 9.5, 0, 0, 1, "cap of all node-hours: 9.50 node-hours used"),
    ],
)
def test_the_table_of_caps(
    day_h: float | None,
    all_h: float | None,
    total_h: float,
    today_h: float,
    open_h: float,
    need_h: float,
    held: str | None,
) -> None:
    queue = with_caps(day_h, all_h).queues["long"]
    found = held_by_caps(used(total_h, today_h, open_h), queue, DAY, 4, lambda: need_h * HOUR_S)
    assert found is None if held is None else str(found).startswith(held)


def test_yesterdays_bundles_do_not_count_today() -> None:
    queue = with_caps(10, None).queues["long"]
    state = used(50, 10, 2)
    assert held_by_caps(state, queue, DAY, 4, lambda: HOUR_S) is not None
    assert held_by_caps(state, queue, "2026-01-02T00:00:01+00:00", 4, lambda: HOUR_S) is None


def test_a_queue_at_its_cap_makes_no_bundle_fetches_nothing_and_says_why() -> None:
    # A bundle of two nodes takes at least 60 s of each.
    rig = Rig(with_caps(None, 0.07))
    site = Site([make_job(number) for number in range(1, 41)])
    rig.run(site.respond, 10, 100.0)
    assert rig.state.totals["long"].bundles == 2
    assert len(site.waiting) > 20
    lines = why(rig.state, rig.memory, "long", Now(DAY, rig.now_s), rig.limits)
    assert all("cap of all node-hours: 0.00 node-hours used and 0.07 committed of 0.07" in x for x in lines)
    assert shown(rig.state, rig.limits.queues["long"], DAY)["left"] == pytest.approx(0.0, abs=0.01)


def test_a_bundle_that_took_less_gives_back_the_rest() -> None:
    rig = Rig(with_caps(None, 0.07))
    site = Site([make_job(number) for number in range(1, 41)])
    rig.run(site.respond, 10, 100.0)
    for batch_id in list(site.batch):
        site.end(batch_id)  # over before a gate ran: no use at all
    rig.run(site.respond, 40, 100.0)
    assert shown(rig.state, rig.limits.queues["long"], DAY)["used"] == 0.0


@pytest.mark.parametrize(
    ("day_h", "all_h", "total_h", "open_h", "alarm"),
    [
        (None, 10, 10, 0, True),
        (None, 10, 9, 0, False),
        (None, 10, 9, 1, False),
        (0.001, None, 0, 0, True),
        (10, None, 0, 0, False),
    ],
)
def test_an_alarm_where_only_a_person_can_help(
    day_h: float | None, all_h: float | None, total_h: float, open_h: float, alarm: bool
) -> None:
    rig, queue = Rig(), with_caps(day_h, all_h).queues["long"]
    note_caps(used(total_h, 0, open_h), rig.memory, queue, DAY, 1.0)
    assert ("node-hours-used-up-long" in rig.memory.alarms) is alarm
    note_caps(State(), rig.memory, replace(queue, node_hours_day_max=100.0), DAY, 2.0)
    assert not rig.memory.alarms


@pytest.mark.parametrize("order", list(permutations(("accepted", "claim", "end"))), ids="-".join)
@pytest.mark.parametrize("told_s", [1200, None])
def test_the_use_of_a_bundle_is_the_same_in_every_order(order: tuple[str, ...], told_s: int | None) -> None:
    """Claimed 600 s after its Intent; its end seen at 1800 s; closed an hour later."""
    rig, bundle_id, batch_id = Rig(), BundleId("a"), BatchId("1.sim")
    at = {s: f"2026-01-01T{12 + s // 3600:02d}:{s % 3600 // 60:02d}:00+00:00" for s in (0, 600, 1800, 5400)}
    claim = Claim("gate", 1, batch_id, "nid", 1, "n", at[600])
    events = {
        "accepted": BatchJobAccepted(at[1800], bundle_id, 1, batch_id, "name"),
        "claim": ClaimSeen(at[1800], bundle_id, 1, claim),
        "end": BatchJobEnded(at[1800], bundle_id, 1, batch_id, "over", used_s=told_s),
    }
    for event in (
        JobFetched(at[0], "long", make_job(1)),
        BundlePlanned(at[0], bundle_id, "long", ((PandaId(1),),), 7200),
        BundlePrepared(at[0], bundle_id),
        RoundIntended(at[0], bundle_id, 1),
        *(events[name] for name in order),
        BundleClosed(at[5400], bundle_id),
    ):
        apply(rig.state, event)
    assert rig.state.uses["long"] == NodeUse(1200.0, {"2026-01-01": 1200.0})
