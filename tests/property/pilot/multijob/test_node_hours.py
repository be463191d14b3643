"""Node-hours are counted exactly once, in whatever order claim, end and closing become known; no cap is ever passed."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from rig import Rig, Site, make_job, make_limits

from pilot.multijob.apply import apply, replay
from pilot.multijob.codec import decode, encode
from pilot.multijob.events import (
    BatchJobAccepted,
    BatchJobEnded,
    BundleClosed,
    BundlePlanned,
    BundlePrepared,
    BundleSettled,
    ClaimSeen,
    JobFetched,
    JobReturned,
    RoundIntended,
    RoundVoided,
    RoundWon,
)
from pilot.multijob.model import BundleState, NodeUse, RoundState, State, WalltimePolicy
from pilot.multijob.nodehours import HOUR_S, account
from pilot.ports import BatchId, BatchState, BundleId, Claim, PandaId

START = datetime(2026, 1, 1, 22, tzinfo=UTC)
WALLTIME_S, NODES = 3600, 2
MOST_S = float(WALLTIME_S * NODES)
ONE, TWO = BatchId("1.sim"), BatchId("2.sim")


class Orders(RuleBasedStateMachine):
    """One bundle after the other, each with any possible order of what becomes known of it."""

    def __init__(self) -> None:
        super().__init__()
        self.state, self.journal = State(), []
        self.at_s, self.serial = 0.0, 0
        self.used_s, self.bundle_id = 0.0, BundleId("")
        self.claimed_at: float | None = None
        self.ended_at: dict[BatchId, tuple[float, int | None]] = {}
        for number in range(1, NODES + 1):
            self.record(JobFetched(self.at(), "long", make_job(number)))

    def at(self) -> str:
        return (START + timedelta(seconds=self.at_s)).isoformat()

    def record(self, event: Any) -> None:
        self.journal.append(encode(event))
        apply(self.state, event)

    @property
    def bundle(self) -> Any:
        return self.state.bundles.get(self.bundle_id)

    @property
    def open_round(self) -> Any:
        found = self.bundle
        current = found.current if found is not None and found.state is BundleState.OPEN else None
        return current if current is not None and current.state is not RoundState.VOID else None

    @rule(seconds=st.integers(1, 20000))
    def time_passes(self, seconds: int) -> None:
        self.at_s += seconds

    @precondition(lambda self: self.bundle is None or self.bundle.state is BundleState.SETTLED)
    @rule()
    def plan(self) -> None:
        self.serial += 1
        self.bundle_id = BundleId(f"a{self.serial:08d}".translate(str.maketrans("0189", "abcd")))
        nodes = tuple((PandaId(number),) for number in range(1, NODES + 1))
        self.record(BundlePlanned(self.at(), self.bundle_id, "long", nodes, WALLTIME_S))
        self.record(BundlePrepared(self.at(), self.bundle_id))
        self.claimed_at, self.ended_at = None, {}

    @precondition(
        lambda self: (self.bundle is not None and self.bundle.state is BundleState.OPEN)
        and (self.open_round is None)
    )
    @rule()
    def intend(self) -> None:
        current = self.bundle.current
        self.record(RoundIntended(self.at(), self.bundle_id, 1 if current is None else current.number + 1))
        self.claimed_at, self.ended_at = None, {}

    @precondition(lambda self: self.open_round is not None and not self.open_round.pilot_owns)
    @rule(batch_id=st.sampled_from([ONE, TWO]))
    def accept(self, batch_id: BatchId) -> None:
        self.record(BatchJobAccepted(self.at(), self.bundle_id, self.open_round.number, batch_id, "qsub"))

    @precondition(
        lambda self: (self.open_round is not None and not self.open_round.pilot_owns)
        and (self.open_round.claim is None)
    )
    @rule(ago_s=st.integers(-5000, 5000), batch_id=st.sampled_from([ONE, TWO]))
    def claim(self, ago_s: int, batch_id: BatchId) -> None:
        at_s = self.at_s - ago_s
        utc = (START + timedelta(seconds=at_s)).isoformat()
        claim = Claim("gate", self.open_round.number, batch_id, "nid", 1, "n", utc)
        self.record(ClaimSeen(self.at(), self.bundle_id, self.open_round.number, claim))
        self.claimed_at = at_s

    @precondition(lambda self: self.open_round is not None and self.open_round.batch_ids)
    @rule(data=st.data(), told_s=st.none() | st.integers(0, WALLTIME_S), over=st.booleans())
    def end(self, data: Any, told_s: int | None, over: bool) -> None:
        left = [i for i in self.open_round.batch_ids if i not in self.open_round.ended]
        if left:
            batch_id = data.draw(st.sampled_from(left))
            how, used = ("over", told_s) if over else ("absent", None)
            self.record(
                BatchJobEnded(self.at(), self.bundle_id, self.open_round.number, batch_id, how, used_s=used)
            )
            self.ended_at[batch_id] = self.at_s, used

    @precondition(
        lambda self: (self.open_round is not None and self.open_round.claim is None)
        and (not self.open_round.pilot_owns)
    )
    @rule()
    def give_up(self) -> None:
        self.record(RoundWon(self.at(), self.bundle_id, self.open_round.number))
        self.record(RoundVoided(self.at(), self.bundle_id, self.open_round.number))

    @precondition(
        lambda self: (self.open_round is not None and self.open_round.claim is not None)
        and (self.open_round.batch_job_over)
    )
    @rule()
    def close(self) -> None:
        current, owner = self.open_round, self.open_round.claim.batch_id
        intended_s = (datetime.fromisoformat(current.intended_at) - START).total_seconds()
        ended_s, told_s = self.ended_at[owner]
        began_s = max(intended_s, min(self.claimed_at or 0.0, ended_s))
        lasted_s = min(max(0.0, ended_s - began_s), WALLTIME_S) if told_s is None else told_s
        self.used_s += NODES * lasted_s
        self.record(BundleClosed(self.at(), self.bundle_id))

    @precondition(
        lambda self: (
            (self.bundle is not None) and (self.bundle.state is BundleState.CLOSED or self.open_round is None)
        )
        and (self.bundle.state is not BundleState.SETTLED)
    )
    @rule()
    def settle(self) -> None:
        for panda_id in self.bundle.job_keys:
            self.record(JobReturned(self.at(), panda_id, "not started"))
        self.record(BundleSettled(self.at(), self.bundle_id))

    @invariant()
    def each_bundle_counts_exactly_once(self) -> None:
        known = account(self.state, "long", self.at()[:10])
        is_open = self.bundle is not None and self.bundle.state is BundleState.OPEN
        assert known.committed_s == (MOST_S if is_open else 0.0)
        assert abs(known.used_s - self.used_s) < 0.01
        days_s = self.state.uses["long"].days_s.values() if "long" in self.state.uses else ()
        assert len(days_s) == 31 or abs(sum(days_s) - self.used_s) < 0.01

    @invariant()
    def a_restart_counts_the_same(self) -> None:
        assert replay(decode(record) for record in self.journal).uses == self.state.uses


def test_each_order_of_claim_end_and_closing_counts_exactly_once() -> None:
    many = settings(max_examples=60, stateful_step_count=40, deadline=None)
    run_state_machine_as_test(Orders, settings=many)


@pytest.mark.parametrize(("told_s", "used_s"), [(None, 600.0), (500, 500.0)])
def test_a_batch_job_whose_end_is_known_before_its_closing_counts_until_its_end(
    told_s: int | None, used_s: float
) -> None:
    one = Orders()
    one.plan()
    one.intend()
    one.accept(ONE)
    one.time_passes(50)
    one.claim(0, ONE)
    one.time_passes(600)
    how = "absent" if told_s is None else "over"
    one.record(BatchJobEnded(one.at(), one.bundle_id, 1, ONE, how, used_s=told_s))
    one.time_passes(7000)
    one.record(BundleClosed(one.at(), one.bundle_id))
    assert one.state.uses["long"].total_s == NODES * used_s


def at_most(rig: Rig, day: str | None) -> float:
    """Node-seconds that are used and that open bundles may still use."""
    use = rig.state.uses.get("long", NodeUse())
    used_s = use.total_s if day is None else use.days_s.get(day, 0.0)
    waiting = [b for b in rig.state.bundles.values() if b.state in (BundleState.PLANNED, BundleState.OPEN)]
    return used_s + sum(
        len(b.nodes) * b.walltime_s for b in waiting if day is None or b.planned_at.startswith(day)
    )


@settings(max_examples=25, deadline=None)
@given(
    cap_h=st.floats(3.0, 30.0), day_h=st.floats(1.0, 8.0), chances=st.lists(st.integers(0, 5), min_size=150)
)
@example(cap_h=3.0, day_h=8.0, chances=[0] * 150)  # nothing ever starts: all that counts waits
def test_no_order_of_starts_and_ends_passes_a_cap(cap_h: float, day_h: float, chances: list[int]) -> None:
    limits = make_limits()
    queue = replace(
        limits.queues["long"],
        node_hours_max=cap_h,
        node_hours_day_max=day_h,
        fill_wait_s=0.0,
        wanted=8,
        queued_max=8,
        walltime=WalltimePolicy(1800, 3600, 1.0, 0.01, 30.0),
    )
    limits = replace(limits, queues={"long": queue})
    site, rig = Site([make_job(number) for number in range(1, 400)]), Rig(limits)
    for chance in chances[:150]:
        rig.run(site.respond, 1, 300.0)
        for batch_id, job in list(site.batch.items()):
            if job.state is BatchState.WAITING and chance > 2:
                site.start(batch_id)
            elif job.state is BatchState.RUNNING and chance > 3:
                site.end(batch_id)
        day = (datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=rig.now_s)).isoformat()[:10]
        assert at_most(rig, None) <= cap_h * HOUR_S + 0.01
        assert at_most(rig, day) <= day_h * HOUR_S + 0.01
