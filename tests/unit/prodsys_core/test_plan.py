"""Sending order, settling, merge groups, counts."""

from datetime import UTC, datetime, timedelta

import pytest

from prodsys_core.plan import (
    GroupCount,
    Homeless,
    MergeInput,
    MergeLimits,
    QueueUse,
    Sendable,
    adopt,
    backoff_s,
    crosscheck_problems,
    has_stragglers,
    place_runs,
    plan_batches,
    plan_groups,
    send_order,
    settle,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def test_priority_then_stragglers_then_events_then_age():
    steps = [
        Sendable(1, "L", 2000, 10),
        Sendable(2, "L", 2000, None),
        Sendable(3, "L", 5000, None),
        Sendable(4, "L", 2000, 99),
        Sendable(5, "L", 2000, 99),
        Sendable(6, "L", 2000, 5, straggler=True),
    ]
    (batch,) = plan_batches(steps, {"L": 100}, 200)
    assert batch.step_ids == (3, 6, 4, 5, 1, 2)


def test_first_site_with_room_takes_a_whole_run_and_none_without():
    both, one = (("A", "LA"), ("B", "LB")), (("A", "LA"),)
    runs = [Homeless(1, 5, both), Homeless(2, 3, one), Homeless(3, 2, both), Homeless(4, 1, both)]
    assert place_runs(runs, {"LA": 2, "LB": 2}) == {1: "A", 3: "B"}
    assert place_runs(runs, {"LA": 9}) == {1: "A", 2: "A", 3: "A"}
    assert place_runs([Homeless(1, 5, ())], {"LA": 9}) == {}


def test_every_eighth_is_the_shortest_that_is_left():
    steps = [Sendable(n, "L", 1, 1000 - n) for n in range(1, 21)]
    order = [step.step_id for step in send_order(steps)]
    assert order == [1, 2, 3, 4, 5, 6, 7, 20, 8, 9, 10, 11, 12, 13, 14, 19, 15, 16, 17, 18]


def test_a_run_has_stragglers_when_a_tenth_of_it_is_left():
    found = [has_stragglers(n, left) for n, left in ((100, 10), (100, 11), (100, 0), (3, 1), (1, 1), (3, 2))]
    assert found == [True, False, False, True, False, False]


def test_batches_hold_one_queue_and_a_chunk_at_most():
    steps = [Sendable(n, "L" if n % 2 else "S", 1, n) for n in range(1, 8)]
    plans = plan_batches(steps, {"L": 100, "S": 100}, 3)
    assert [(plan.panda_queue, plan.step_ids) for plan in plans] == [
        ("L", (7, 5, 3)),
        ("L", (1,)),
        ("S", (6, 4, 2)),
    ]


def test_a_queue_gets_no_more_than_it_has_room_for():
    steps = [Sendable(n, "L", 1, n) for n in range(1, 8)]
    assert sum(len(plan.step_ids) for plan in plan_batches(steps, {"L": 2}, 200)) == 2
    assert sum(len(plan.step_ids) for plan in plan_batches(steps, {"S": 2}, 200)) == 0


@pytest.mark.parametrize(
    ("use", "room"),
    [
        (QueueUse(), 10),
        (QueueUse(waiting=4, running=50), 6),
        (QueueUse(waiting=12), 0),
        (QueueUse(waiting=12, ended=40), 28),
        (QueueUse(waiting=0, running=95, ended=40), 5),
    ],
)
def test_no_more_waits_than_a_queue_ends_in_its_days(use, room):
    assert use.room(active_max=100, waiting_min=10) == room


def test_list_is_final_only_when_it_stayed_the_same_long_enough():
    first = settle(None, (1, 2), 2, NOW, 900)
    assert first is not None
    assert settle(first, (1, 2), 2, NOW + timedelta(seconds=899), 900) == first
    assert settle(first, (2, 1), 2, NOW + timedelta(seconds=900), 900) is None


def test_new_job_in_the_list_restarts_the_wait():
    first = settle(None, (1,), 1, NOW, 900)
    second = settle(first, (1, 2), 2, NOW + timedelta(seconds=901), 900)
    assert second.since == NOW + timedelta(seconds=901)


def test_one_listing_is_never_final_even_without_wait():
    assert settle(None, (1,), 1, NOW, 0) is not None


def test_a_list_with_an_id_that_shows_no_record_is_not_final():
    first = settle(None, (1, 2), 2, NOW, 900)
    assert settle(first, (1, 2), 1, NOW + timedelta(seconds=900), 900) == first


def test_adopt_keeps_the_lower_of_two_and_ignores_strangers():
    assert adopt(["a", "b"], [(9, "a"), (7, "a"), (8, "x")]) == ({"a": 7}, (9,))


def inputs(*sizes, events=10):
    return [MergeInput(n, n, f"f{n}", size, events) for n, size in enumerate(sizes)]


def sizes(groups):
    return [[item.size for item in group] for group in groups]


def test_group_is_closed_before_it_would_pass_its_size():
    assert sizes(plan_groups(inputs(4, 4, 4), MergeLimits(8), None)) == [[4, 4], [4]]


def test_file_larger_than_the_limit_has_a_group_of_its_own():
    assert sizes(plan_groups(inputs(9, 1, 9), MergeLimits(8), None)) == [[9], [1], [9]]


def test_groups_are_cut_by_number_and_events_too():
    assert sizes(plan_groups(inputs(1, 1, 1), MergeLimits(100, files_max=2), None)) == [[1, 1], [1]]
    assert sizes(plan_groups(inputs(1, 1, 1), MergeLimits(100, events_max=25), None)) == [[1, 1], [1]]


def test_placeholders_are_left_out_and_only_they():
    assert sizes(plan_groups(inputs(33, 32, 33, 34), MergeLimits(100), 33)) == [[32, 34]]
    assert plan_groups(inputs(33, 33), MergeLimits(100), 33) == ()


def test_order_of_inputs_does_not_change_the_plan():
    items = inputs(1, 2, 3, 4)
    assert plan_groups(items[::-1], MergeLimits(5), None) == plan_groups(items, MergeLimits(5), None)


@pytest.mark.parametrize(
    ("expected", "chunks", "merged", "agrees"),
    [(10, 10, 10, True), (None, 10, 10, True), (10, 9, 9, False), (10, 10, 9, False), (None, 10, 9, False)],
)
def test_counts_agree_only_when_all_known_ones_do(expected, chunks, merged, agrees):
    count = GroupCount("f", "events", expected, chunks, merged)
    assert count.agrees is agrees
    assert bool(crosscheck_problems([count])) is not agrees


def test_backoff_doubles_to_its_limit():
    assert [backoff_s(n, 5, 60) for n in (1, 2, 3, 4, 5, 10_000)] == [5, 10, 20, 40, 60, 60]
