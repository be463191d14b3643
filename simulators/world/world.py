"""The virtual world: production's own composition on a virtual clock in one process; ports are replaced, nothing else.

A `World` holds one site: filesystem, batch server, nodes, workload server, the journal of one state directory, and
any number of runs of the daemon over it. Everything that happens is a timer; equal inputs give equal histories.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any, cast

from pilot.batch.cli import BatchCli
from pilot.multijob.apply import apply, replay
from pilot.multijob.codec import decode, encode
from pilot.multijob.events import BundleCancelled, Event
from pilot.multijob.evidence import FileEvidence
from pilot.multijob.fold import fold
from pilot.multijob.inputfiles import FileInputs
from pilot.multijob.memory import Memory
from pilot.multijob.model import Bundle, Limits, State
from pilot.multijob.node.files import run_steps
from pilot.multijob.node.manifest import Job as NodeJob
from pilot.multijob.recognise import Now
from pilot.multijob.spacefiles import FileSpace
from pilot.ports import BundleId, Done, Job
from pilot.rotation.commands import Command
from pilot.rotation.daemon import StartError, _put_away
from pilot.rotation.step import View, step
from pilot.rotation.wiring import Ports, lane_specs, make_route
from simulators.kernel import Timers
from simulators.torque.model import TorqueModel
from simulators.torque.port import TorqueCommands
from simulators.torque.site import TorqueSite
from simulators.world.batch import BatchWire
from simulators.world.filefaults import FileFaults
from simulators.world.files import EDGE, VirtualFiles
from simulators.world.floor import Floor, Play
from simulators.world.lanes import Disk, Fate, VirtualLanes
from simulators.world.nodes import Machine
from simulators.world.statedir import EpochStore, Journal
from simulators.world.truth import Truth
from simulators.world.witness import outlived, wrote
from simulators.world.workload import Workload, make_wires

ZERO = datetime(2026, 1, 1, tzinfo=UTC)
# A batch job starts so long after its qsub at the earliest (a scheduler's cycle): by then its directory is visible.
START_DELAY_S = 12.0
# A person, or what supervises the daemon, starts it again so long after a start that failed.
START_AGAIN_S = 120.0
# The dialect in which the pilot talks to a server of this name.
DIALECT_OF = {"panda": "legacy", "panda2": "v1"}
# The daemon's host as a client of the shared filesystem.
_TAG_REST = "abcdefghijklmnopqrstuvwxyz234567"


@dataclass(slots=True)
class Daemon:
    """One run of the daemon; `number` is its own among all runs.

    `paused`: its process is stopped. `stopped`: why it ended itself.
    """

    number: int
    state: State
    memory: Memory
    lanes: VirtualLanes
    evidence: FileEvidence
    random: Random
    disk_random: Random
    events: list[tuple[float, Event]] = field(default_factory=list)
    dead: bool = False
    paused: bool = False
    stopped: str | None = None
    deferred: list[Callable[[], None]] = field(default_factory=list)
    # what people ordered since the last tick
    commands: list[Command] = field(default_factory=list)

    @property
    def alive(self) -> bool:
        """Whether it goes on."""
        return not self.dead and self.stopped is None


def small_site(server_name: str, slots: int = 2, first_sequence: int = 1) -> TorqueSite:
    """Eight nodes."""
    return TorqueSite(
        nodes=8,
        slots=slots,
        server_name=server_name,
        features=(),
        keep_completed_s=0.0,
        start_delay_s=START_DELAY_S,
        first_sequence=first_sequence,
    )


class World:
    """One site. Faults of a scenario: `fate_of`, `floor.hang_s`, `shared.before`, `shared.after`, `batch.spoil`, and
    `shown`.

    `shown(listing)` changes what was read of a listing, `batch.spoil` the texts and exit codes of the commands.
    """

    def __init__(
        self,
        limits: Limits,
        jobs: Sequence[Job],
        seed: int,
        run_s: Callable[[NodeJob], float],
        site: TorqueSite | None = None,
        tick_s: float = 1.0,
    ) -> None:
        self.limits, self.seed, self.now_s, self.tick_s = limits, seed, 0.0, tick_s
        # how far the login node's wall clock is off
        self.utc_offset_s = 0.0
        self.watch: list[Callable[[Daemon, Event], None]] = [partial(outlived, self)]
        self.started: Callable[[Daemon], None] = lambda daemon: None
        self.released: Callable[[Any], None] = lambda action: None
        self.timers: Timers[Callable[[], None]] = Timers()
        self.truth = Truth()
        self.daemons: list[Daemon] = []
        self.journal, self.epoch = Journal(), 0
        # daemons that began with a snapshot that does not tell what the journal tells
        self.misfolded: list[int] = []
        # epochs that an older copy of the state directory does not know
        self.forgotten_epochs = 0
        self.was_restored = False
        self.trace: list[tuple[float, str]] = []
        # what people were told, by the serial of their order
        self.told: dict[int, tuple[bool, tuple[str, ...]]] = {}
        self._late: dict[tuple[str, str], float] = {}
        self.random = Random(f"{seed}:world")
        self.counted: Counter[str] = Counter()
        self.faults = FileFaults(self.now, seed, self.fired)
        self.shared = VirtualFiles(self.now, self._late_s, self.faults, limits.protocol.visible_s)
        for root in (limits.site.shared_dir, limits.site.output_root):
            self.shared.root(root)
        queues = limits.queues.values()
        servers = {queue.server: DIALECT_OF.get(queue.server, "legacy") for queue in queues}
        self.dialects = servers
        self.wires = make_wires(servers, self.now, self._note, ZERO.timestamp())
        self.source = Workload(self.wires, {queue.panda_queue: queue.server for queue in queues})
        self.source.submit(jobs)
        site = site or small_site(limits.batch_server)
        self.torque = TorqueModel(site)
        self.floor = Floor(
            self.shared,
            self.truth,
            self.now,
            self.timers.set,
            Random(f"{seed}:floor"),
            lambda job: Play(run_s(job)),
        )
        self.shared.local = self.floor.read_local
        self.floor.fired = self.fired
        self.machine = Machine(self.floor, self.torque)
        commands = TorqueCommands(self.torque, self.now, self._script, self.machine.carry_out)
        self.batch = BatchWire(commands, self.truth, self._note)
        self.edge_operation_s = (0.001, 0.02)
        self.fate_of: Callable[[Daemon, Any], Fate | None] = lambda daemon, action: None
        self.shown: Callable[[Any], Any] = lambda listing: listing
        self.shared.after = partial(wrote, self)

    # --- time -------------------------------------------------------------------------------------------------

    def now(self) -> float:
        """Virtual seconds since the start."""
        return self.now_s

    def fired(self, kind: str) -> None:
        """A fault of filesystem or nodes changed something."""
        self.counted[kind] += 1

    def run(self, seconds: float) -> None:
        """Let so much time pass."""
        self.run_until(lambda: False, seconds)

    def run_until(self, holds: Callable[[], bool], limit_s: float) -> bool:
        """Let time pass until `holds`, at most `limit_s`; whether it held."""
        ends_s = self.now_s + limit_s
        while not holds():
            self.machine.carry_out(self.torque.advance(self.now_s))
            due = [at for at in (self.timers.next_at(), self.torque.next_at()) if at is not None]
            if not due or min(due) > ends_s:
                self.now_s = ends_s
                return holds()
            self.now_s = max(self.now_s, min(due))
            while (item := self.timers.pop_due(self.now_s)) is not None:
                item[1]()
        return True

    def _late_s(self, client: str, path: str) -> float:
        """How late a client sees what others do to a name: drawn once for each pair, at most visible_s."""
        key = (client, path)
        if key not in self._late:
            drawn = Random(f"{self.seed}:{client}:{path}")
            self._late[key] = drawn.uniform(0.0, self.limits.protocol.visible_s)
        return self._late[key]

    # --- the daemon -------------------------------------------------------------------------------------------

    def start_daemon(self) -> Daemon:
        """A new run over what is durable: lease, replay, foreign bundle directories, then ticks."""
        epoch = self.take_lease()
        return self._start(epoch)

    def take_over(self) -> None:
        """A new run on another host: its lease now, everything else once what was written before can be seen."""
        epoch = self.take_lease()
        self.timers.set(self.now_s + 2 * self.limits.protocol.visible_s, partial(self._begin, epoch))

    def state_copy(self) -> tuple[Journal, int]:
        """The state directory as it is now."""
        return self.journal.copy(), self.epoch

    def restore(self, copy: tuple[Journal, int]) -> bool:
        """Put an older copy of the state directory in place; no daemon runs. Whether it differs."""
        changed = copy[0].load() != self.journal.load()
        self.forgotten_epochs += self.epoch - copy[1]
        self.was_restored = True
        self.journal, self.epoch = copy
        return changed

    def _begin(self, epoch: int) -> None:
        if epoch not in self.journal.epochs:
            # Its lease is gone: somebody has put an older state directory in place.
            return
        try:
            self._start(epoch)
        except StartError:
            # Said in one line, exit code 1: somebody tries again.
            self.timers.set(self.now_s + START_AGAIN_S, partial(self._begin, epoch))

    def take_lease(self) -> int:
        """The next epoch; from now on every older daemon finds it after its next commit."""
        self.epoch += 1
        self.journal.epochs[self.epoch] = []
        return self.epoch

    def _start(self, epoch: int) -> Daemon:
        older = self.journal.counts()
        number = epoch + self.forgotten_epochs
        evidence = self._evidence(epoch, number)
        state, memory = fold(self.journal.load_short()), Memory(epoch, self.now_s)
        if state != replay(decode(record) for record in self.journal.load()):
            self.misfolded.append(number)
        memory.inherit(state)
        # What older epochs left is folded by the first snapshot, whatever it is.
        memory.folded = -1 if older else 0
        _put_away(evidence)
        daemon = Daemon(
            number,
            state,
            memory,
            cast(Any, None),
            evidence,
            Random(f"{self.seed}:daemon{number}"),
            Random(f"{self.seed}:disk{number}"),
        )
        daemon.lanes = self._lanes(daemon, older)
        self.daemons.append(daemon)
        self.started(daemon)
        self._again(daemon)
        return daemon

    def _evidence(self, epoch: int, number: int) -> FileEvidence:
        """Production's own, over the virtual files; each call is carried out at once."""
        perform = partial(self.shared.perform, EDGE)
        serial = itertools.count(1)
        return FileEvidence(
            Path(self.limits.site.shared_dir),
            epoch,
            EDGE,
            number,
            f"pilot{number}",
            self._utc,
            run=lambda steps: run_steps(steps, perform),
            draw=lambda: f"{number}x{next(serial)}",
        )

    def crash(self, daemon: Daemon, survives: bool = False) -> None:
        """SIGKILL; `survives`: calls under way still have their effect."""
        daemon.dead = True
        daemon.lanes.cut(survives)

    def pause(self, daemon: Daemon, seconds: float) -> None:
        """SIGSTOP for so long: neither ticks nor calls."""
        daemon.paused = True
        self.timers.set(self.now_s + seconds, partial(self._resume, daemon))

    def cancel(self, daemon: Daemon, bundle: Bundle, reason: str = "asked for") -> None:
        """A person cancels a bundle: the event is recorded as every other one."""
        event = BundleCancelled(self._utc(), bundle.bundle_id, reason)
        apply(daemon.state, event)
        daemon.memory.records.append(encode(event))
        daemon.memory.recorded += 1
        daemon.events.append((self.now_s, event))
        for watch in self.watch:
            watch(daemon, event)

    def _resume(self, daemon: Daemon) -> None:
        daemon.paused = False
        waiting, daemon.deferred = daemon.deferred, []
        for call in waiting:
            call()
        self.tick(daemon)

    def _lanes(self, daemon: Daemon, older: dict[int, int]) -> VirtualLanes:
        ports = SimpleNamespace(
            store=EpochStore(self.journal, daemon.memory.epoch, older),
            # the lanes let each operation take its own time
            evidence=replace(daemon.evidence, run=lambda steps: steps),
            inputs=FileInputs(lambda steps: steps),
            space=FileSpace(lambda steps: steps),
            batch=_Batch(self.batch.client(), self),
            sources={name: wire.client(self.dialects[name]) for name, wire in self.wires.items()},
            tell=self._tell,
            snapshot=self.journal.take,
        )
        names = SimpleNamespace(
            queues=[SimpleNamespace(name=name) for name in self.limits.queues],
            servers=[SimpleNamespace(name=name) for name in ports.sources],
            allocation=SimpleNamespace(argv=None),
            journal=SimpleNamespace(snapshot_timeout_s=600.0),
            retention=SimpleNamespace(pack_at_once=self.limits.pack_at_once),
        )
        route = make_route(
            cast(Ports, ports), lambda bundle_id: str(daemon.evidence.directory(BundleId(bundle_id)))
        )
        return VirtualLanes(
            lane_specs(cast(Any, names)),
            route,
            self.now,
            partial(self._at, daemon),
            partial(self._fate, daemon),
            partial(self._soon, daemon),
            Disk(partial(self.shared.perform, EDGE), partial(self._operation_s, daemon), self.faults.up_at),
        )

    def _at(self, daemon: Daemon, at_s: float, call: Callable[[], None]) -> None:
        """A timer of this daemon's process."""

        def due() -> None:
            if daemon.paused:
                daemon.deferred.append(call)
            else:
                call()

        self.timers.set(at_s, due)

    def drawn_fate(self, daemon: Daemon) -> Fate:
        """What a call costs when nothing is wrong."""
        return Fate(daemon.random.uniform(0.01, 0.5), daemon.random.uniform(0.01, 0.5))

    def _fate(self, daemon: Daemon, action: Any) -> Fate:
        drawn = self.drawn_fate(daemon)
        return self.fate_of(daemon, action) or drawn

    def _operation_s(self, daemon: Daemon, operation: Any) -> float:
        return daemon.disk_random.uniform(*self.edge_operation_s)

    def _soon(self, daemon: Daemon) -> None:
        """An answer ends the loop's wait."""
        self.timers.set(self.now_s, partial(self.tick, daemon))

    def _again(self, daemon: Daemon) -> None:
        if daemon.alive:
            self.tick(daemon)
            self.timers.set(self.now_s + self.tick_s, partial(self._again, daemon))

    def tick(self, daemon: Daemon) -> None:
        """One tick, as `pilot.loop` has it."""
        if not daemon.alive or daemon.paused:
            return
        tags = tuple(self._tag(daemon) for _ in self.limits.queues)
        answers = daemon.lanes.answers()
        self.trace.extend((self.now_s, f"{daemon.number} {answer!r}") for answer in answers)
        commands, daemon.commands = tuple(daemon.commands), []
        view = View(answers, Now(self._utc(), self.now_s), tags, commands)
        result = step(daemon.state, daemon.memory, view, self.limits)
        for event in result.events:
            daemon.events.append((self.now_s, event))
            self.trace.append((self.now_s, f"{daemon.number} {event!r}"))
            for watch in self.watch:
                watch(daemon, event)
        for action in result.released:
            self.trace.append((self.now_s, f"{daemon.number} {action!r}"))
            self.released(action)
            daemon.lanes.ask(action)
        if result.stop is not None:
            daemon.stopped = result.stop
            daemon.lanes.cut(survives=False)

    def _tag(self, daemon: Daemon) -> BundleId:
        first = "abcdefghijklmnopqrstuvwxyz"[daemon.number % 26]
        bits = daemon.random.getrandbits(40)
        return BundleId(first + "".join(_TAG_REST[bits >> shift & 31] for shift in range(0, 40, 5)))

    def _tell(self, serial: int, done: bool, lines: tuple[str, ...]) -> Done:
        self.told[serial] = done, tuple(lines)
        return Done()

    def _note(self, what: str) -> None:
        self.trace.append((self.now_s, what))

    def _utc(self) -> str:
        return (ZERO + timedelta(seconds=self.now_s + self.utc_offset_s)).isoformat()

    # --- the truth --------------------------------------------------------------------------------------------

    def trace_hash(self) -> str:
        """SHA-256 over every event, action and answer with its time: equal inputs give an equal hash."""
        lines = (f"{at_s!r} {what}\n" for at_s, what in self.trace)
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def _script(self, path: str) -> str:
        text = self.shared.seen(EDGE, path)
        if text is None:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", path)
        return text


@dataclass(frozen=True, slots=True)
class _Batch:
    """The batch port with the scenario's wrong listings."""

    port: BatchCli
    world: World

    def submit(self, script: str, name: str) -> Any:
        """qsub."""
        return self.port.submit(script, name)

    def list_jobs(self, ids: Any) -> Any:
        """qstat."""
        return self.world.shown(self.port.list_jobs(ids))

    def cancel(self, batch_id: Any) -> Any:
        """qdel."""
        return self.port.cancel(batch_id)
