"""One load run: servers, daemon, jobs, calls that fail, and what came of it."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import urllib.request
from collections import Counter
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any

import yaml

from pilot.control import ControlError as NoAnswer
from pilot.control import ask_daemon
from simulators.demo.parts import Part, PartError, Parts
from simulators.load import layout as load
from simulators.load.checker import NEVER_ANSWERED, Findings, Row, Spawned, check, find_ends, work_of
from simulators.load.kills import Killer, plan_kills, wrap_commands
from simulators.load.layout import LoadLayout
from simulators.load.machine import TRUTH
from simulators.load.watcher import Watcher
from simulators.site.workload import Batch, SubmitFailed, read_json, render_job, render_jobs, submit_jobs
from simulators.torque.control import ControlError, RunningServer, order, read_events, start_server

READY_S = 60.0
LOOK_S, KILL_LOOK_S = 1.0, 0.1
# Jobs of so many kills are there beforehand: enough for a full bundle or two.
KILLS_AHEAD = 6
TAG = "load"


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """What the user asked for: the `shape` of the run.

    `failing`: share of calls and commands that fail. `lost`: share of PanDA's answers that never arrive. `seconds`:
    of each payload. `kills`: so often the daemon gets SIGKILL and is started again.
    """

    shape: load.Shape
    out: Path
    failing: float = 0.05
    seconds: float = 5.0
    limit_s: float = 1800.0
    lost: float = 0.0
    kills: int = 0


@dataclass(slots=True)
class LoadRun:
    """A run under way."""

    options: LoadOptions
    layout: LoadLayout
    parts: Parts
    torque: RunningServer | None = None
    url: str = ""
    orders_url: str = ""
    resent: dict[str, int] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    waiting: list[Any] = field(default_factory=list)
    daemon: Part | None = None
    killer: Killer | None = None
    watchers: list[Watcher] = field(default_factory=list)

    def run(self) -> Findings:
        """From nothing to the findings. Raises PartError, OSError."""
        self._servers()
        batch = self._batch()
        self._configure()
        self.waiting = render_jobs(batch)
        self._submit()
        self._start_daemon()
        began = time.monotonic()
        self._fail(self.options.failing, self.options.lost)
        complete = self._follow(batch, began)
        self.facts["finished_s"] = round(time.monotonic() - began, 1)
        if complete:
            self._fail(0.0, 0.0)
            if self.killer is not None:
                self.killer.disarm()
            self._mind_kills()
            self._settle(began)
        self.facts["wall_s"] = round(time.monotonic() - began, 1)
        for watcher in self.watchers:
            watcher.stop()
        if self.daemon is not None:
            self.parts.end(self.daemon)
        return self._judge(batch)

    # --- parts ------------------------------------------------------------------------------------------------

    def _servers(self) -> None:
        out, ready = self.layout.out, self.layout.out / "panda-ready.json"
        settings, torque = out / "panda.json", out / "torque.json"
        settings.write_text(json.dumps(load.panda_settings()))
        torque.write_text(json.dumps(load.torque_config(self.options.shape)))
        argv = [
            sys.executable,
            "-m",
            "simulators.panda.http",
            "--ready",
            str(ready),
            "--config",
            str(settings),
        ]
        panda = self.parts.start("panda", argv)
        with open(out / "torque.log", "a") as log:
            self.torque = start_server(
                str(torque), str(self.layout.torque), log, module="simulators.load.server"
            )
        self.parts.wait_for(panda, ready.exists, READY_S)
        facts = json.loads(ready.read_text())
        self.url, self.orders_url = facts["url"], facts["orders_url"]

    def _batch(self) -> Batch:
        outputs = str(self.layout.outputs)
        return Batch(TAG, self.options.shape.jobs, load.QUEUE, outputs, self.options.seconds)

    def _configure(self) -> None:
        if self.torque is None:
            raise PartError("the batch server was not started")
        commands, shape = self.torque.ready["bin"], self.options.shape
        if self.options.kills:
            commands, random = wrap_commands(self.layout.commands, commands), Random(8)
            kills = plan_kills(self.options.kills, random)
            self.killer = Killer(kills, self.layout.commands, self.orders_url, time.monotonic, random)
        python = os.path.realpath(sys.executable)
        config = load.pilot_config(self.layout, shape, self.url, commands, python)
        self.layout.config.write_text(yaml.safe_dump(config, sort_keys=False))

    def _submit(self) -> None:
        """All jobs; where the daemon is to be killed, no more than its share of the kills, so that none is too late."""
        due = self.options.shape.jobs
        if self.killer is not None:
            due = due * (sum(self.killer.done.values()) + KILLS_AHEAD) // self.options.kills
        count = due - (self.options.shape.jobs - len(self.waiting))
        if count > 0 and self.waiting:
            submit_jobs(self.orders_url, self.waiting[:count])
            del self.waiting[:count]

    def _start_daemon(self) -> None:
        """Start it and, when it is ready, prepare its next kill."""
        argv = [sys.executable, "-m", "pilot", "run", "-c", str(self.layout.config)]
        daemon = self.daemon = self.parts.start("pilot", argv)
        self.watchers.append(Watcher(daemon.process.pid))
        self.parts.wait_for(daemon, self._is_ready, READY_S)
        if self.killer is not None:
            self.killer.arm(daemon.process.pid)

    def _is_ready(self) -> bool:
        try:
            return bool(ask_daemon(self.layout.state, "status")["queues"])
        except (NoAnswer, KeyError):
            return False

    def _mind_kills(self) -> None:
        """A daemon that was killed is started again; a kill that is due is carried out."""
        if self.killer is None or self.daemon is None:
            return
        self.killer.look()
        if self._was_killed():
            self.killer.killed()
            self.parts.running.remove(self.daemon)
            self._start_daemon()

    def _was_killed(self) -> bool:
        armed = self.killer is not None and self.killer.armed is not None
        return armed and self.daemon is not None and self.daemon.process.poll() == -signal.SIGKILL

    def _check_parts(self) -> None:
        """Raise PartError if a part has ended that should run; a daemon that was killed is started again soon."""
        try:
            self.parts.check()
        except PartError:
            if not self._was_killed():
                raise

    def _fail(self, share: float, lost: float) -> None:
        for name, value in (("failing", share), ("losing", lost)):
            body = json.dumps({"name": name, "share": value}).encode()
            with urllib.request.urlopen(f"{self.orders_url}/sim/fault", body, timeout=READY_S):
                pass
        order(str(self.layout.torque), {"verb": "fail_share", "share": share})

    # --- following --------------------------------------------------------------------------------------------

    def _follow(self, batch: Batch, began: float) -> bool:
        """Until every work has a finished job; what the server gave up unanswered is submitted again."""
        pause, failed = threading.Event(), 0
        while time.monotonic() - began < self.options.limit_s:
            self._mind_kills()
            self._submit()
            self._check_parts()
            if self.torque is not None and self.torque.process.poll() is not None:
                raise PartError(f"the batch server ended early (log: {self.layout.out / 'torque.log'})")
            counts = read_json(f"{self.orders_url}/sim/counts")["jobs"]
            if counts.get("failed", 0) > failed:
                failed = counts["failed"]
                self._resend(batch)
            if counts.get("finished", 0) >= self.options.shape.jobs:
                return True
            pause.wait(LOOK_S if self.killer is None else KILL_LOOK_S)
        return False

    def _resend(self, batch: Batch) -> None:
        """As prodsys does: the next attempt of a job whose failure is not its own."""
        rows = self._brief()
        finished = {work_of(row[3]) for row in rows if row[1] == "finished"}
        latest: dict[str, list[Any]] = {}
        for row in rows:
            latest[work_of(row[3])] = row
        again = [work for work, row in latest.items() if row[1] == "failed" and work not in finished]
        jobs = []
        for work in again:
            attempt = self.resent[work] = self.resent.get(work, 1) + 1
            jobs.append(render_job(replace(batch, count=1), int(work.rpartition(".")[2]), attempt))
        if jobs:
            submit_jobs(self.orders_url, jobs)

    def _brief(self) -> list[list[Any]]:
        with urllib.request.urlopen(f"{self.orders_url}/sim/brief", timeout=READY_S) as reply:
            rows: list[list[Any]] = json.load(reply)
        return rows

    def _settle(self, began: float) -> None:
        """Until no job waits or runs at the daemon, or the limit.

        Those may stay that are judged and that the server gave up in the meantime: their outputs are kept for salvage.
        """
        pause = threading.Event()
        while time.monotonic() - began < self.options.limit_s:
            try:
                queue = ask_daemon(self.layout.state, "status")["queues"][0]
            except (NoAnswer, KeyError, IndexError):
                queue = {}
            if queue and not any(queue["jobs"][state] for state in ("pooled", "bundled", "started")):
                return
            pause.wait(LOOK_S)

    # --- judging ----------------------------------------------------------------------------------------------

    def _judge(self, batch: Batch) -> Findings:
        counts = read_json(f"{self.orders_url}/sim/counts")
        asked = order(str(self.layout.torque), {"verb": "list_asked"})["asked"]
        rows = self._brief()
        self._keep_ends()
        if self.torque is not None:
            self.torque.stop()
            self.torque = None
        failed = sum(event["event"] == "answer_lost" for event in read_events(str(self.layout.torque)))
        truth = json.loads((self.layout.torque / TRUTH).read_text())
        spawned = [
            Spawned(run["panda_id"], run["end_s"] is not None, run["ended_by"]) for run in truth["payloads"]
        ]
        placed = Counter(path.name for path in self.layout.outputs.rglob("*.root"))
        works = [f"{batch.tag}.{number}" for number in range(batch.count)]
        findings = check(works, [self._row(row, placed) for row in rows], spawned)
        calls = {path: count for path, count in counts["calls"].items() if not path.startswith("/sim/")}
        self.facts |= {
            "jobs": self.options.shape.jobs,
            "failing": self.options.failing,
            "answers_lost": self.options.lost,
            "dialect": self.options.shape.dialect,
            "resent": sum(attempt - 1 for attempt in self.resent.values()),
            "never_answered": sum(row[4] == NEVER_ANSWERED for row in rows),
            "payloads": len(spawned),
            "lost": len(findings.lost),
            "doubled": len(findings.doubled),
            "stale": len(findings.stale),
            "kills": dict(sorted(self.killer.done.items())) if self.killer is not None else {},
            "cpu_s": round(sum(watcher.cpu_s for watcher in self.watchers), 1),
            "commands_cpu_s": round(sum(watcher.commands_cpu_s for watcher in self.watchers), 1),
            "rss_mib": round(max(watcher.rss_mib for watcher in self.watchers), 1),
            "requests": sum(calls.values()),
            "requests_failed": counts["spoilt"],
            "updates": counts["updates_received"],
            "commands": sum(asked.values()),
            "commands_failed": failed,
            "calls": calls,
            "asked": asked,
        }
        return findings

    def _keep_ends(self) -> None:
        """Write down how each work ended: what two runs must agree on, whatever was lost on the way."""
        placed = {path.name: path for path in self.layout.outputs.rglob("*") if path.is_file()}
        table = read_json(f"{self.orders_url}/sim/table")["jobs"]
        self.layout.ends.write_text(json.dumps(find_ends(table, placed), indent=1) + "\n")

    @staticmethod
    def _row(row: list[Any], placed: Counter[str]) -> Row:
        panda_id, status, attempt, name, dispatcher, pilot = row
        number = int(work_of(name).rpartition(".")[2])
        output = f"mDST-1-{number:05}-3-8.a{attempt}.root"
        return Row(panda_id, status, work_of(name), int(dispatcher or 0), int(pilot or 0), placed[output] > 0)


def run_load(options: LoadOptions) -> int:
    """Run, write load.json, print what came of it. Exit code 0: clean; 1: findings, or it could not be run."""
    options.out.mkdir(parents=True, exist_ok=True)
    layout = LoadLayout(options.out.resolve())
    parts = Parts(layout.out / "run.json", layout.out, [], dict(os.environ))
    run = LoadRun(options, layout, parts)
    try:
        findings = run.run()
    except (PartError, SubmitFailed, ControlError, OSError) as error:
        print(f"simsite: {error}", file=sys.stderr)
        return 1
    finally:
        parts.end_all()
        if run.torque is not None:
            run.torque.stop()
    layout.report.write_text(json.dumps({**run.facts, "findings": asdict(findings)}, indent=1) + "\n")
    for name, value in run.facts.items():
        if not isinstance(value, dict):
            print(f"{name:<16} {value}")
    for kind, items in asdict(findings).items():
        for name, text in list(items.items())[:10]:
            print(f"{kind}: {name}: {text}")
    print("clean" if findings.clean else "NOT clean", flush=True)
    return 0 if findings.clean else 1
