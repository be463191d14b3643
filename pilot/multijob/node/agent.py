"""The agent of one node: carries out what `plan.decide` says and notes what happened in its state. I/O only."""

from __future__ import annotations

import os
import shutil
import sys
import time
from typing import Any, Callable, Dict, Optional, Tuple

from pilot.caldb.prctl import become_subreaper
from pilot.multijob.node.database import Database, keeper_argv
from pilot.multijob.node.files import Exists, Read, perform, run_steps
from pilot.multijob.node.gate import parse_object
from pilot.multijob.node.journal import JournalWriter
from pilot.multijob.node.manifest import Job, Manifest
from pilot.multijob.node.plan import (
    EndAgent,
    EndPayload,
    GiveBack,
    GiveUpCaldb,
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
from pilot.multijob.node.processes import live_descendants, snapshot, sweep
from pilot.multijob.node.slots import JobOver, News, PayloadOver, Post, Slots, StepsFailed
from pilot.multijob.node.steps import look
from pilot.multijob.node.wake import Wake

# Memory and output of payloads are looked at this often: a payload grows a few 100 MiB in that time at most.
SAMPLE_S = 5.0
# A keeper keeps to caldb_ready_s itself; one that says nothing for so much longer hangs.
KEEPER_SPARE_S = 15.0
# A keeper that was let go of stops its server in 0.1 s; one that does not within this time is swept away.
KEEPER_STOP_S = 10.0


class Agent:
    """Everything that one agent holds. `run` returns when it has ended in order."""

    def __init__(self, manifest: Manifest, post: Post, journal: JournalWriter, started_mono: float) -> None:
        self._manifest, self._post, self._journal = manifest, post, journal
        self._started_mono = started_mono
        self._wake = Wake()
        self._slots = Slots(manifest, post, journal, self._wake.call)
        self._database: Optional[Database] = None
        self._serial = 0
        self._next_poll_s = 0.0
        self._next_sample_s = SAMPLE_S
        self._next_heartbeat_s = manifest.limits.heartbeat_s
        self.state = NodeState(pending=manifest.jobs.get(post.node, ()))

    def run(self) -> None:
        """Work the list. Whatever happens, what was started is ended and the local directories are removed."""
        reason = "error"
        try:
            become_subreaper()
            for job in self._manifest.malformed.get(self._post.node, ()):
                self._line("given_back", {"reason": job.reason, "jobs": [[job.panda_id, job.attempt_nr]]})
            try:
                os.mkdir(self._post.own, 0o700)
            except OSError as error:
                self._stop("no local directory: %s" % error)
            self._start_database()
            reason = self._loop()
        finally:
            self._finish(reason)

    def _loop(self) -> str:
        self._poll()
        while True:
            manifest, left = self._manifest, self._post.seconds_left
            actions = decide(self.state, self._now(), manifest.limits, manifest.slots, left)
            for action in actions:
                if isinstance(action, EndAgent):
                    return action.reason
                _ACTS[type(action)](self, action)
            if not actions:
                self._wait()
            self._observe()

    def _now(self) -> float:
        return time.monotonic() - self._started_mono

    def _wait(self) -> None:
        due = next_due_s(self.state, self._manifest.limits, self._post.seconds_left)
        due = min(due, self._next_poll_s, self._next_heartbeat_s, self._next_sample_s)
        database = self._database
        fds = [database.fd] if database is not None and database.open else []
        self._wake.wait(due - self._now(), fds)

    def _observe(self) -> None:
        if self._wake.asked_to_end and not self.state.terminated:
            self.state = self.state._replace(terminated=True)
        for news in self._slots.news():
            self._note(news)
        self._hear_database()
        now, limits = self._now(), self._manifest.limits
        if now >= self._next_poll_s:
            self._poll()
        if now >= self._next_sample_s:
            self._sample()
        if now >= self._next_heartbeat_s:
            self._next_heartbeat_s = now + limits.heartbeat_s
            running = [item.job.panda_id for item in self.state.running]
            self._line("heartbeat", {"running": running}, sync=False)

    # --- what is seen -----------------------------------------------------------------------------------------

    def _note(self, news: News) -> None:
        if isinstance(news, PayloadOver):
            self._change(news.slot, placing=True)
            return
        running = tuple(item for item in self.state.running if item.slot != news.slot)
        self.state = self.state._replace(running=running)
        if isinstance(news, StepsFailed):
            self.state = self.state._replace(journal_lost=self.state.journal_lost or news.journal)
            self._stop("a job could not be worked: %s" % news.error)
        elif isinstance(news, JobOver):
            if news.result.closed:
                self._saw_closed()
            if news.result.facts is not None:
                row = quick_failures_after(
                    self.state.quick_failures, news.result.facts, self._manifest.limits
                )
                self.state = self.state._replace(quick_failures=row)
            self._poll()

    def _poll(self) -> None:
        """Look for `closed` and commands. What cannot be looked at is unknown, and looked at again next time."""
        self._next_poll_s = self._now() + self._manifest.limits.poll_s
        path = self._post.bundle + "/commands.json"
        try:
            if run_steps(look(self._post.bundle), perform):
                self._saw_closed()
            commands = parse_object(perform(Read(path))) if perform(Exists(path)) else None
        except OSError as error:
            print("cannot look for closed and commands: %s" % error, file=sys.stderr)
            return
        found = asked_to_end(commands, self._serial)
        if found is not None:
            self._serial, jobs = found
            self.state = self.state._replace(asked_to_end=self.state.asked_to_end | jobs)

    def _saw_closed(self) -> None:
        if not self.state.closed:
            self.state = self.state._replace(closed=True)
            self._line("closed_seen", {})

    def _sample(self) -> None:
        self._next_sample_s = self._now() + SAMPLE_S
        live = [item for item in self.state.running if not item.placing]
        seen = snapshot() if live else {}
        for item in live:
            found = self._slots.sample(item.slot, seen)
            if found is not None:
                over = over_limit(found[0], found[1], self._manifest.limits)
                self._change(item.slot, over=over or item.over)

    # --- what is done -----------------------------------------------------------------------------------------

    def _start(self, action: StartJob) -> None:
        pending = tuple(job for job in self.state.pending if job is not action.job)
        running = Running(action.job, action.slot, self._now())
        self.state = self.state._replace(pending=pending, running=(*self.state.running, running))
        self._slots.start(action.job, action.slot)

    def _end_payload(self, action: EndPayload) -> None:
        self._change(action.slot, ended_by=action.why, kill_at_s=self._now() + action.grace_s)
        self._slots.terminate(action.slot, action.why, action.grace_s > 0)

    def _kill_payload(self, action: KillPayload) -> None:
        self._change(action.slot, killed=True)
        self._slots.kill(action.slot)

    def _give_back(self, action: GiveBack) -> None:
        back = {(job.panda_id, job.attempt_nr) for job in action.jobs}
        pending = tuple(job for job in self.state.pending if (job.panda_id, job.attempt_nr) not in back)
        self.state = self.state._replace(pending=pending)
        jobs = [[panda_id, attempt_nr] for panda_id, attempt_nr in sorted(back)]
        self._line("given_back", {"reason": action.reason, "jobs": jobs})

    def _give_up_caldb(self, action: GiveUpCaldb) -> None:
        if self._database is not None:
            self._database.process.kill()
        self._database_failed(action.reason, "")

    def _change(self, slot: int, **changes: Any) -> None:
        running = tuple(i._replace(**changes) if i.slot == slot else i for i in self.state.running)
        self.state = self.state._replace(running=running)

    def _line(self, kind: str, body: Dict[str, Any], sync: bool = True) -> None:
        """A line beside the steps of a job. Without a journal nothing can be proved: nothing may run on."""
        try:
            self._journal.write(kind, body, sync)
        except OSError as error:
            self.state = self.state._replace(journal_lost=True)
            self._stop("journal: %s" % error)

    def _stop(self, why: str) -> None:
        print(why, file=sys.stderr)
        if self.state.stop is None:
            self.state = self.state._replace(stop=why)

    # --- the calibration server -------------------------------------------------------------------------------

    def _start_database(self) -> None:
        manifest, post = self._manifest, self._post
        if self.state.stop is not None or not needs_caldb(self.state.pending):
            return
        if manifest.caldb is None:
            self._database_failed("the bundle names no snapshot", "")
            return
        try:
            argv = keeper_argv(post.agent_file, post.bundle, post.database)
            self._database = Database(post.database, argv)
        except OSError as error:
            self._database_failed(str(error), "")
            return
        self._slots.others.add(self._database.process.pid)
        self._database_starts()

    def _database_starts(self) -> None:
        due = self._now() + self._manifest.limits.caldb_ready_s + KEEPER_SPARE_S
        self.state = self.state._replace(caldb="starting", caldb_due_s=due)

    def _hear_database(self) -> None:
        database = self._database
        if database is None:
            return
        status = None if database.ended else self._slots.take_end(database.process.pid)
        for said in database.said():
            if said.get("kind") == "ready":
                self._slots.caldb_environment = said["environment"]
                self.state = self.state._replace(caldb="ready", caldb_due_s=None)
                assert self._manifest.caldb is not None
                body = {"backend": self._manifest.caldb.backend, "identity": self._manifest.caldb.identity}
                self._line("caldb_ready", {**body, "ready_s": said["ready_s"], "pid": said["pid"]})
            elif said.get("kind") == "restarted":
                self._database_starts()
                self._line("caldb_restarted", {"count": said["count"], "reason": said["reason"]})
            elif said.get("kind") == "failed":
                self._database_failed(str(said.get("reason")), str(said.get("log")))
        if status is not None:
            database.note_end(status)
            self._database_failed("its keeper ended", "")

    def _database_failed(self, reason: str, log: str) -> None:
        if self.state.caldb != "failed":
            self.state = self.state._replace(caldb="failed", caldb_reason=reason, caldb_due_s=None)
            self._line("caldb_failed", {"reason": reason[:500], "log": log[-2000:]})

    # --- the end ----------------------------------------------------------------------------------------------

    def _finish(self, reason: str) -> None:
        database = self._database
        if database is not None:
            database.release()
            end = time.monotonic() + KEEPER_STOP_S
            while not database.ended and time.monotonic() < end:
                self._slots.reap()
                status = self._slots.take_end(database.process.pid)
                if status is not None:
                    database.note_end(status)
                else:
                    self._wake.wait(end - time.monotonic())
        left = sweep(lambda: live_descendants(os.getpid()), self._slots.reap)
        for directory in (self._post.own, self._post.database):
            shutil.rmtree(directory, ignore_errors=True)
        self._line("agent_ended", {"reason": reason, "left_behind": left})
        self._journal.close()


def needs_caldb(jobs: Tuple[Job, ...]) -> bool:
    """Whether a calibration server is started for this list."""
    return any(job.kind.needs_caldb for job in jobs)


_ACTS: Dict[type, Callable[[Agent, Any], None]] = {
    StartJob: Agent._start,
    EndPayload: Agent._end_payload,
    KillPayload: Agent._kill_payload,
    GiveBack: Agent._give_back,
    GiveUpCaldb: Agent._give_up_caldb,
}
