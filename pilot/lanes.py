"""Lanes: worker threads between the decision thread and the ports.

`ask` never blocks; `answers` drains what has come; `wait` sleeps until something comes. A lane runs one call per
worker; a call that hangs shows in `ages` and stops only its own lane. An exception of a port is a bug: it is
logged with its story and answered as `Broken`.
"""

from __future__ import annotations

import itertools
import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pilot.log import escaped
from pilot.ports import Answer, Broken, LaneAge, Refused, Ticket, Unavailable

LOG = logging.getLogger("pilot")


@dataclass(frozen=True, slots=True)
class LaneSpec:
    """Name of a lane, its parallel workers, and the age in seconds from which a call is reported as stuck."""

    name: str
    workers: int = 1
    stuck_after_s: float = 300.0


@dataclass(frozen=True, slots=True)
class Route:
    """Where an action goes: its lane, its rank within it (0 first), and the blocking call."""

    lane: str
    call: Callable[[], Any]
    rank: int = 0


@dataclass(slots=True)
class _Lane:
    spec: LaneSpec
    queue: queue.PriorityQueue[tuple[int, int, Ticket | None, Any, Route | None, float]]
    under_way: dict[int, float] = field(default_factory=dict)
    last_failure: str = ""


class ThreadLanes:
    """Implements `ports.Lanes` with daemon threads. `route` is pure wiring: action -> Route."""

    def __init__(self, specs: tuple[LaneSpec, ...], route: Callable[[Any], Route]) -> None:
        self._route = route
        self._serial = itertools.count(1)
        self._came = threading.Condition()
        self._answers: list[Answer] = []
        self._closing = False
        self._woken = False
        self._lanes: Mapping[str, _Lane] = {spec.name: _Lane(spec, queue.PriorityQueue()) for spec in specs}
        self._threads = [
            threading.Thread(
                target=self._work, args=(lane, number), name=f"lane-{lane.spec.name}-{number}", daemon=True
            )
            for lane in self._lanes.values()
            for number in range(lane.spec.workers)
        ]
        for thread in self._threads:
            thread.start()

    def ask(self, action: Any) -> Ticket:
        """Put an action into its lane."""
        route = self._route(action)
        ticket = Ticket(next(self._serial))
        self._lanes[route.lane].queue.put((route.rank, ticket, ticket, action, route, time.monotonic()))
        return ticket

    def answers(self) -> tuple[Answer, ...]:
        """Everything that came since the last call."""
        with self._came:
            came, self._answers = self._answers, []
        return tuple(came)

    def ages(self) -> tuple[LaneAge, ...]:
        """State of every lane. One that does not answer in time says so as its last failure."""
        now_s = time.monotonic()
        return tuple(_age(lane, now_s) for lane in self._lanes.values())

    def wait(self, timeout_s: float) -> None:
        """Sleep until an answer is there, `wake` was called since the last `wait`, or the time is over."""
        with self._came:
            self._came.wait_for(lambda: self._answers or self._woken, timeout_s)
            self._woken = False

    def wake(self) -> None:
        """End the `wait` that runs, or else the next one (a signal, a control request)."""
        with self._came:
            self._woken = True
            self._came.notify_all()

    def close(self, timeout_s: float) -> None:
        """Let what is under way end for at most `timeout_s`; what waits is dropped."""
        self._closing = True
        for lane in self._lanes.values():
            for _ in range(lane.spec.workers):
                lane.queue.put((-1, 0, None, None, None, 0.0))
        ends = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, ends - time.monotonic()))

    def _work(self, lane: _Lane, number: int) -> None:
        while True:
            _, _, ticket, action, route, asked_s = lane.queue.get()
            if self._closing or ticket is None or route is None:
                return
            start_s = time.monotonic()
            lane.under_way[number] = start_s
            outcome = _call(route, action)
            lane.under_way.pop(number, None)
            if isinstance(outcome, Unavailable | Refused | Broken):
                lane.last_failure = escaped(outcome.reason, at_most=200)
            else:
                lane.last_failure = ""
            answer = Answer(ticket, action, outcome, asked_s, time.monotonic() - start_s)
            with self._came:
                self._answers.append(answer)
                self._came.notify_all()


def _age(lane: _Lane, now_s: float) -> LaneAge:
    starts = list(lane.under_way.values())
    under_way_s = now_s - min(starts) if starts else None
    failure = lane.last_failure
    if under_way_s is not None and under_way_s > lane.spec.stuck_after_s:
        failure = f"no answer for {under_way_s:.0f} s, expected within {lane.spec.stuck_after_s:.0f} s"
    return LaneAge(lane.spec.name, lane.queue.qsize(), under_way_s, failure)


def _call(route: Route, action: Any) -> Any:
    try:
        return route.call()
    except Exception as error:
        LOG.exception("lane %s: %s raised", route.lane, type(action).__name__)
        return Broken(escaped(f"{type(error).__name__}: {error}", at_most=500))
