"""The host of an agent: carries out its orders with real processes, files and clocks. It decides nothing."""

from __future__ import annotations

import os
import queue
import shutil
import sys
import threading
import time
from typing import IO, Any, Callable, Dict, FrozenSet, List, Optional, Set, Tuple

from pilot.caldb import sharing
from pilot.caldb.prctl import become_subreaper
from pilot.multijob.node.binding import slot_binding
from pilot.multijob.node.cgroups import is_inside, job_cgroups
from pilot.multijob.node.collect import collect, left_little
from pilot.multijob.node.database import Database, keeper_plan
from pilot.multijob.node.errands import Errands
from pilot.multijob.node.files import Steps, perform, run_steps
from pilot.multijob.node.journal import JournalWriter
from pilot.multijob.node.manifest import Manifest
from pilot.multijob.node.orders import (
    AskedToEnd,
    Gather,
    Gathered,
    Hear,
    KeeperEnded,
    KeeperSaid,
    Kill,
    KillKeeper,
    KillSetup,
    LetKeeperGo,
    LocalFree,
    MakeLocal,
    News,
    PayloadEnded,
    Probe,
    RunSetup,
    Sample,
    Say,
    Spawn,
    StartKeeper,
    Sweep,
    Swept,
    Terminate,
)
from pilot.multijob.node.payload import (
    Payload,
    Streams,
    payload_environment,
    reading_from,
    start_payload,
)
from pilot.multijob.node.processes import (
    Name,
    foreign,
    live_descendants,
    owned_by,
    read_proc,
    reap_all,
    snapshot,
    sweep,
    without_trees,
)
from pilot.multijob.node.selfcheck import probe_node
from pilot.multijob.node.shell import ScriptRun
from pilot.multijob.node.slots import Post
from pilot.multijob.node.spawn import keep_descriptors
from pilot.multijob.node.steps import Collected, Line, PayloadEnd
from pilot.multijob.node.supply import Errand
from pilot.multijob.node.wake import Wake

# A keeper that was let go of stops its server in 0.1 s; one that does not within this time is swept away.
KEEPER_STOP_S = 10.0


