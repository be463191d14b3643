"""The agent of one node: asks for what `plan.decide` says and notes what happened in its state.

A generator of file operations and orders (`files`, `orders`): it does no I/O itself, and each operation is a moment
at which it can hang or die. `host.Host` carries them out on a node, the virtual world on pretended ones.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, Optional, Tuple

from pilot.multijob.node.files import Exists, Read, Steps
from pilot.multijob.node.gate import parse_object
from pilot.multijob.node.manifest import Job, Manifest
from pilot.multijob.node.orders import (
    AskedToEnd,
    ErrandDone,
    Gathered,
    Hear,
    KeeperEnded,
    KeeperSaid,
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
    SetupEnded,
    StartKeeper,
    Sweep,
    Swept,
)
from pilot.multijob.node.plan import (
    BeginSetup,
    EndAgent,
    EndPayload,
    GiveBack,
    GiveUpCaldb,
    GiveUpSetup,
    KillPayload,
    NodeState,
    Running,
    StartJob,
    asked_to_end,
    decide,
    next_due_s,
    over_limit,
    quick_failures_after,
)
from pilot.multijob.node.setups import Setup, scripts_of
from pilot.multijob.node.slots import (
    InputsReady,
    JobOver,
    LinesLost,
    PayloadOver,
    Post,
    Progress,
    Slots,
    StepsFailed,
)
from pilot.multijob.node.steps import Line, look
from pilot.multijob.node.supply import Supply

# A keeper keeps to caldb_ready_s itself; one that says nothing for so much longer hangs.
KEEPER_SPARE_S = 15.0


class Agent:
    """Everything that one agent knows. `now` gives seconds since its start. `steps` ends when it has ended in order."""

    def __init__(self, manifest: Manifest, post: Post, now: Callable[[], float]) -> None:
        self._manifest, self._post, self._now = manifest, post, now
        self._serial = 0
        self._next_poll_s = self._polled_s = 0.0
        self._next_sample_s = manifest.limits.sample_s
        self._next_heartbeat_s = manifest.limits.heartbeat_s
        pending = manifest.jobs.get(post.node, ())
        longest_s = max((job.predicted_s for job in pending), default=0.0)
        setups = scripts_of(job.setup for job in pending)
        self.state = NodeState(pending=pending, longest_s=longest_s, setups=setups)
        self._proved = False
        self._unproved: Dict[int, PayloadEnded] = {}
        self._supply = Supply(manifest.inputs, manifest.limits, post.own, pending)
        self._slots = Slots(post, self._supply)

    def steps(self) -> Steps[None]:
        """Work the list. Whatever happens, what was started is ended and the local directories are removed."""
        try:
            reason = yield from self._work()
        except Exception:
            yield from self._finish("error")
            raise
        yield from self._finish(reason)

    def _work(self) -> Steps[str]:
        for job in self._manifest.malformed.get(self._post.node, ()):
            back = {"reason": job.reason, "jobs": [[job.panda_id, job.attempt_nr]]}
            yield from self._line("given_back", back)
        try:
            yield MakeLocal()
            if self._supply.needs_room:
                self._supply.room_mib = (yield LocalFree()) / 2
        except OSError as error:
            yield from self._stop("no local directory: %s" % error)
        yield from self._prove_node()
        yield from self._start_database()
        yield from self._poll()
        while True:
            manifest, left = self._manifest, self._post.seconds_left
            actions = decide(self.state, self._now(), manifest.limits, manifest.slots, left)
            for action in actions:
                if isinstance(action, EndAgent):
                    return action.reason
                yield from _ACTS[type(action)](self, action)
            yield from self._slots.supplied()
            yield from self._slots.commit()
            more = yield from self._note_progress()
            # After mere starts there is nothing more to decide: all free slots were filled at once.
            again = more or not all(isinstance(action, StartJob) for action in actions)
            news = yield Hear(None if again else self._due_s())
            yield from self._observe(news)

    def _prove_node(self) -> Steps[None]:
        """An avoided node works its list only after its probe; else all of it goes back."""
        why = self._manifest.avoided.get(self._post.host)
        if why is None or self.state.stop is not None:
            return
        failure: Optional[str] = yield Probe(self._manifest.probe, self._manifest.limits.probe_s)
        yield from self._line("probed", {"because": why, "failure": failure})
        yield from self._observe((yield Hear(None)))
        if failure is not None and not self.state.terminated:
            yield from self._stop("probe failed: %s" % failure)

    def _due_s(self) -> float:
        due = next_due_s(self.state, self._now(), self._manifest.limits, self._post.seconds_left)
        return min(due, self._next_poll_s, self._next_heartbeat_s, self._next_sample_s)

    def _observe(self, heard: Tuple[News, ...]) -> Steps[None]:
        for news in heard:
            yield from _HEARD[type(news)](self, news)
        yield from self._note_progress()
        now, limits = self._now(), self._manifest.limits
        if now >= self._next_poll_s:
            yield from self._poll()
        if now >= self._next_sample_s:
            yield from self._sample()
        if now >= self._next_heartbeat_s:
            self._next_heartbeat_s = now + limits.heartbeat_s
            running = [item.job.panda_id for item in self.state.running]
            yield from self._line("heartbeat", {"running": running}, sync=False)

    # --- what is seen -----------------------------------------------------------------------------------------

    def _asked_to_end(self, news: AskedToEnd) -> Steps[None]:
        self.state = self.state._replace(terminated=True)
        yield from ()

    def _payload_ended(self, news: PayloadEnded) -> Steps[None]:
        """What read calibrations is not over before they are known to be the right ones."""
        if self._read_unproved(news.slot):
            self._unproved[news.slot] = news
        else:
            yield from self._slots.payload_ended(news.slot, news.end)

    def _read_unproved(self, slot: int) -> bool:
        [item] = [item for item in self.state.running if item.slot == slot]
        return item.job.kind.needs_caldb and (not self._proved or item.over == "caldb-lost")

    def _gathered(self, news: Gathered) -> Steps[None]:
        yield from self._slots.gathered(news.slot, news.collected)

    def _errand_done(self, news: ErrandDone) -> Steps[None]:
        self._supply.done(news.number, news.outcome)
        yield from ()

    def _note_progress(self) -> Steps[bool]:
        """Note what happened in the slots; whether anything did."""
        progress = self._slots.progress()
        for item in progress:
            yield from self._note(item)
        return bool(progress)

    def _note(self, progress: Progress) -> Steps[None]:
        if isinstance(progress, PayloadOver):
            self._change(progress.slot, placing=True)
            return
        if isinstance(progress, InputsReady):
            self._change(progress.slot, waits=False, started_s=self._now())
            return
        if isinstance(progress, LinesLost):
            self.state = self.state._replace(journal_lost=True)
            yield from self._stop("journal: %s" % progress.error)
            return
        running = tuple(item for item in self.state.running if item.slot != progress.slot)
        self.state = self.state._replace(running=running)
        if isinstance(progress, StepsFailed):
            self.state = self.state._replace(journal_lost=self.state.journal_lost or progress.journal)
            yield from self._stop("a job could not be worked: %s" % progress.error)
        elif isinstance(progress, JobOver):
            if progress.result.closed:
                yield from self._saw_closed()
            if progress.result.facts is not None:
                row = quick_failures_after(
                    self.state.quick_failures, progress.result.facts, self._manifest.limits
                )
                if row != self.state.quick_failures:
                    self.state = self.state._replace(quick_failures=row)
            yield from self._poll_between()

    def _poll_between(self) -> Steps[None]:
        """Look between two payloads, but not for each of many short ones: all nodes share one metadata server."""
        limits = self._manifest.limits
        due = self._polled_s + min(limits.poll_apart_s, limits.poll_s)
        if self._now() >= due:
            yield from self._poll()
        else:
            self._next_poll_s = min(self._next_poll_s, due)

    def _poll(self) -> Steps[None]:
        """Look for `closed` and commands. What cannot be looked at is unknown, and looked at again next time."""
        self._polled_s = self._now()
        self._next_poll_s = self._polled_s + self._manifest.limits.poll_s
        path = self._post.bundle + "/commands.json"
        try:
            if (yield from look(self._post.bundle)):
                yield from self._saw_closed()
            commands = parse_object((yield Read(path))) if (yield Exists(path)) else None
        except OSError as error:
            yield Say("cannot look for closed and commands: %s" % error)
            return
        found = asked_to_end(commands, self._serial)
        if found is not None:
            self._serial, jobs = found
            self.state = self.state._replace(asked_to_end=self.state.asked_to_end | jobs)

    def _saw_closed(self) -> Steps[None]:
        if not self.state.closed:
            self.state = self.state._replace(closed=True)
            yield from self._line("closed_seen", {})

    def _sample(self) -> Steps[None]:
        self._next_sample_s = self._now() + self._manifest.limits.sample_s
        self._supply.look_at_clock(self._now())
        live = tuple(item.slot for item in self.state.running if not item.placing and not item.waits)
        if not live:
            return
        found: Dict[int, Tuple[float, float]] = yield Sample(live)
        for slot, (rss_mib, output_mib) in found.items():
            self._note_output(slot, output_mib)
            over = over_limit(rss_mib, output_mib, self._manifest.limits)
            if over is not None:
                self._change(slot, over=over)

    def _note_output(self, slot: int, output_mib: float) -> None:
        [running] = [item for item in self.state.running if item.slot == slot]
        if output_mib != running.output_mib:
            self._change(slot, output_mib=output_mib, grown_s=self._now())

    # --- what is done -----------------------------------------------------------------------------------------

    def _start(self, action: StartJob) -> Steps[None]:
        pending = self.state.pending
        if pending[0] is action.job:
            pending = pending[1:]
        else:
            pending = tuple(job for job in pending if job is not action.job)
        running = Running(action.job, action.slot, self._now(), waits=bool(action.job.inputs))
        self.state = self.state._replace(pending=pending, running=(*self.state.running, running))
        yield from self._slots.start(action.job, action.slot)

    def _end_payload(self, action: EndPayload) -> Steps[None]:
        self._change(action.slot, ended_by=action.why, kill_at_s=self._now() + action.grace_s)
        yield from self._slots.terminate(action.slot, action.why, action.grace_s > 0)
        ended = self._unproved.pop(action.slot, None)
        if ended is not None:
            yield from self._slots.payload_ended(ended.slot, ended.end)

    def _kill_payload(self, action: KillPayload) -> Steps[None]:
        self._change(action.slot, killed=True)
        yield from self._slots.kill(action.slot)

    def _give_back(self, action: GiveBack) -> Steps[None]:
        back = {(job.panda_id, job.attempt_nr) for job in action.jobs}
        pending = tuple(job for job in self.state.pending if (job.panda_id, job.attempt_nr) not in back)
        self.state = self.state._replace(pending=pending)
        for job in action.jobs:
            self._supply.forget(job)
        jobs = [[panda_id, attempt_nr] for panda_id, attempt_nr in sorted(back)]
        yield from self._line("given_back", {"reason": action.reason, "jobs": jobs})

    def _give_up_caldb(self, action: GiveUpCaldb) -> Steps[None]:
        yield KillKeeper()
        yield from self._database_failed(action.reason, "")

    def _change(self, slot: int, **changes: Any) -> None:
        running = tuple(i._replace(**changes) if i.slot == slot else i for i in self.state.running)
        self.state = self.state._replace(running=running)

    def _line(self, kind: str, body: Dict[str, Any], sync: bool = True) -> Steps[None]:
        """A line beside the steps of a job. Without a journal nothing can be proved: nothing may run on."""
        try:
            yield Line(kind, body, sync)
        except OSError as error:
            self.state = self.state._replace(journal_lost=True)
            yield from self._stop("journal: %s" % error)

    def _stop(self, why: str) -> Steps[None]:
        yield Say(why)
        if self.state.stop is None:
            self.state = self.state._replace(stop=why)

    # --- set-up scripts ---------------------------------------------------------------------------------------

    def _begin_setup(self, action: BeginSetup) -> Steps[None]:
        self._setup_is(action.script, Setup("running", "", self._now() + self._manifest.limits.setup_s))
        try:
            yield RunSetup(action.script)
        except OSError as error:
            yield from self._setup_failed(action.script, str(error), "")

    def _give_up_setup(self, action: GiveUpSetup) -> Steps[None]:
        yield KillSetup(action.script)
        reason = "did not end in %.0f s" % self._manifest.limits.setup_s
        yield from self._setup_failed(action.script, reason, "")

    def _setup_ended(self, news: SetupEnded) -> Steps[None]:
        if self.state.setups[news.script].state != "running":
            return
        if news.failure is not None:
            yield from self._setup_failed(news.script, news.failure, news.log)
            return
        self._setup_is(news.script, Setup("ready"))
        self._slots.setups[news.script] = news.made
        yield from self._line("setup_ready", {"script": news.script}, sync=False)

    def _setup_failed(self, script: str, reason: str, log: str) -> Steps[None]:
        self._setup_is(script, Setup("failed", reason[:200]))
        yield from self._line("setup_failed", {"script": script, "reason": reason[:500], "log": log[-2000:]})

    def _setup_is(self, script: str, setup: Setup) -> None:
        self.state = self.state._replace(setups={**self.state.setups, script: setup})

    # --- the calibration server -------------------------------------------------------------------------------

    def _start_database(self) -> Steps[None]:
        if self.state.stop is not None or not needs_caldb(self.state.pending):
            return
        if self._manifest.caldb is None:
            yield from self._database_failed("the bundle names no snapshot", "")
            return
        try:
            yield StartKeeper()
        except OSError as error:
            yield from self._database_failed(str(error), "")
            return
        self._database_starts()

    def _database_starts(self) -> None:
        due = self._now() + self._manifest.limits.caldb_ready_s + KEEPER_SPARE_S
        self.state = self.state._replace(caldb="starting", caldb_due_s=due)

    def _keeper_said(self, news: KeeperSaid) -> Steps[None]:
        said, kind, caldb = news.said, news.said.get("kind"), self._manifest.caldb
        if kind == "ready" and caldb is not None:
            if self.state.caldb != "ready":
                self._slots.caldb_environment = said["environment"]
                self.state = self.state._replace(caldb="ready", caldb_due_s=None)
                body = {"backend": caldb.backend, "identity": caldb.identity}
                yield from self._line("caldb_ready", {**body, "ready_s": said["ready_s"], "pid": said["pid"]})
            if said.get("proved") is True:
                yield from self._database_proved()
        elif kind == "restarted":
            self._database_starts_anew()
            yield from self._line("caldb_restarted", {"count": said["count"], "reason": said["reason"]})
        elif kind == "failed":
            yield from self._database_failed(str(said.get("reason")), str(said.get("log")))

    def _keeper_ended(self, news: KeeperEnded) -> Steps[None]:
        yield from self._database_failed("its keeper ended", "")

    def _database_starts_anew(self) -> None:
        """Perhaps from another keeper's copy: what read one that nobody has proved is lost."""
        for item in () if self._proved else self.state.running:
            if item.job.kind.needs_caldb and not item.placing:
                self._change(item.slot, over="caldb-lost")
        self._proved = False
        self._database_starts()

    def _database_proved(self) -> Steps[None]:
        self._proved = True
        for slot in [slot for slot in self._unproved if not self._read_unproved(slot)]:
            yield from self._slots.payload_ended(slot, self._unproved.pop(slot).end)

    def _database_failed(self, reason: str, log: str) -> Steps[None]:
        if self.state.caldb != "failed":
            self.state = self.state._replace(caldb="failed", caldb_reason=reason, caldb_due_s=None)
            yield from self._line("caldb_failed", {"reason": reason[:500], "log": log[-2000:]})

    # --- the end ----------------------------------------------------------------------------------------------

    def _finish(self, reason: str) -> Steps[None]:
        yield from self._slots.commit_ends()
        yield LetKeeperGo()
        swept: Swept = yield Sweep()
        body = {
            "reason": reason,
            "left_behind": swept.left_behind,
            "foreign": swept.foreign,
            "foreign_ended": swept.foreign_ended,
            "host": self._post.host,
        }
        yield from self._line("agent_ended", body)


def needs_caldb(jobs: Tuple[Job, ...]) -> bool:
    """Whether a calibration server is started for this list."""
    return any(job.kind.needs_caldb for job in jobs)


_ACTS: Dict[type, Callable[[Agent, Any], Steps[None]]] = {
    StartJob: Agent._start,
    EndPayload: Agent._end_payload,
    KillPayload: Agent._kill_payload,
    GiveBack: Agent._give_back,
    BeginSetup: Agent._begin_setup,
    GiveUpSetup: Agent._give_up_setup,
    GiveUpCaldb: Agent._give_up_caldb,
}
_HEARD: Dict[type, Callable[[Agent, Any], Steps[None]]] = {
    AskedToEnd: Agent._asked_to_end,
    PayloadEnded: Agent._payload_ended,
    Gathered: Agent._gathered,
    ErrandDone: Agent._errand_done,
    SetupEnded: Agent._setup_ended,
    KeeperSaid: Agent._keeper_said,
    KeeperEnded: Agent._keeper_ended,
}
