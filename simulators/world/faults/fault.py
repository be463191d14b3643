"""What a fault is, and how the faults of one seed bend the world together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Any

from pilot.command import CommandOutcome
from pilot.multijob.node.manifest import Job
from pilot.rotation.daemon import StartError
from simulators.panda.dispatch import HttpReply, HttpRequest
from simulators.world.batch import Work
from simulators.world.floor import Play
from simulators.world.lanes import Fate
from simulators.world.panda import Wire
from simulators.world.world import START_AGAIN_S, Daemon, World


def _nothing() -> None:
    return None


@dataclass(slots=True)
class Fault:
    """One fault of a seed, active in [start_s, end_s) of the virtual clock.

    `says` is what the story prints before the seed runs. The hooks bend one thing each and are asked only while the
    fault is active; None means that it leaves that thing alone. `begin` and `end` are called at the two times.
    Whoever bends something calls `Site.fired` with the kind: a fault counts only when it changed something.
    """

    kind: str
    start_s: float
    end_s: float
    says: str
    fate: Callable[[Daemon, Any, Fate], Fate] | None = None
    command: Callable[[tuple[str, ...], Work], CommandOutcome] | None = None
    before: Callable[[str, Any], None] | None = None
    after: Callable[[str, Any, Any], Any] | None = None
    late_s: Callable[[str, str, float], float] | None = None
    hang_s: Callable[[str, Any], float] | None = None
    spoil: Callable[[Wire, str, HttpRequest, Callable[[], HttpReply]], HttpReply] | None = None
    play: Callable[[Job, Play], Play] | None = None
    begin: Callable[[], None] = _nothing
    end: Callable[[], None] = _nothing


@dataclass(slots=True)
class Site:
    """What kinds are drawn from: the world, the chance of this seed, and how often each kind changed something.

    `calm_s`: when everything is healed.
    """

    world: World
    random: Random
    calm_s: float
    count: Counter[str] = field(default_factory=Counter)
    active: list[Fault] = field(default_factory=list)
    # asked between any two effects of prodsys; a fault puts something there that raises Killed
    boundaries: list[Callable[[], None]] = field(default_factory=list)

    def boundary(self) -> None:
        """Between two effects of prodsys."""
        for ask in self.boundaries:
            ask()

    def fired(self, kind: str) -> None:
        """The fault changed something."""
        self.count[kind] += 1

    def window(self, shortest_s: float, longest_s: float) -> tuple[float, float]:
        """A start and an end before everything is healed."""
        length_s = min(self.random.uniform(shortest_s, longest_s), 0.8 * self.calm_s)
        start_s = self.random.uniform(0.0, self.calm_s - length_s)
        return start_s, start_s + length_s

    def daemon(self) -> Daemon | None:
        """The daemon that lives and is not stopped; the newest one of several."""
        for daemon in reversed(self.world.daemons):
            if daemon.alive and not daemon.paused:
                return daemon
        return None

    def crash(self, survives: bool, back_after_s: float, daemon: Daemon | None = None) -> bool:
        """SIGKILL for the daemon, and a new start later. Whether there was one."""
        daemon = daemon or self.daemon()
        if daemon is None or not daemon.alive:
            return False
        self.world.crash(daemon, survives)
        self.restart(back_after_s)
        return True

    def restart(self, after_s: float) -> None:
        """Start the daemon again, unless one lives then."""
        self.world.timers.set(self.world.now_s + after_s, self._start_again)

    def _start_again(self) -> None:
        if any(daemon.alive for daemon in self.world.daemons):
            return
        try:
            self.world.start_daemon()
        except StartError:
            # Said in one line, exit code 1: somebody tries again.
            self.restart(START_AGAIN_S)


def install(site: Site, faults: list[Fault]) -> None:
    """Let these faults begin and end, and bend the world's hooks while they are active."""
    world = site.world
    for fault in faults:
        world.timers.set(fault.start_s, partial(_begin, site, fault))
        world.timers.set(fault.end_s, partial(_end, site, fault))
    bent = _Bent(site, world.shared.delay_s, world.shared.after)
    world.fate_of, world.batch.spoil = bent.fate_of, bent.command
    world.shared.before, world.shared.after, world.shared.delay_s = bent.before, bent.after, bent.delay_s
    world.floor.hang_s = bent.hang_s
    drawn_play = world.floor.play
    world.floor.play = lambda job: bent.play(job, drawn_play(job))
    for wire in world.wires.values():
        wire.spoil = bent.spoil


@dataclass(frozen=True, slots=True)
class _Bent:
    """The world's hooks, each bent by every active fault in turn."""

    site: Site
    drawn_late_s: Callable[[str, str], float]
    plain_after: Callable[[str, Any, Any], Any]

    def fate_of(self, daemon: Daemon, action: Any) -> Fate | None:
        fate = self.site.world.drawn_fate(daemon)
        for fault in self.site.active:
            if fault.fate is not None:
                fate = fault.fate(daemon, action, fate)
        return fate

    def command(self, argv: tuple[str, ...], work: Work) -> CommandOutcome:
        for fault in self.site.active:
            if fault.command is not None:
                work = partial(fault.command, argv, work)
        return work()

    def before(self, client: str, operation: Any) -> None:
        for fault in self.site.active:
            if fault.before is not None:
                fault.before(client, operation)

    def after(self, client: str, operation: Any, reply: Any) -> Any:
        for fault in self.site.active:
            if fault.after is not None:
                reply = fault.after(client, operation, reply)
        return self.plain_after(client, operation, reply)

    def delay_s(self, client: str, path: str) -> float:
        late_s = self.drawn_late_s(client, path)
        for fault in self.site.active:
            if fault.late_s is not None:
                late_s = fault.late_s(client, path, late_s)
        return late_s

    def hang_s(self, client: str, operation: Any) -> float:
        hangs = (f.hang_s(client, operation) for f in self.site.active if f.hang_s is not None)
        return max(hangs, default=0.0)

    def play(self, job: Job, drawn: Play) -> Play:
        for fault in self.site.active:
            if fault.play is not None:
                drawn = fault.play(job, drawn)
        return drawn

    def spoil(
        self, wire: Wire, client: str, request: HttpRequest, work: Callable[[], HttpReply]
    ) -> HttpReply:
        for fault in self.site.active:
            if fault.spoil is not None:
                work = partial(fault.spoil, wire, client, request, work)
        return work()


def _begin(site: Site, fault: Fault) -> None:
    site.active.append(fault)
    fault.begin()


def _end(site: Site, fault: Fault) -> None:
    if fault in site.active:
        site.active.remove(fault)
        fault.end()
