"""Which jobs are looked at in a tick: those that something happened to, and those whose time has come. Pure.

A full machine has 150,000 jobs and each of them has a report due every 45 minutes: a tick that looked at all of them
would take longer than the pause between two. What is looked at without need does no harm; what is forgotten is silent.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Container, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice

from pilot.ports import JobKey

# A look with its report and its answer takes 30 us. What is more waits for the next tick: after a start, all jobs do.
LOOKS_AT_ONCE = 512


@dataclass(slots=True)
class Agenda:
    """`changed`: to be looked at next, in this order. `seconds[n]`: to be looked at from second n on."""

    changed: dict[JobKey, None] = field(default_factory=dict)
    # jobs that one tick looks at
    at_once: int = LOOKS_AT_ONCE
    seconds: dict[int, list[JobKey]] = field(default_factory=dict)
    order: list[int] = field(default_factory=list)
    # what the times were reckoned with: where it changes, all are looked at
    rules: Hashable = None
    # jobs of each queue whose server may not have heard of them in this run; longer than it need be, never shorter
    unheard: dict[str, dict[JobKey, None]] = field(default_factory=dict)
    # heartbeats that wait until their server has answered some of those that are under way
    parked: dict[str, dict[JobKey, None]] = field(default_factory=dict)

    def note(self, key: JobKey) -> None:
        """Look at this job in the next tick."""
        self.changed[key] = None

    def note_new(self, queue: str, key: JobKey) -> None:
        """A job that its server has heard nothing of yet."""
        self.changed[key] = None
        self.unheard.setdefault(queue, {})[key] = None

    def note_at(self, key: JobKey, due_s: float) -> None:
        """Look at this job once `due_s` has come."""
        second = int(due_s // 1)
        if second not in self.seconds:
            self.seconds[second] = []
            heapq.heappush(self.order, second)
        self.seconds[second].append(key)

    def rules_are(self, rules: Hashable, jobs: Callable[[], Mapping[str, Iterable[JobKey]]]) -> None:
        """Look at all jobs, told by queue, where the rules are not those of the last tick."""
        if rules == self.rules:
            return
        self.rules = rules
        self.seconds, self.order = {}, []
        for queue, keys in jobs().items():
            waiting = self.unheard.setdefault(queue, {})
            waiting.update(dict.fromkeys(keys))
            self.changed.update(waiting)

    def take(self, now_s: float) -> tuple[JobKey, ...]:
        """The jobs to look at now, each once; they are no longer on the agenda."""
        while self.order and self.order[0] <= now_s:
            self.changed.update(dict.fromkeys(self.seconds.pop(heapq.heappop(self.order))))
        if len(self.changed) <= self.at_once:
            taken, self.changed = tuple(self.changed), {}
            return taken
        taken = tuple(islice(self.changed, self.at_once))
        for key in taken:
            del self.changed[key]
        return taken

    def park(self, server: str, key: JobKey) -> None:
        """Look at this job when its server has answered."""
        self.parked.setdefault(server, {})[key] = None

    def unpark(self, busy: Container[str]) -> None:
        """Look at jobs that waited for a server which is not busy any more, as many as are looked at once."""
        for server in [server for server in self.parked if server not in busy]:
            waiting = self.parked[server]
            for key in tuple(islice(waiting, self.at_once)):
                del waiting[key]
                self.changed[key] = None
            if not waiting:
                del self.parked[server]

    def unheard_of(self, queue: str) -> Iterator[JobKey]:
        """Jobs of this queue that its server may not have heard of, oldest first."""
        return iter(self.unheard.get(queue, ()))

    def heard(self, queue: str, key: JobKey) -> None:
        """The server has accepted a report of this job, or nothing will be reported of it."""
        waiting = self.unheard.get(queue)
        if waiting is not None:
            waiting.pop(key, None)
            if not waiting:
                # An emptied dictionary keeps the room of all that was in it.
                del self.unheard[queue]