class Host:
    """The processes of one agent. Everything but the collecting of files happens in the agent's own thread."""

    def __init__(
        self, manifest: Manifest, post: Post, journal: JournalWriter, now: Callable[[], float]
    ) -> None:
        self._manifest, self._post, self._journal, self._now = manifest, post, journal, now
        self._wake = Wake()
        self._said_to_end = False
        self._payloads: Dict[int, Payload] = {}
        self._to_gather: queue.SimpleQueue[Tuple[Gather, Streams]] = queue.SimpleQueue()
        self._gathered: queue.SimpleQueue[Gathered] = queue.SimpleQueue()
        self._gathering = self._gatherers = 0
        self._reaped: Dict[int, Tuple[int, Any]] = {}
        self._database: Optional[Database] = None
        own = {"HOME": post.own, "TMPDIR": post.own}
        self._site_environment = {**own, **manifest.environment}
        self._scripts: List[ScriptRun] = []
        self._errands = Errands(post.own, self._site_environment, self._wake.call)
        self._cpus = sorted(os.sched_getaffinity(0))
        self._cores_of = slot_binding(manifest.bind, manifest.slots, self._cpus)

    def run(self, steps: Steps[None]) -> None:
        """Carry out an agent from its start to its end."""
        become_subreaper()
        keep_descriptors()
        try:
            run_steps(steps, self.perform)
        finally:
            self._journal.close()

    def perform(self, operation: Any) -> Any:
        """Carry out one order or file operation. Raises OSError."""
        own = _ORDERS.get(type(operation))
        return perform(operation) if own is None else own(self, operation)

    # --- news -------------------------------------------------------------------------------------------------

    def _hear(self, order: Hear) -> Tuple[News, ...]:
        if order.until_s is not None:
            database = self._database
            fds = [database.fd] if database is not None and database.open else []
            self._wake.wait(order.until_s - self._now(), fds)
        news: List[News] = []
        if self._wake.asked_to_end and not self._said_to_end:
            self._said_to_end = True
            news.append(AskedToEnd())
        self._reap()
        for slot, payload in list(self._payloads.items()):
            if payload.pid in self._reaped:
                news.append(PayloadEnded(slot, self._end_of(slot, payload)))
        while not self._gathered.empty():
            self._gathering -= 1
            news.append(self._gathered.get())
        news.extend(self._errands.news())
        news.extend(self._of_scripts())
        news.extend(self._of_keeper())
        return tuple(news)

    def _reap(self) -> None:
        """Collect all children that have ended; those of nobody here were adopted and need no more."""
        reap_all(self._note)

    def _note(self, pid: int, status: int, usage: Any) -> None:
        if any(payload.pid == pid for payload in self._payloads.values()) or pid in self._companions():
            self._reaped[pid] = (status, usage)
        elif self._errands.is_own(pid):
            self._errands.reaped(pid, status)

    def _pids(self) -> FrozenSet[int]:
        return frozenset(payload.pid for payload in self._payloads.values() if payload.pid is not None)

    def _companions(self) -> Set[int]:
        """Pids of its keeper and of set-up scripts."""
        found = {script.pid for script in self._scripts}
        return found if self._database is None else found | {self._database.pid}

    def _end_of(self, slot: int, payload: Payload) -> PayloadEnd:
        assert payload.pid is not None
        status, usage = self._reaped.pop(payload.pid)
        end = payload.ended(status, usage)
        others = self._pids().union(self._companions(), self._errands.pids()) - {payload.pid}
        payload.kill_escaped(others, self._reap)
        return end._replace(printed=payload.streams.sizes()) if payload.job.steps else end

    def _of_keeper(self) -> List[News]:
        database = self._database
        if database is None:
            return []
        end = None if database.ended else self._reaped.pop(database.pid, None)
        news: List[News] = [KeeperSaid(said) for said in database.said()]
        if end is not None:
            database.note_end()
            news.append(KeeperEnded())
        return news

    # --- payloads ---------------------------------------------------------------------------------------------

    def _spawn(self, order: Spawn) -> Optional[PayloadEnd]:
        job, slot = reading_from(order.job, order.work, order.inputs), order.slot
        environment = payload_environment(
            self._manifest, job, self._post.node, slot, order.work, order.caldb, order.setup
        )
        before = self._payloads.get(slot) if order.again else None
        file_max_mib, bound = self._manifest.limits.file_max_mib, self._manifest.bind != "none"
        if bound:
            # What is spawned inherits this thread's cores: no code runs between fork and exec for that.
            os.sched_setaffinity(0, self._cores_of(slot))
        try:
            payload, end = start_payload(job, order.work, environment, file_max_mib, order.inputs, before)
        finally:
            if bound:
                os.sched_setaffinity(0, self._cpus)
        self._payloads[slot] = payload
        return end

    def _terminate(self, order: Terminate) -> None:
        payload = self._payloads.get(order.slot)
        if payload is not None:
            payload.terminate()

    def _kill(self, order: Kill) -> None:
        payload = self._payloads.get(order.slot)
        if payload is not None:
            payload.kill_all(self._reap)

    def _sample(self, order: Sample) -> Dict[int, Tuple[float, float]]:
        seen = snapshot()
        payloads = [(slot, self._payloads.get(slot)) for slot in order.slots]
        return {
            slot: (payload.sample(seen), payload.streams.size_mib())
            for slot, payload in payloads
            if payload is not None and payload.pid is not None
        }

    def _gather(self, order: Gather) -> Optional[Collected]:
        """One that hangs in a dead filesystem holds up no other: there are as many threads as payloads in collection.

        They are kept: to start one for each payload would cost more than to collect a short one. One that left next
        to nothing is not worth a thread at all.
        """
        streams = self._payloads.pop(order.slot).streams
        if left_little(order.request, streams):
            return collect(order.request, streams)
        self._to_gather.put((order, streams))
        self._gathering += 1
        if self._gathering > self._gatherers:
            self._gatherers += 1
            threading.Thread(target=self._gather_all, daemon=True).start()
        return None

    def _gather_all(self) -> None:
        while True:
            order, streams = self._to_gather.get()
            self._gathered.put(Gathered(order.slot, collect(order.request, streams)))
            self._wake.call()

    def _errand(self, order: Errand) -> None:
        self._errands.begin(order)

    def _local_free(self, order: LocalFree) -> float:
        found = os.statvfs(self._post.own)
        return found.f_bavail * found.f_frsize / 1048576.0

    # --- set-up scripts ---------------------------------------------------------------------------------------

    def _run_setup(self, order: RunSetup) -> None:
        self._scripts.append(ScriptRun(order.script, self._site_environment, self._post.own))

    def _kill_setup(self, order: KillSetup) -> None:
        for run in self._scripts:
            if run.script == order.script and run.pid not in self._reaped:
                run.kill()

    def _of_scripts(self) -> List[News]:
        over = [run for run in self._scripts if run.pid in self._reaped]
        self._scripts = [run for run in self._scripts if run not in over]
        return [run.ended(self._reaped.pop(run.pid)[0]) for run in over]

    # --- the calibration server -------------------------------------------------------------------------------

    def _start_keeper(self, order: StartKeeper) -> None:
        post, manifest = self._post, self._manifest

        def keep_database(out: IO[str]) -> int:
            from pilot.caldb.keeper import keep

            return keep(keeper_plan(manifest, post.database, post.node), out)

        self._database = Database(post.database, keep_database)

    def _kill_keeper(self, order: KillKeeper) -> None:
        if self._database is not None:
            self._database.kill()

    def _let_keeper_go(self, order: LetKeeperGo) -> None:
        database = self._database
        if database is None:
            return
        database.release()
        end_s = time.monotonic() + KEEPER_STOP_S
        while not database.ended and time.monotonic() < end_s and not self._serves_others():
            self._reap()
            end = self._reaped.pop(database.pid, None)
            if end is not None:
                database.note_end()
            else:
                self._wake.wait(end_s - time.monotonic())

    def _serves_others(self) -> bool:
        """Whether its keeper goes on for other agents: the warden then waits for them."""
        database = self._database
        return database is not None and not database.follows and sharing.in_use(self._post.database)

    # --- everything else --------------------------------------------------------------------------------------

    def _line(self, order: Line) -> None:
        self._journal.write(order.kind, order.body, order.sync)

    def _make_local(self, order: MakeLocal) -> None:
        os.mkdir(self._post.own, 0o700)

    def _probe(self, order: Probe) -> Optional[str]:
        def wait(seconds: float) -> bool:
            self._wake.wait(seconds)
            return not self._wake.asked_to_end

        return probe_node(self._post.own, order.argv, self._site_environment, order.limit_s, wait)

    def _sweep(self, order: Sweep) -> Swept:
        left = sweep(
            lambda: live_descendants(os.getpid(), sharing.keeper_pid(self._post.database)), self._reap
        )
        shutil.rmtree(self._post.own, ignore_errors=True)
        sharing.remove_unused(self._post.database)
        others = foreign(snapshot(), os.getpid(), owned_by(os.getuid()))
        ended = self._in_batch_job() if others and self._manifest.end_foreign == "cgroup" else frozenset()
        stay = sweep(self._in_batch_job, self._reap) if ended else 0
        return Swept(left, len(others), max(0, len(ended) - stay))

    def _in_batch_job(self) -> FrozenSet[Name]:
        """Foreign processes in the batch job's own cgroup; spared are its gate and agents with all below them."""
        own = job_cgroups(read_proc(os.getpid(), "cgroup").decode("utf-8", "replace"), self._post.batch_id)
        seen, mark = snapshot(), self._post.agent_file.encode()
        others = foreign(seen, os.getpid(), owned_by(os.getuid()))
        ours = [pid for pid in seen if mark in read_proc(pid, "cmdline")]
        where = ((name, read_proc(name.pid, "cgroup").decode("utf-8", "replace")) for name in others)
        inside = (name for name, text in where if is_inside(text, own))
        return without_trees(frozenset(inside), seen, ours)

    def _say(self, order: Say) -> None:
        print(order.text, file=sys.stderr)


_ORDERS: Dict[type, Callable[[Host, Any], Any]] = {
    Hear: Host._hear,
    Spawn: Host._spawn,
    Terminate: Host._terminate,
    Kill: Host._kill,
    Sample: Host._sample,
    Gather: Host._gather,
    Errand: Host._errand,
    LocalFree: Host._local_free,
    RunSetup: Host._run_setup,
    KillSetup: Host._kill_setup,
    StartKeeper: Host._start_keeper,
    KillKeeper: Host._kill_keeper,
    LetKeeperGo: Host._let_keeper_go,
    Line: Host._line,
    MakeLocal: Host._make_local,
    Probe: Host._probe,
    Sweep: Host._sweep,
    Say: Host._say,
}
