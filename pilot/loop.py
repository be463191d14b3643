"""The tick driver: observe, step, release, publish; then wait until a lane answers or the next tick is due.

This shell decides nothing. It never blocks on a port: it drains answers and hands actions to lanes.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from pilot.log import escaped
from pilot.multijob.memory import Memory
from pilot.multijob.model import Limits, State
from pilot.multijob.recognise import Now
from pilot.ports import Answer, BundleId, Clock, LaneAge, Ticket
from pilot.rotation.commands import Command
from pilot.rotation.step import Step, View, step
from pilot.ticktimes import TickTimes

LOG = logging.getLogger("pilot")
EXIT_OVERTAKEN = 75
_TAG_FIRST = "abcdefghijklmnopqrstuvwxyz"
_TAG_REST = "abcdefghijklmnopqrstuvwxyz234567"


class WaitingLanes(Protocol):
    """Lanes that the loop can wait on."""

    def ask(self, action: object) -> Ticket: ...

    def answers(self) -> tuple[Answer, ...]: ...

    def ages(self) -> tuple[LaneAge, ...]: ...

    def wait(self, timeout_s: float) -> None: ...


def draw_tag() -> BundleId:
    """A fresh bundle id: a letter and 8 random base-32 characters."""
    first = secrets.choice(_TAG_FIRST)
    return BundleId(first + "".join(secrets.choice(_TAG_REST) for _ in range(8)))


@dataclass(slots=True)
class Loop:
    """One daemon's loop over its state. `after_tick` sees each step (status, log of events).

    `draw_tag` gives a fresh bundle id, once for each queue and tick: `loop.draw_tag` in production; a world with a
    seed passes its own. `commands` gives what people ordered since the last tick.
    """

    state: State
    memory: Memory
    limits: Limits
    lanes: WaitingLanes
    clock: Clock
    tick_s: float
    after_tick: Callable[[Step, Now], None]
    draw_tag: Callable[[], BundleId]
    commands: Callable[[], tuple[Command, ...]] = tuple
    times: TickTimes = field(default_factory=TickTimes)

    def tick(self) -> Step:
        """One tick; releases what the step released."""
        now = Now(self.clock.now().isoformat(), self.clock.monotonic())
        tags = tuple(self.draw_tag() for _ in self.limits.queues)
        view = View(self.lanes.answers(), now, tags, self.commands())
        result = step(self.state, self.memory, view, self.limits)
        if result.limits is not None:
            self.limits = result.limits
        for action in result.released:
            self.lanes.ask(action)
        self.after_tick(result, now)
        self.times.add(self.clock.monotonic() - now.mono_s)
        return result

    def run(self, ends: Callable[[], int | None]) -> int:
        """Tick until `ends` gives an exit code or the lease is lost (75)."""
        while True:
            result = self.tick()
            if result.stop is not None:
                LOG.error("stopping at once: %s", escaped(result.stop))
                return EXIT_OVERTAKEN
            code = ends()
            if code is not None:
                return code
            self.lanes.wait(self.tick_s)
