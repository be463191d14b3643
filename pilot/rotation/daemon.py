"""One daemon: takes the lease, replays the journal, wires the lanes, runs the loop, ends in order."""

from __future__ import annotations

import gc
import logging
import os
import secrets
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pilot.clock import SystemClock
from pilot.configkeys import Config
from pilot.control import ControlSocket, Desk
from pilot.journal import FileStore
from pilot.lanes import ThreadLanes
from pilot.lease import Lease, LeaseRefused, take_lease
from pilot.log import escaped
from pilot.loop import Loop, draw_tag
from pilot.monitor.announcer import Announcer
from pilot.monitor.status import render_status, render_summary
from pilot.multijob.agentfile import agent_path, build_agent_file, render_agent_file
from pilot.multijob.apply import ImpossibleEvent
from pilot.multijob.codec import UnreadableEvent, decode
from pilot.multijob.events import Event, JournalConsumed
from pilot.multijob.evidence import FileEvidence
from pilot.multijob.fold import fold
from pilot.multijob.knownjobs import moved_queue
from pilot.multijob.memory import Memory
from pilot.multijob.model import State
from pilot.multijob.recognise import Now
from pilot.multijob.statecodec import SCHEMA
from pilot.rotation.allocation import look_at_allocation
from pilot.rotation.preview import preview
from pilot.rotation.reloader import Reloader
from pilot.rotation.snapshots import run_snapshot
from pilot.rotation.step import RunEnd, Step, end_of_run
from pilot.rotation.story import render_event
from pilot.rotation.wiring import (
    Ports,
    WiringError,
    lane_specs,
    make_batch,
    make_credentials,
    make_limits,
    make_route,
    make_sources,
)
from pilot.segments import JournalError

LOG = logging.getLogger("pilot")
EXIT_OK, EXIT_FAILED, EXIT_NO_JOBS = 0, 1, 3
# At the end, what is under way may take so long; then the process leaves (the journal makes that harmless).
CLOSING_S = 10.0
STATUS_EVERY_S = 2.0
# Where much happens, something happens in each tick; a person reads no faster than this.
STATUS_SOONEST_S = 0.5
MIB = 1024 * 1024
# Of records after the newest snapshot: a second of a start.
FOLD_FROM_BYTES = 8 * MIB
# Newer than any lease: who only reads holds none.
NO_EPOCH = 10**9
# Exit code and last line of the log, by the reason.
ENDS = {
    RunEnd.STOPPED: (
        EXIT_OK,
        "stopped; batch jobs run on; the server fails jobs 2 h after their last heartbeat",
    ),
    RunEnd.REPORTED: (EXIT_OK, "the one bundle of this run is reported"),
    RunEnd.NO_JOBS: (EXIT_NO_JOBS, "no jobs given: nothing to do"),
}


class StartError(Exception):
    """The daemon cannot start; one clear line."""


def package_version() -> str:
    """Version of the installed distribution."""
    try:
        return version("edge-pilot")
    except PackageNotFoundError:
        return "unknown"


def run_daemon(
    config: Config,
    *,
    once: bool = False,
    take_over: bool = False,
    say: Callable[[bool, str], None] | None = None,
    path: Path | None = None,
) -> int:
    """Run until a signal, a stop, or until the one bundle of `once` is reported. Returns the exit code.

    `path`: the file of `config`, read again by `pilot reload`.
    `say(ready, line)` is called once: after the first tick, or with the reason why there is none.
    """
    try:
        daemon = _Daemon.start(config, path, once=once, take_over=take_over)
    except (StartError, WiringError) as error:
        LOG.error("%s", escaped(error))
        if say is not None:
            say(False, escaped(error))
        else:
            print(f"pilot: {escaped(error)}", flush=True)
        return EXIT_FAILED
    daemon.say = say
    return daemon.run()


