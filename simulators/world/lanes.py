"""`ports.Lanes` on the virtual clock: each action is carried out by its port at its virtual time, with faults drawn.

Lanes, their parallel workers and the way from an action to a port's call are production's own (`wiring`).
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from pilot.lanes import LaneSpec, Route
from pilot.multijob.actions import (
    AppendEvents,
    CancelBatchJob,
    FetchJobs,
    ReportJobs,
    SubmitBatchJob,
    TakeSnapshot,
)
from pilot.multijob.node.files import Pause
from pilot.ports import Answer, Failure, LaneAge, Ticket

# Carried out by a child process, or by a server that has the request already: they go on without the daemon.
OUTSIDE = (SubmitBatchJob, CancelBatchJob, FetchJobs, ReportJobs, TakeSnapshot)
# Not made of file operations, but they write or read on the same filesystem.
ON_DISK = (AppendEvents, SubmitBatchJob)


@dataclass(frozen=True, slots=True)
class Fate:
    """What becomes of one call: the effect after `before_s`, the answer `after_s` later.

    `effect`: whether it happens. `answer`: what comes back instead of the port's own value (None: that value).
    `hangs`: no answer ever comes and its worker stays busy.
    """

    before_s: float
    after_s: float
    effect: bool = True
    answer: Failure | None = None
    hangs: bool = False


@dataclass(frozen=True, slots=True)
class Disk:
    """How the operations of a call are carried out: `perform` at once, each after `operation_s`.

    `up_at()`: when one that begins now is carried out, later than now in an outage.
    """

    perform: Callable[[Any], Any]
    operation_s: Callable[[Any], float]
    up_at: Callable[[], float]


@dataclass(slots=True)
class _Lane:
    spec: LaneSpec
    queue: list[tuple[int, Ticket, Any, Route, float]] = field(default_factory=list)
    under_way: dict[Ticket, float] = field(default_factory=dict)


class VirtualLanes:
    """Lanes of one run of a daemon. `at(time, call)` sets a timer; `fate_of(action)` draws what becomes of a call.

    `came` is called when an answer is there. After `cut` nothing is answered and nothing new begins; `survives`
    says whether a call under way then still has its effect (the child process of a dead daemon goes on). A call that
    is a sequence of file operations is carried out one by one on `disk`: of it, the operation under way has it.
    """

    def __init__(
        self,
        specs: tuple[LaneSpec, ...],
        route: Callable[[Any], Route],
        now: Callable[[], float],
        at: Callable[[float, Callable[[], None]], None],
        fate_of: Callable[[Any], Fate],
        came: Callable[[], None],
        disk: Disk,
    ) -> None:
        self._lanes = {spec.name: _Lane(spec) for spec in specs}
        self._route, self._now, self._at, self._fate_of, self._came = route, now, at, fate_of, came
        self._disk = disk
        self._serial = 0
        self._answers: list[Answer] = []
        self._own: dict[Ticket, Callable[[], None]] = {}
        self._cut = False
        self._survives = False

    def ask(self, action: Any) -> Ticket:
        """Put an action into its lane."""
        self._serial += 1
        ticket, route = Ticket(self._serial), self._route(action)
        lane = self._lanes[route.lane]
        heapq.heappush(lane.queue, (route.rank, ticket, action, route, self._now()))
        self._begin(lane)
        return ticket

    def answers(self) -> tuple[Answer, ...]:
        """Everything that came since the last call."""
        came, self._answers = self._answers, []
        return tuple(came)

    def ages(self) -> tuple[LaneAge, ...]:
        """State of every lane."""
        return tuple(
            LaneAge(
                name,
                len(lane.queue),
                self._now() - min(lane.under_way.values()) if lane.under_way else None,
            )
            for name, lane in self._lanes.items()
        )

    def cut(self, survives: bool) -> None:
        """The daemon's process is gone.

        What a child process or a request on its way does may still happen (`survives`). A thread's own write does
        not happen later: it was done by now (`survives`) or never is.
        """
        self._cut, self._survives = True, survives
        if survives:
            for effect in list(self._own.values()):
                effect()
        self._own.clear()

    def _begin(self, lane: _Lane) -> None:
        while not self._cut and lane.queue and len(lane.under_way) < lane.spec.workers:
            _, ticket, action, route, asked_s = heapq.heappop(lane.queue)
            lane.under_way[ticket] = self._now()
            fate = self._fate_of(action)
            effect = partial(self._effect, lane, ticket, action, route, asked_s, fate)
            if not isinstance(action, OUTSIDE):
                self._own[ticket] = effect
            self._at(self._now() + fate.before_s, effect)

    def _effect(
        self, lane: _Lane, ticket: Ticket, action: Any, route: Route, asked_s: float, fate: Fate
    ) -> None:
        own = self._own.pop(ticket, None) is not None
        if self._cut and not (self._survives and (own or isinstance(action, OUTSIDE))):
            return
        up_s = self._disk.up_at() if isinstance(action, ON_DISK) else 0.0
        if up_s > self._now():
            again = partial(self._effect, lane, ticket, action, route, asked_s, fate)
            if own:
                self._own[ticket] = again
            self._at(up_s, again)
            return
        outcome: Any = route.call() if fate.effect else fate.answer
        done = partial(self._done, lane, ticket, action, asked_s, fate)
        if isinstance(outcome, Generator):
            self._advance(outcome, ticket, done, None)
        else:
            done(outcome)

    def _advance(
        self,
        steps: Any,
        ticket: Ticket,
        done: Callable[[Any], None],
        reply: Any,
        error: OSError | None = None,
    ) -> None:
        """The next operation of a call, after its while; `done(value)` at its end."""
        if self._cut:
            return
        try:
            operation = steps.send(reply) if error is None else steps.throw(error)
        except StopIteration as stop:
            done(stop.value)
            return
        pause_s = operation.seconds if isinstance(operation, Pause) else self._disk.operation_s(operation)
        self._carry_out_at(self._now() + pause_s, steps, ticket, done, operation)

    def _carry_out_at(self, at_s: float, steps: Any, ticket: Ticket, done: Any, operation: Any) -> None:
        self._own[ticket] = partial(self._carry_out, steps, ticket, done, operation)
        self._at(at_s, self._own[ticket])

    def _carry_out(self, steps: Any, ticket: Ticket, done: Callable[[Any], None], operation: Any) -> None:
        if self._own.pop(ticket, None) is None:
            return
        up_s = self._disk.up_at()
        if up_s > self._now():
            self._carry_out_at(up_s, steps, ticket, done, operation)
            return
        try:
            reply = self._disk.perform(operation)
        except OSError as error:
            self._advance(steps, ticket, done, None, error)
        else:
            self._advance(steps, ticket, done, reply)

    def _done(
        self, lane: _Lane, ticket: Ticket, action: Any, asked_s: float, fate: Fate, outcome: Any
    ) -> None:
        outcome = fate.answer if fate.answer is not None else outcome
        if self._cut or fate.hangs:
            return
        start_s = lane.under_way[ticket]

        def answer() -> None:
            if self._cut:
                return
            del lane.under_way[ticket]
            self._answers.append(Answer(ticket, action, outcome, asked_s, self._now() - start_s))
            self._begin(lane)
            self._came()

        self._at(self._now() + fate.after_s, answer)
