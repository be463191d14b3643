"""Agents of the virtual world: production's own agent, with processes that are only pretended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

from pilot.multijob.node import orders
from pilot.multijob.node.agent import Agent
from pilot.multijob.node.collect import Clean, LocalSize, Pack, Scan, collect_steps
from pilot.multijob.node.entry import journal_path, started_body
from pilot.multijob.node.files import Read, Steps
from pilot.multijob.node.journal import render_line
from pilot.multijob.node.manifest import BadManifest, Limits, Manifest, parse_manifest
from pilot.multijob.node.provision import errand_steps
from pilot.multijob.node.scan import Findings
from pilot.multijob.node.setups import Made
from pilot.multijob.node.slots import Post
from pilot.multijob.node.steps import Line, PayloadEnd
from pilot.multijob.node.supply import Errand
from simulators.world.files import Inode
from simulators.world.floor import LATER, Floor, Play, Task
from simulators.world.truth import PayloadRun

SIGTERM, SIGKILL = 15, 9
# Nodes of the world are never full.
LOCAL_FREE_MIB = 100_000.0


class OpenJournal(NamedTuple):
    """Create the node journal."""


@dataclass(frozen=True, slots=True)
class Place:
    """Which agent this is: `index` in the manifest, on the machine's `node`. `ends_s`: end of the walltime."""

    bundle_id: str
    directory: str
    round: int
    index: int
    node: int
    nonce: str
    ends_s: float


@dataclass(slots=True)
class _Payload:
    """A payload in a slot; `run` is None for one that could not be started."""

    play: Play
    order: orders.Spawn
    run: PayloadRun | None


