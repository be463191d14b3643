"""Lanes: asking never blocks, a stuck lane is not a stuck daemon, a port's exception is an answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from pilot.lanes import LaneSpec, Route, ThreadLanes
from pilot.ports import Answer, Broken, Unavailable


def lanes_of(table: dict[str, tuple[str, Callable[[], Any], int]]) -> ThreadLanes:
    def route(action: str) -> Route:
        lane, call, rank = table[action]
        return Route(lane, call, rank)

    names = sorted({lane for lane, _, _ in table.values()})
    return ThreadLanes(tuple(LaneSpec(name) for name in names), route)


def gather(lanes: ThreadLanes, count: int) -> list[Answer]:
    found: list[Answer] = []
    while len(found) < count:
        lanes.wait(10.0)
        found += lanes.answers()
    return found


def test_a_stuck_lane_does_not_stop_the_others() -> None:
    begun, release = threading.Event(), threading.Event()
    lanes = lanes_of(
        {"stuck": ("a", lambda: (begun.set(), release.wait(30)), 0), "quick": ("b", lambda: 7, 0)}
    )
    lanes.ask("stuck")
    begun.wait(30)
    lanes.ask("quick")
    assert gather(lanes, 1)[0].outcome == 7
    ages = {age.lane: age for age in lanes.ages()}
    assert ages["a"].under_way_s is not None
    release.set()
    gather(lanes, 1)
    lanes.close(5.0)


def test_an_exception_of_a_port_is_a_broken_answer_and_the_lane_goes_on() -> None:
    lanes = lanes_of({"bad": ("a", lambda: 1 // 0, 0), "good": ("a", lambda: "ok", 0)})
    lanes.ask("bad")
    lanes.ask("good")
    outcomes = [answer.outcome for answer in gather(lanes, 2)]
    assert isinstance(outcomes[0], Broken)
    assert outcomes[1] == "ok"
    lanes.close(5.0)


def test_the_most_urgent_of_what_waits_comes_first() -> None:
    release = threading.Event()
    done: list[str] = []
    lanes = lanes_of(
        {
            "first": ("a", lambda: release.wait(30), 5),
            "late": ("a", lambda: done.append("late"), 3),
            "urgent": ("a", lambda: done.append("urgent"), 0),
        }
    )
    for action in ("first", "late", "urgent"):
        lanes.ask(action)
    release.set()
    gather(lanes, 3)
    assert done == ["urgent", "late"]
    lanes.close(5.0)


def test_the_last_failure_of_a_lane_is_shown_until_it_works_again() -> None:
    outcomes: list[Any] = [Unavailable("hung"), 1]
    lanes = lanes_of({"x": ("a", lambda: outcomes.pop(0), 0)})
    lanes.ask("x")
    gather(lanes, 1)
    assert lanes.ages()[0].last_failure == "hung"
    lanes.ask("x")
    gather(lanes, 1)
    assert lanes.ages()[0].last_failure == ""
    lanes.close(5.0)


def test_a_wake_before_the_wait_is_not_lost() -> None:
    lanes = lanes_of({"x": ("a", lambda: 1, 0)})
    lanes.wake()
    start_s = time.monotonic()
    lanes.wait(30.0)
    assert time.monotonic() - start_s < 10
    lanes.close(5.0)


def test_a_call_past_its_time_says_so() -> None:
    release, begun = threading.Event(), threading.Event()
    call = lambda: (begun.set(), release.wait(30))  # noqa: E731
    lanes = ThreadLanes((LaneSpec("a", stuck_after_s=0.0),), lambda action: Route("a", call))
    lanes.ask("x")
    begun.wait(10)
    assert "no answer for" in lanes.ages()[0].last_failure
    release.set()
    gather(lanes, 1)
    assert lanes.ages()[0].last_failure == ""
    lanes.close(5.0)
