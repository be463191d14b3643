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
        """State of every lane."""
        now_s = time.monotonic()
        return tuple(
            LaneAge(
                name,
                lane.queue.qsize(),
                max((now_s - start for start in list(lane.under_way.values())), default=None),
                lane.last_failure,
            )
            for name, lane in self._lanes.items()
        )

    def wait(self, timeout_s: float) -> None:
        """Sleep until an answer is there or the time is over."""
        with self._came:
            if not self._answers:
                self._came.wait(timeout_s)

    def wake(self) -> None:
        """End a `wait` early (a signal, a control request)."""
        with self._came:
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
                lane.last_failure = outcome.reason[:200]
            else:
                lane.last_failure = ""
            answer = Answer(ticket, action, outcome, asked_s, time.monotonic() - start_s)
            with self._came:
                self._answers.append(answer)
                self._came.notify_all()


def _call(route: Route, action: Any) -> Any:
    try:
        return route.call()
    except Exception as error:
        LOG.exception("lane %s: %s raised", route.lane, type(action).__name__)
        return Broken(f"{type(error).__name__}: {error}"[:500])
