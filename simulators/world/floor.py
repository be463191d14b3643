"""What everything on the nodes shares: operations that take time one by one, processes that hang, disks of nodes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Any

from pilot.multijob.node import files, orders
from pilot.multijob.node.collect import Clean, LocalSize, Pack, Scan
from pilot.multijob.node.manifest import Job
from pilot.multijob.node.supply import Errand
from simulators.world.files import VirtualFiles
from simulators.world.truth import Truth

# Nothing of these is on the shared filesystem: an outage does not stop them.
LOCAL = (
    orders.MakeLocal,
    orders.Probe,
    orders.Hear,
    orders.Spawn,
    orders.Terminate,
    orders.Kill,
    orders.Sample,
    orders.Gather,
    orders.LocalFree,
    orders.RunSetup,
    orders.KillSetup,
    Errand,
    orders.StartKeeper,
    orders.KillKeeper,
    orders.LetKeeperGo,
    orders.Sweep,
    orders.Say,
    Scan,
    LocalSize,
    Pack,
    Clean,
)
# These take no time at all: what they begin has its own.
FREE = (
    orders.Hear,
    orders.Say,
    orders.Terminate,
    orders.Kill,
    orders.Sample,
    orders.Gather,
    Errand,
    orders.KillKeeper,
    LocalSize,
    Clean,
)


class Later:
    """In place of a reply: it comes later."""


LATER = Later()


@dataclass(frozen=True, slots=True)
class Play:
    """What one payload does. By default: everything that is asked of it.

    `refused`: it cannot be started, with this note. `signal`: what ends it instead of an exit code. `events` None: as
    many as announced. `empty` and `missing`: names of outputs. `deaf`: SIGTERM does nothing to it.
    """

    run_s: float
    exit_code: int = 0
    signal: int | None = None
    marker: bool = True
    patterns: tuple[str, ...] = ()
    events: int | None = None
    missing: frozenset[str] = frozenset()
    empty: frozenset[str] = frozenset()
    rss_mib: float = 100.0
    stdout_mib: float = 1.0
    refused: str = ""
    deaf: bool = False

    @property
    def good(self) -> bool:
        """Whether a payload that plays this, and is left alone, has succeeded."""
        written = not self.missing and not self.empty
        as_asked = written and self.events is None and self.marker and not self.patterns
        return as_asked and self.exit_code == 0 and self.signal is None and not self.refused


@dataclass(frozen=True, slots=True)
class KeeperPlay:
    """What the keeper of a calibration server does: ready after so long (None: it says nothing), or it says why not.

    `ends_after_s`: it dies so long after its start. `proved_s`: so long after that it knows whether its snapshot is the
    right one, which it is unless it is `wrong`.
    """

    ready_s: float | None = 5.0
    fails: str = ""
    ends_after_s: float | None = None
    proved_s: float = 0.0
    wrong: bool = False


@dataclass(frozen=True, slots=True)
class ScriptPlay:
    """What a set-up script does: it ends after so long (None: it hangs), or says why it failed."""

    ends_s: float | None = 5.0
    fails: str | None = None


@dataclass(slots=True)
class Task:
    """A gate or agent process. `hanging`: nothing of it goes on until it is let go; `deferred` is what waits."""

    client: str
    batch_id: str
    dead: bool = False
    hanging: bool = False
    deferred: list[Callable[[], None]] = field(default_factory=list)


@dataclass(slots=True)
class Floor:
    """All nodes. `hang_s(client, operation)`: how long a process hangs before it.

    `play(job)`, `keeper(client)` and `script(client)` draw what payloads, keepers and set-up scripts do.
    `fired` counts faults that changed something.
    """

    shared: VirtualFiles
    truth: Truth
    now: Callable[[], float]
    at: Callable[[float, Callable[[], None]], None]
    random: Random
    play: Callable[[Job], Play]
    keeper: Callable[[str], KeeperPlay] = field(default=lambda client: KeeperPlay())
    script: Callable[[str], ScriptPlay] = field(default=lambda client: ScriptPlay())
    operation_s: tuple[float, float] = (0.01, 0.2)
    hang_s: Callable[[str, Any], float] = field(default=lambda client, operation: 0.0)
    fired: Callable[[str], None] = field(default=lambda kind: None)
    # files on the nodes' own disks, by (client, path)
    local: dict[tuple[str, str], str] = field(default_factory=dict)

    def read_local(self, client: str, path: str) -> str:
        """A file on a client's own disk. Raises OSError."""
        if (client, path) not in self.local:
            raise FileNotFoundError(2, "No such file or directory", path)
        return self.local[client, path]

    def later(self, task: Task, delay_s: float, call: Callable[[], None]) -> None:
        """Let the task go on with `call`, unless it is dead then; if it hangs, once it is let go."""
        self.at(self.now() + delay_s, partial(self._go_on, task, call))

    def _go_on(self, task: Task, call: Callable[[], None]) -> None:
        if task.dead:
            return
        if task.hanging:
            task.deferred.append(call)
        else:
            call()

    def hang(self, task: Task, seconds: float) -> None:
        """Nothing of this task goes on for so long."""
        task.hanging = True
        self.at(self.now() + seconds, partial(self._let_go, task))

    def _let_go(self, task: Task) -> None:
        task.hanging = False
        waiting, task.deferred = task.deferred, []
        for call in waiting:
            self._go_on(task, call)

    def drive(
        self,
        task: Task,
        steps: Any,
        done: Callable[[Any], None],
        perform: Callable[[Any, Callable[[Any], None]], Any] | None = None,
    ) -> None:
        """Carry out the operations of `steps` one by one, each after a while; `done(value or OSError)` at its end.

        `perform(operation, reply)` gives the reply, raises OSError, or says LATER and calls `reply`; without it only
        file operations are understood.
        """
        carry_out = perform or (lambda operation, reply: self.shared.perform(task.client, operation))

        def advance(reply: Any, error: OSError | None = None) -> None:
            try:
                operation = steps.throw(error) if error is not None else steps.send(reply)
            except StopIteration as stop:
                done(stop.value)
                return
            except OSError as failed:
                done(failed)
                return
            hang_s = self.hang_s(task.client, operation)
            if hang_s:
                self.hang(task, hang_s)
            if isinstance(operation, FREE) and not task.hanging:
                begin(operation)
            else:
                self.later(task, self._cost_s(operation), partial(begin, operation))

        def begin(operation: Any) -> None:
            up_s = self.now() if isinstance(operation, LOCAL) else self.shared.faults.up_at()
            if up_s > self.now():
                self.later(task, up_s - self.now(), partial(begin, operation))
                return
            failed: OSError | None = None
            reply: Any = None
            try:
                reply = carry_out(operation, advance)
            except OSError as error:
                failed = error
            # A process that died in its operation hears of no reply.
            if reply is not LATER and not task.dead:
                advance(reply, failed)

        advance(None)

    def _cost_s(self, operation: Any) -> float:
        if isinstance(operation, files.Pause):
            return operation.seconds
        return 0.0 if isinstance(operation, FREE) else self.random.uniform(*self.operation_s)
