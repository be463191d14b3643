"""Starts that all queues share: whose turn it is, limits of the whole site, pauses, times of no start."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rig import Rig, Site, good_end, make_job, make_limits

from pilot.multijob import actions as a
from pilot.multijob.events import BundlePlanned
from pilot.multijob.model import Limits, QueueSpec
from pilot.multijob.recognise import Now
from pilot.ports import BatchId, BatchJobSeen, BatchState, BundleId
from pilot.rotation.turns import pause_after, pick_turn, render_credits
from pilot.rotation.why import why
from pilot.windows import parse_window


def queue(name: str, share: float = 1.0, **changes: Any) -> QueueSpec:
    plain = make_limits().queues["long"]
    return replace(plain, name=name, panda_queue=name, share=share, fill_wait_s=0.0, **changes)


def with_queues(*queues: QueueSpec, **changes: Any) -> Limits:
    return replace(make_limits(), queues={item.name: item for item in queues}, **changes)


# (shares, cost of a bundle of each, who wants a turn in each step, whose turn it is)
TABLE = [
    ("equal shares take turns", {"a": 1, "b": 1}, {"a": 10, "b": 10}, ["ab"] * 6, "ababab"),
    ("three to one", {"a": 3, "b": 1}, {"a": 10, "b": 10}, ["ab"] * 8, "abaaabaa"),
    ("a large bundle waits for its credit", {"a": 1, "b": 1}, {"a": 30, "b": 10}, ["ab"] * 8, "abbbabbb"),
    ("who is alone takes all and owes nothing", {"a": 1, "b": 1}, {"a": 10, "b": 10}, ["a"] * 5, "aaaaa"),
    (
        "nothing is saved up while nothing is wanted",
        {"a": 1, "b": 1},
        {"a": 10, "b": 10},
        ["a", "a", "a", "a", "ab", "ab", "ab", "ab"],
        "aaaaabab",
    ),
    (
        "what is owed is carried over",
        {"a": 1, "b": 1},
        {"a": 40, "b": 10},
        ["ab", "a", "a", "ab", "ab", "ab", "ab", "ab"],
        "aaabbbba",
    ),
    (
        "three queues",
        {"a": 2, "b": 1, "c": 1},
        {"a": 10, "b": 10, "c": 10},
        ["abc"] * 8,
        "abcaabca",
    ),
]


@pytest.mark.parametrize(("story", "shares", "costs", "wanted", "turns"), TABLE, ids=[r[0] for r in TABLE])
def test_the_table_of_turns(
    story: str, shares: dict[str, float], costs: dict[str, float], wanted: list[str], turns: str
) -> None:
    deficits: dict[str, float] = {}
    had = ""
    for names in wanted:
        ready = [queue(name, shares[name]) for name in names]
        turn = pick_turn(deficits, ready)
        for name, credit in render_credits(turn, ready, costs[turn.name]):
            deficits[name] = deficits.get(name, 0.0) + credit
        had += turn.name
    assert had == turns


@settings(max_examples=60, deadline=None)
@given(
    shares=st.lists(st.floats(0.1, 10.0), min_size=2, max_size=4),
    costs=st.lists(st.integers(1, 100), min_size=4, max_size=4),
    steps=st.integers(1, 300),
)
def test_no_queue_is_ever_owed_more_than_the_largest_bundles(
    shares: list[float], costs: list[int], steps: int
) -> None:
    """So that each gets its share of what was given, but for so much."""
    queues = [queue(str(number), share) for number, share in enumerate(shares)]
    deficits = {item.name: 0.0 for item in queues}
    for _ in range(steps):
        turn = pick_turn(deficits, queues)
        for name, credit in render_credits(turn, queues, costs[int(turn.name)]):
            deficits[name] += credit
        most = len(queues) * max(costs[: len(queues)])
        assert all(abs(deficit) <= most for deficit in deficits.values())
        assert abs(sum(deficits.values())) < 0.1 * steps


def planned(rig: Rig) -> list[str]:
    return [event.queue for event in rig.events if isinstance(event, BundlePlanned)]


def make_jobs(*counts: tuple[str, int]) -> list[Any]:
    jobs, number = [], 0
    for name, count in counts:
        for _ in range(count):
            number += 1
            jobs.append(make_job(number, panda_queue=name))
    return jobs


class Fetching(Site):
    """Gives each queue its own jobs."""

    def respond(self, action: Any) -> Any:
        if not isinstance(action, a.FetchJobs):
            return super().respond(action)
        given = [job for job in self.waiting if job.panda_queue == action.panda_queue][: action.count]
        self.waiting = [job for job in self.waiting if job not in given]
        from pilot.ports import Fetched

        return Fetched(tuple(given))


def test_room_for_one_goes_by_shares_and_a_restart_carries_deficits_over() -> None:
    busy = {"wanted": 9, "queued_max": 9}
    limits = with_queues(queue("a", 3.0, **busy), queue("b", 1.0, **busy), live_max=1)
    site, rig = Fetching(make_jobs(("a", 400), ("b", 400))), Rig(limits)
    order = ""
    for _ in range(12):
        for _ in range(12):
            rig.run(site.respond, 3, 40.0)
            for batch_id, job in list(site.batch.items()):
                if job.state is BatchState.WAITING and site.start(batch_id):
                    tag = BundleId(job.name.partition(".")[0])
                    for panda_id in rig.state.bundles[tag].job_keys:
                        site.line(tag, "job_started", panda_id=panda_id, attempt_nr=1)
                        site.line(tag, "job_ended", **good_end(rig.state.jobs[panda_id].job))
                elif job.state is BatchState.RUNNING:
                    site.end(batch_id)
        order += "".join(planned(rig))
        assert not rig.memory.alarms
        rig = rig.restart()
    assert len(order) > 24
    # But for the start, when both pools were not full.
    share = order[4:].count("a") / len(order[4:])
    assert share == pytest.approx(0.75, abs=0.1)


def test_where_nothing_is_scarce_nobody_owes_anything() -> None:
    limits = with_queues(queue("a", 3.0), queue("b"))
    site, rig = Fetching(make_jobs(("a", 40), ("b", 40))), Rig(limits)
    rig.run(site.respond, 8, 30.0)
    assert set(planned(rig)) == {"a", "b"}
    assert not rig.state.deficits


def test_no_more_pilots_live_than_all_queues_may_have() -> None:
    limits = with_queues(queue("a", wanted=5, queued_max=5), queue("b", wanted=5, queued_max=5), live_max=3)
    site, rig = Fetching(make_jobs(("a", 80), ("b", 80))), Rig(limits)
    rig.run(site.respond, 20, 30.0)
    assert len(planned(rig)) == 3
    text = why(rig.state, rig.memory, "a", Now("2026-01-01T12:00:00+00:00", rig.now_s), limits)[1]
    assert "3 pilots live in all, at most 3" in text


def test_the_users_other_waiting_jobs_count_and_are_never_touched() -> None:
    limits = with_queues(queue("a", wanted=9, queued_max=9), queued_max=5, user="me")
    site, rig = Fetching(make_jobs(("a", 80))), Rig(limits)
    others = [
        ("901.sim", "me@edge", BatchState.WAITING),
        ("902.sim", "me@edge", BatchState.WAITING),
        ("903.sim", "me@edge", BatchState.RUNNING),
        ("904.sim", "you@edge", BatchState.WAITING),
    ]
    for batch_id, owner, state in others:
        site.batch[BatchId(batch_id)] = BatchJobSeen(BatchId(batch_id), "mine", state, owner=owner)
    seen = rig.run(site.respond, 20, 30.0)
    assert len(planned(rig)) == 3
    assert rig.memory.others_waiting == 2
    assert not [action for action in seen if isinstance(action, a.CancelBatchJob)]
    text = why(rig.state, rig.memory, "a", Now("2026-01-01T12:00:00+00:00", rig.now_s), limits)[1]
    assert "5 batch jobs of this user wait (2 not ours), at most 5" in text


def test_a_pause_lies_between_two_starts_of_all_queues() -> None:
    limits = with_queues(queue("a"), queue("b"), spacing_s=50.0, jitter=0.5)
    site, rig = Fetching(make_jobs(("a", 40), ("b", 40))), Rig(limits)
    starts = []
    for _ in range(200):
        before = len(planned(rig))
        rig.run(site.respond, 1, 1.0)
        starts += [rig.now_s] * (len(planned(rig)) - before)
    assert len(starts) == 4
    assert all(50.0 <= later - sooner <= 77.0 for sooner, later in itertools.pairwise(starts))


def test_chance_lengthens_a_pause_by_at_most_its_part() -> None:
    limits = replace(make_limits(), spacing_s=10.0, jitter=0.5)
    pauses = {pause_after(BundleId(f"a{number:08d}"), limits) for number in range(100)}
    assert len(pauses) == 100
    assert 10.0 <= min(pauses) < 11.0 and 14.0 < max(pauses) <= 15.0


def test_nothing_is_fetched_or_submitted_in_a_time_of_no_start() -> None:
    limits = with_queues(queue("a", no_start=(parse_window("00:00-01:00"),)))
    site, rig = Fetching(make_jobs(("a", 40))), Rig(limits)
    rig.run(site.respond, 119, 30.0)
    assert len(site.waiting) == 40 and not planned(rig)
    text = why(rig.state, rig.memory, "a", Now("2026-01-01T00:30:00+00:00", rig.now_s), limits)[1]
    assert "no starts in 00:00-01:00 UTC: until 2026-01-01T01:00" in text
    rig.run(site.respond, 10, 30.0)
    assert planned(rig)