@dataclass(slots=True)
class _Daemon:
    config: Config
    ports: Ports
    loop: Loop
    lanes: ThreadLanes
    control: ControlSocket
    stop: threading.Event = field(default_factory=threading.Event)
    published_s: float = float("-inf")
    # events since the status document was published
    news: bool = False
    version: str = field(default_factory=package_version)
    announcer: Announcer | None = None
    say: Callable[[bool, str], None] | None = None

    @classmethod
    def start(cls, config: Config, path: Path | None, *, once: bool, take_over: bool) -> _Daemon:
        """Everything before the first tick."""
        state_dir, shared_dir = Path(config.state_dir), Path(config.shared_dir)
        lease, agent_file = _prepare(state_dir, shared_dir, take_over)
        limits = make_limits(config, agent_file, once=once)
        clock = SystemClock()
        if lease.older_host is not None and lease.older_host != lease.host:
            threading.Event().wait(2 * config.protocol.visible_s)
        store = FileStore(state_dir, lease.epoch, config.journal.segment_mib * MIB, SCHEMA, mends=True)
        state = _replayed(store)
        moved = moved_queue(state, limits)
        if moved is not None:
            raise StartError(moved)
        # What was replayed stays for hours: the collector need not walk through it again and again.
        gc.collect()
        gc.freeze()
        evidence = FileEvidence(
            shared_dir, lease.epoch, socket.gethostname(), os.getpid(), secrets.token_hex(8), _utc_text
        )
        memory = Memory(lease.epoch, clock.monotonic())
        memory.inherit(state)
        if store.damage:
            LOG.error("the journal is damaged, what precedes it counts: %s", escaped(store.damage))
            memory.raise_alarm("journal-damaged", store.damage, clock.monotonic())
        if store.load_bytes > FOLD_FROM_BYTES:
            memory.folded = -1
        _put_away(evidence)
        desk = Desk(Reloader(path, config, agent_file, once).parse)
        credentials = make_credentials(config)
        ports = Ports(store, evidence, make_batch(config), make_sources(config), credentials, desk.tell)
        snapshot = partial(run_snapshot, config.state_dir, config.journal.snapshot_timeout_s)
        ports = replace(ports, allocation=partial(look_at_allocation, config.allocation), snapshot=snapshot)
        route = make_route(ports, lambda bundle_id: f"{shared_dir}/bundles/{bundle_id}")
        lanes = ThreadLanes(lane_specs(config), route)
        desk.wake = lanes.wake
        control = ControlSocket(state_dir, desk)
        loop = Loop(state, memory, limits, lanes, clock, config.tick_s, _nobody, draw_tag, desk.take)
        daemon = cls(config, ports, loop, lanes, control)
        loop.after_tick = daemon.after_tick
        if config.announce.url is not None:
            announce = config.announce
            daemon.announcer = Announcer(config.announce.url, announce.every_s, announce.timeout_s)
            daemon.announcer.start()
        LOG.info(
            "epoch %d on %s: %d jobs, %d bundles",
            lease.epoch,
            lease.host,
            len(state.jobs),
            len(state.bundles),
        )
        return daemon

    def run(self) -> int:
        """Loop until the end; always closes the lanes and the control socket."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._on_signal)
        try:
            return self.loop.run(self._ends)
        finally:
            self.lanes.close(CLOSING_S)
            self.ports.store.close()
            self.control.close()
            if self.announcer is not None:
                self.announcer.close()

    def _on_signal(self, number: int, frame: Any) -> None:
        self.stop.set()
        self.lanes.wake()

    def _ends(self) -> int | None:
        end = end_of_run(self.loop.state, self.loop.memory, self.loop.limits, stopping=self.stop.is_set())
        if end is None:
            return None
        code, story = ENDS[end]
        LOG.info("%s", story)
        if end is RunEnd.NO_JOBS:
            print("pilot: the server gave no jobs", flush=True)
        return code

    def after_tick(self, step: Step, now: Now) -> None:
        """Log what became known, publish the status document."""
        for event in step.events:
            if not isinstance(event, JournalConsumed):
                LOG.info("%s", escaped(render_event(event)))
        self.news = self.news or bool(step.events)
        age_s = now.mono_s - self.published_s
        if age_s >= (STATUS_SOONEST_S if self.news else STATUS_EVERY_S):
            self.published_s, self.news = now.mono_s, False
            loop = self.loop
            document = render_status(
                loop.state,
                loop.memory,
                loop.limits,
                self.lanes.ages(),
                now,
                version=self.version,
                ticks=loop.times.shown(),
                pid=os.getpid(),
            )
            self.control.publish(document)
            if self.announcer is not None:
                self.announcer.offer(render_summary(document))
        if self.say is not None:
            say, self.say = self.say, None
            say(True, f"daemon {os.getpid()} is in charge, epoch {self.loop.memory.epoch}")


def _nobody(step: Step, now: Now) -> None:
    """Nobody looks at a tick yet."""


def _utc_text() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _prepare(state_dir: Path, shared_dir: Path, take_over: bool) -> tuple[Lease, Path]:
    try:
        state_dir.mkdir(parents=True, exist_ok=True)
        shared_dir.mkdir(parents=True, exist_ok=True)
        agent_file = build_agent_file(shared_dir)
        lease = take_lease(state_dir, take_over=take_over)
    except OSError as error:
        raise StartError(f"{error.filename or state_dir}: {error.strerror}") from error
    if isinstance(lease, LeaseRefused):
        raise StartError(f"{state_dir}: {lease.reason}")
    return lease, agent_file


def _replayed(store: FileStore) -> State:
    try:
        return fold(store.load())
    except (JournalError, UnreadableEvent, ImpossibleEvent) as error:
        raise StartError(str(error)) from error
    except OSError as error:
        raise StartError(f"{error.filename}: {error.strerror}") from error


def _put_away(evidence: FileEvidence) -> None:
    try:
        evidence.put_older_makings_away()
    except OSError as error:
        raise StartError(f"{error.filename}: {error.strerror}") from error


def read_events(config: Config) -> Iterator[Event]:
    """Every event of the journal, oldest first, also while a daemon writes it. Raises StartError."""
    try:
        for record in FileStore(Path(config.state_dir), NO_EPOCH).load():
            yield decode(record)
    except (JournalError, UnreadableEvent) as error:
        raise StartError(str(error)) from error
    except OSError as error:
        raise StartError(f"{error.filename}: {error.strerror}") from error


def show_bundle(config: Config, queue: str) -> str:
    """The bundle that this queue would submit next, as text; nothing is changed.

    Raises StartError, WiringError.
    """
    state_dir, clock = Path(config.state_dir), SystemClock()
    store = FileStore(state_dir, NO_EPOCH, schema=SCHEMA, mends=True)
    limits = make_limits(config, agent_path(config.shared_dir, render_agent_file()), once=False)
    state = _replayed(store) if state_dir.is_dir() else State()
    return preview(state, limits, limits.queues[queue], Now(clock.now().isoformat(), clock.monotonic()))