@dataclass(slots=True)
class AgentProcess:
    """The process of one agent and everything below it. `ended` is called when it has ended in order.

    `escaped`: nobody can end it. `frozen`: times in which its payloads stood still.
    """

    floor: Floor
    task: Task
    place: Place
    ended: Callable[[], None] = field(default=lambda: None)
    over: bool = False
    escaped: bool = False
    frozen: list[tuple[float, float]] = field(default_factory=list)
    agent: Agent | None = None
    _started_s: float = 0.0
    _limits: Limits | None = None
    _file: Inode | None = None
    _lines: int = 0
    _broken: bool = False
    _news: list[orders.News] = field(default_factory=list)
    _hearing: Callable[[Any], None] | None = None
    _payloads: dict[int, _Payload] = field(default_factory=dict)
    _runs: dict[tuple[int, int], PayloadRun] = field(default_factory=dict)
    _keeper: int = 0

    @property
    def node(self) -> int:
        """The machine's number of its node."""
        return self.place.node

    @property
    def journal(self) -> str:
        """Its node journal."""
        return journal_path(self.place.directory, self.place.index, self.place.nonce)

    def start(self) -> None:
        """Begin."""
        self._started_s = self.floor.now()
        self.floor.drive(self.task, self._life(), self._done, self._perform)

    def terminate(self) -> None:
        """SIGTERM."""
        self._tell(orders.AskedToEnd())

    def die(self, why: str) -> None:
        """SIGKILL to it and to all of its payloads."""
        self.task.dead = self.over = True
        self._end_all(why)

    def tear(self) -> bool:
        """It dies while it writes a line: a half of it stands at the end of its journal for ever."""
        if self._file is None or self._broken:
            return False
        line = render_line(self._lines + 1, "heartbeat", "t", self._elapsed(), {"running": []}).decode()
        self.floor.shared.append(self.task.client, self.journal, self._file, line[: len(line) // 2])
        return True

    # --- its life ---------------------------------------------------------------------------------------------

    def _life(self) -> Steps[None]:
        """As `entry` has it."""
        place = self.place
        text = yield Read(f"{place.directory}/manifest.json")
        try:
            manifest: Manifest = parse_manifest(text)
        except BadManifest:
            return
        yield OpenJournal()
        self._limits = manifest.limits
        left_s = place.ends_s - self._started_s
        body = started_body(
            manifest, place.round, place.index, self.task.client, 1, self.task.batch_id, left_s
        )
        yield Line("agent_started", body)
        own = f"/dev/shm/ep-{place.bundle_id}-{place.index}-{place.nonce}"
        post = Post(
            place.directory,
            place.round,
            place.index,
            left_s,
            self.task.batch_id,
            place.nonce,
            own,
            f"{own}.db",
            manifest.agent_file,
            self.task.client,
        )
        self.agent = Agent(manifest, post, self._elapsed)
        yield from self.agent.steps()

    def _elapsed(self) -> float:
        return self.floor.now() - self._started_s

    def _done(self, outcome: Any) -> None:
        """As its warden: whatever became of the agent, nothing of it stays."""
        self.die("agent ended")
        self.ended()

    # --- its orders -------------------------------------------------------------------------------------------

    def _perform(self, order: Any, reply: Callable[[Any], None]) -> Any:
        match order:
            case Line():
                self._write(order)
            case orders.Hear():
                return self._hear(order, reply)
            case orders.Spawn():
                return self._spawn(order)
            case orders.Terminate(slot):
                delay_s = self.floor.random.uniform(0.0, 1.0)
                self.floor.at(self.floor.now() + delay_s, partial(self._signal, slot, SIGTERM))
            case orders.Kill(slot):
                self._signal(slot, SIGKILL)
            case orders.Sample(slots):
                living = [slot for slot in slots if self._living(slot)]
                plays = {slot: self._payloads[slot].play for slot in living}
                return {slot: (play.rss_mib, play.stdout_mib) for slot, play in plays.items()}
            case orders.Gather():
                self._gather(order)
            case Errand():
                self._begin_errand(order)
            case orders.RunSetup():
                self._run_script(order)
            case orders.LocalFree():
                return LOCAL_FREE_MIB
            case orders.StartKeeper() | orders.KillKeeper() | orders.LetKeeperGo():
                self._order_keeper(order)
            case orders.Sweep():
                self._end_all("agent ended")
                return orders.Swept(0, 0)
            case OpenJournal():
                self._file = self.floor.shared.open_new(self.task.client, self.journal)
            case orders.MakeLocal() | orders.Say() | orders.Probe() | orders.KillSetup():
                pass
            case _:
                return self.floor.shared.perform(self.task.client, order)
        return None

    def _write(self, line: Line) -> None:
        """As `JournalWriter`: after an error nothing more is written."""
        assert self._file is not None
        if self._broken:
            raise OSError("the journal is broken")
        self._lines += 1
        text = render_line(self._lines, line.kind, "t", self._elapsed(), line.body).decode()
        try:
            self.floor.shared.append(self.task.client, self.journal, self._file, text)
        except OSError:
            self._broken = True
            raise
        if line.kind == "job_started":
            truth = self.floor.truth
            who = truth.servers.get(self.place.bundle_id, ""), int(line.body["panda_id"])
            truth.lines.append((self.floor.now(), who, self.task.batch_id))
        if line.kind == "job_ended":
            run = self._runs.get((line.body["panda_id"], line.body["attempt_nr"]))
            if run is not None:
                run.end_line_s = self.floor.now()
                # The agent had decided to end it when it ended by itself: nothing was placed.
                run.ended_by = run.ended_by or line.body["ended_by"]

    # --- news -------------------------------------------------------------------------------------------------

    def _tell(self, news: orders.News) -> None:
        self._news.append(news)
        if self._hearing is not None:
            self.floor.later(self.task, 0.0, partial(self._wake, self._hearing))

    def _hear(self, order: orders.Hear, reply: Callable[[Any], None]) -> Any:
        if self._news or order.until_s is None:
            return self._take()

        def hearing(heard: Any) -> None:
            reply(heard)

        self._hearing = hearing
        # Never no time at all: where a sum of times is rounded down, the clock would stand still for ever.
        wait_s = max(0.001, order.until_s - self._elapsed())
        self.floor.later(self.task, wait_s, partial(self._wake, hearing))
        return LATER

    def _wake(self, hearing: Callable[[Any], None]) -> None:
        """Unless it was woken before."""
        if self._hearing is hearing:
            self._hearing = None
            hearing(self._take())

    def _take(self) -> tuple[orders.News, ...]:
        news, self._news = tuple(self._news), []
        return news

    # --- payloads ---------------------------------------------------------------------------------------------

    def _spawn(self, order: orders.Spawn) -> PayloadEnd | None:
        job, floor = order.job, self.floor
        play = floor.play(job)
        if play.refused:
            self._payloads[order.slot] = _Payload(play, order, None)
            return PayloadEnd(127, None, None, 0.0, 0.0, 0.0, "t", "t", play.refused)
        run = PayloadRun(
            job.panda_id,
            job.attempt_nr,
            self.place.bundle_id,
            self.place.round,
            self.task.batch_id,
            self.task.client,
            floor.now(),
            good=play.good and self._modest(play),
            server=floor.truth.servers.get(self.place.bundle_id, ""),
        )
        floor.truth.payloads.append(run)
        self._runs[job.panda_id, job.attempt_nr] = run
        payload = self._payloads[order.slot] = _Payload(play, order, run)
        floor.at(floor.now() + play.run_s, partial(self._due, payload, run))
        return None

    def _modest(self, play: Play) -> bool:
        """Whether it keeps to the node's limits."""
        assert self._limits is not None
        rss_max_mib = self._limits.rss_max_mib
        return play.stdout_mib <= self._limits.stdout_max_mib and (
            rss_max_mib is None or play.rss_mib <= rss_max_mib
        )

    def _due(self, payload: _Payload, run: PayloadRun) -> None:
        """It ends by itself, later by what it stood still while its files were away or its node was frozen."""
        now_s, play = self.floor.now(), payload.play
        if run.end_s is not None:
            return
        stopped_s = self.floor.shared.faults.stopped_s(run.start_s, now_s)
        stopped_s += sum(max(0.0, min(end, now_s) - max(begin, run.start_s)) for begin, end in self.frozen)
        end_s = run.start_s + play.run_s + stopped_s
        if end_s > now_s + 1e-6:
            self.floor.at(end_s, partial(self._due, payload, run))
        else:
            self._over(payload, run, None, play.signal)

    def _living(self, slot: int) -> bool:
        payload = self._payloads.get(slot)
        return payload is not None and payload.run is not None and payload.run.end_s is None

    def _signal(self, slot: int, number: int) -> None:
        payload = self._payloads.get(slot)
        if payload is None or payload.run is None or payload.run.end_s is not None:
            return
        if number == SIGKILL or not payload.play.deaf:
            self._over(payload, payload.run, f"signal {number}", number)

    def _over(self, payload: _Payload, run: PayloadRun, ended_by: str | None, number: int | None) -> None:
        run.end_s, run.ended_by = self.floor.now(), ended_by
        order, play = payload.order, payload.play
        for output in order.job.outputs:
            if output.lfn not in play.missing:
                path = f"{order.work}/{output.lfn}"
                # Its text says whose it is: no two runs write the same.
                text = "" if output.lfn in play.empty else f"{self.task.client}:{path}"
                self.floor.local[self.task.client, path] = text
        wall_s = run.end_s - run.start_s
        code = play.exit_code if number is None else None
        end = PayloadEnd(code, number, None, wall_s, wall_s, play.rss_mib, "t", "t")
        self._tell(orders.PayloadEnded(order.slot, end))

    def _end_all(self, why: str) -> None:
        for run in self._runs.values():
            if run.end_s is None:
                run.end_s, run.ended_by = self.floor.now(), why

    # --- what an ended payload left ---------------------------------------------------------------------------

    def _gather(self, order: orders.Gather) -> None:
        payload = self._payloads.pop(order.slot)

        def gathered(collected: Any) -> None:
            self._tell(orders.Gathered(order.slot, collected))

        steps = collect_steps(order.request)
        self.floor.drive(self.task, steps, gathered, partial(self._collect, payload))

    def _collect(self, payload: _Payload, operation: Any, reply: Callable[[Any], None]) -> Any:
        client, local = self.task.client, self.floor.local
        match operation:
            case Scan():
                return _findings(payload)
            case LocalSize(path):
                return len(local[client, path]) if (client, path) in local else None
            case Pack(path):
                local[client, path] = f"{client}:{path}"
                return len(local[client, path])
            case Clean(work):
                for key in [key for key in local if key[0] == client and key[1].startswith(work)]:
                    del local[key]
                return None
        return self.floor.shared.perform(client, operation)

    def _begin_errand(self, errand: Errand) -> None:
        def done(outcome: Any) -> None:
            self._tell(orders.ErrandDone(errand.number, outcome))

        self.floor.drive(self.task, errand_steps(errand.request), done)

    def _run_script(self, order: orders.RunSetup) -> None:
        play = self.floor.script(self.task.client)
        news = orders.SetupEnded(order.script, Made(), play.fails)

        def due() -> None:
            if not self.over:
                self._tell(news)

        if play.ends_s is not None:
            self.floor.at(self.floor.now() + play.ends_s, due)

    # --- the calibration server -------------------------------------------------------------------------------

    def _order_keeper(self, order: Any) -> None:
        self._keeper += 1
        if isinstance(order, orders.KillKeeper):
            self._tell(orders.KeeperEnded())
        if not isinstance(order, orders.StartKeeper):
            return
        play, now_s = self.floor.keeper(self.task.client), self.floor.now()
        said: dict[str, Any]
        if play.fails:
            said = {"kind": "failed", "reason": play.fails, "log": ""}
            self._at(now_s + (play.ready_s or 0.0), orders.KeeperSaid(said), orders.KeeperEnded())
        elif play.ready_s is not None:
            said = {"kind": "ready", "environment": {}, "ready_s": play.ready_s, "pid": 1, "proved": False}
            self._at(now_s + play.ready_s, orders.KeeperSaid(said))
            known = (
                {"kind": "failed", "reason": "wrong checksum", "log": ""}
                if play.wrong
                else {**said, "proved": True}
            )
            self._at(now_s + play.ready_s + play.proved_s, orders.KeeperSaid(known))
        if play.ends_after_s is not None:
            self._at(now_s + play.ends_after_s, orders.KeeperEnded())

    def _at(self, at_s: float, *news: orders.News) -> None:
        """News of the keeper that was started, unless it was killed or let go of by then."""
        keeper = self._keeper

        def due() -> None:
            if self._keeper == keeper and not self.over:
                for item in news:
                    self._tell(item)

        self.floor.at(at_s, due)


def _findings(payload: _Payload) -> Findings:
    """What a payload printed, one that was ended early without its last lines."""
    play, job, run = payload.play, payload.order.job, payload.run
    if run is None or run.ended_by is not None:
        return Findings(None if job.kind.marker is None else False, (), None, None, "")
    events = int(job.environment.get("PRODSYS_NEVENTS", "0")) if play.events is None else play.events
    marker = None if job.kind.marker is None else play.marker
    return Findings(marker, tuple(sorted(play.patterns)), events, events, "")
