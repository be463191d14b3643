"""The chain itself: makes input, starts every part, follows the task to its archive, ends every part."""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from simulators.demo import layout as demo
from simulators.demo.database import start_mariadb, stop_mariadb
from simulators.demo.layout import Layout
from simulators.demo.parts import PartError, Parts
from simulators.demo.progress import Progress
from simulators.torque.control import RunningServer, kill_node, start_server

READY_S = 60.0
# The whole demo must not run on for ever if something is stuck: three times what it takes here.
LIMIT_S = 600.0
LOOK_S = 0.25


@dataclass(frozen=True, slots=True)
class Options:
    """What the user asked for."""

    root: Path
    fault: str
    database: str
    backend: str
    mdst_events: int = 14000


@dataclass(slots=True)
class Chain:
    """One run of the chain."""

    options: Options
    layout: Layout
    parts: Parts
    progress: Progress
    torque: RunningServer | None = None
    url: str = ""
    killed: bool = False
    seen_links: set[str] = field(default_factory=set)

    @property
    def python(self) -> str:
        """This environment's interpreter."""
        return sys.executable

    def run(self) -> None:
        """Everything from raw files to the archive; raises PartError."""
        try:
            self._input()
            self._servers()
            self._task()
            self._production()
        finally:
            with self.parts.interrupts.held():
                self._end()

    # --- input ------------------------------------------------------------------------------------------------

    def _input(self) -> None:
        lay, payload = self.layout, [self.python, "-m", "simulators.payload"]
        self.progress.say("writing raw files, catalogue and calibrations")
        runs = ["--runs", str(len(demo.RUNS)), "--first-run", str(demo.RUNS[0])]
        raw = [
            "write-raw",
            "--out",
            str(lay.raw),
            "--catalogue",
            str(lay.catalogue),
            "--chunks",
            str(demo.CHUNKS),
        ]
        self.parts.run("raw", [*payload, *raw, *runs, "--seed", str(demo.SEED)])
        calibrations = [
            "write-calibrations",
            "--out",
            str(lay.calibrations),
            "--size-mb",
            str(demo.CALIBRATION_MB),
        ]
        self.parts.run("calibrations", [*payload, *calibrations, *runs, "--seed", str(demo.SEED)])
        count = len(list(lay.raw.glob("*.raw")))
        self.progress.stage("input", count, count)
        self.progress.say("building the snapshot of the calibration database")
        facts = json.loads((lay.calibrations / "calibrations.json").read_text())
        suffix = "tar" if self.options.backend == "mariadb" else "sqlite"
        self.parts.run(
            "snapshot",
            [
                self.python, "-m", "pilot", "caldb", "build",
                str(lay.calibrations / "calibrations.sql"), str(lay.out / f"snapshot.{suffix}"),
                "--identity", str(facts["identity"]), "--backend", self.options.backend,
                "--probe", str(facts["probe"]["sql"]), "--expect", str(facts["probe"]["expect"]),
                "--runs", str(demo.RUNS[0]), str(demo.RUNS[-1]),
            ],
        )  # fmt: skip

    # --- servers ----------------------------------------------------------------------------------------------

    def _servers(self) -> None:
        lay = self.layout
        (lay.out / "panda-times.json").write_text(json.dumps(demo.panda_times()))
        ready = lay.out / "panda-ready.json"
        panda = self.parts.start(
            "panda",
            [
                self.python, "-m", "simulators.panda.http", "--ready", str(ready), "--dump", str(lay.table),
                "--config", str(lay.out / "panda-times.json"), "--access-log", str(lay.logs / "panda-access.log"),
            ],
        )  # fmt: skip
        config = lay.out / "torque.json"
        config.write_text(json.dumps(demo.torque_config(lay)))
        with self.parts.interrupts.held(), open(lay.logs / "torque.log", "a") as log:
            self.torque = start_server(str(config), str(lay.torque), log)
            self.parts.extra.append(
                {
                    "name": "torque",
                    "pid": self.torque.ready["pid"],
                    "start": self.torque.ready.get("pid_start"),
                }
            )
            self.parts.record()
        self.parts.start(
            "tape", [self.python, "-m", "simulators.storage", "--root", str(lay.tape), "--delay-s", "0.5"]
        )
        self.parts.wait_for(panda, ready.exists, READY_S)
        self.url = str(json.loads(ready.read_text())["url"])
        self.parts.environment["PATH"] = f"{self.torque.ready['bin']}:{self.parts.environment['PATH']}"
        self.progress.say(f"PanDA serves {self.url}; qsub, qstat, qdel are in {self.torque.ready['bin']}")

    def _task(self) -> None:
        lay = self.layout
        database: dict[str, Any] = {"engine": "sqlite", "path": str(lay.state / "prodsys.sqlite")}
        if self.options.database == "mariadb":
            database = start_mariadb(self.parts, lay)
        config, task = lay.out / "prodsys.yaml", lay.out / "task.yaml"
        config.write_text(yaml.safe_dump(demo.prodsys_config(lay, self.url, database), sort_keys=False))
        task.write_text(yaml.safe_dump(demo.task_file(lay, self.options.mdst_events), sort_keys=False))
        self.parts.environment["PRODSYS_CONFIG"] = str(config)
        prodsys = [self.python, "-m", "prodsys_core"]
        self.parts.run("prodsys-migrate", [*prodsys, "migrate", "-v", "0"])
        self.parts.run("prodsys-task", [*prodsys, "task", "create", str(task)])
        self.parts.run("prodsys-task", [*prodsys, "task", "set", demo.TASK, "ready"])
        self.parts.run("prodsys-tick", [*prodsys, "tick", "--once"])
        self.parts.run("prodsys-task", [*prodsys, "task", "set", demo.TASK, "send"])
        self.progress.say("task is set to send")

    # --- production -------------------------------------------------------------------------------------------

    def _production(self) -> None:
        lay = self.layout
        compass = (self.options.root / "pilot/experiments/compass.yaml").read_text()
        (lay.out / "experiment.yaml").write_text(demo.experiment_text(compass))
        paths = [str(Path(self.python).parent), "/usr/bin", "/bin"]
        base = os.path.realpath(self.python)
        config = demo.pilot_config(lay, self.url, self.options.backend, base, paths, str(self.options.root))
        (lay.out / "pilot.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
        self.parts.start("prodsys", [self.python, "-m", "prodsys_core", "tick", "--loop", "0.5"])
        self.parts.start("pilot", [self.python, "-m", "pilot", "run", "-c", str(lay.out / "pilot.yaml")])
        ends, looked_s, done = time.monotonic() + LIMIT_S, 0.0, False
        pause = threading.Event()
        while not done:
            self.parts.check()
            self._keep_chunks()
            if self.options.fault == "node" and not self.killed:
                self._maybe_kill_node()
            if time.monotonic() - looked_s >= 1.0:
                looked_s = time.monotonic()
                done = self._look()
            if time.monotonic() > ends:
                raise PartError(f"the task was not archived within {LIMIT_S:.0f} s (logs: {lay.logs})")
            pause.wait(LOOK_S)

    def _look(self) -> bool:
        """Show progress from PanDA's table; ask prodsys only when tape has something, and end when archived."""
        with urllib.request.urlopen(f"{self.url}/sim/table", timeout=30) as answer:
            jobs = json.load(answer)["jobs"]
        merges = [job for job in jobs if str(job["attributes"]["transformation"]).startswith("merging")]
        works = {str(job["job_name"]).rpartition("-")[0] for job in jobs if job not in merges}
        chunks = len(demo.RUNS) * demo.CHUNKS
        self.progress.stage("submitted", len(works), chunks)
        finished = [job for job in jobs if job["status"] == "finished"]
        self.progress.stage("reconstructed", sum(job not in merges for job in finished), chunks)
        if merges:
            names = {str(job["job_name"]) for job in merges}
            self.progress.stage("merged", sum(job in merges for job in finished), len(names))
        receipts = self.layout.tape / "receipts"
        on_tape = len(list(receipts.rglob("*.json"))) if receipts.exists() else 0
        if on_tape:
            self.progress.stage("on tape", on_tape, max(on_tape, len(merges)))
        merged = bool(merges) and all(job["status"] in ("finished", "failed", "cancelled") for job in jobs)
        return (on_tape > 0 or merged) and self._task_status() == "archived"

    def _task_status(self) -> str:
        """The task's status; when every job is done the manager's part is done too: ask for the archive."""
        argv = [self.python, "-m", "prodsys_core", "task", "list", demo.TASK, "--json"]
        part = self.parts.start("prodsys-list", argv)
        part.process.wait()
        self.parts.running.remove(part)
        text = part.log.read_text()
        rows = json.loads(text[text.rindex("\n[") + 1 :] if "\n[" in text else text)
        status = str(rows[0]["status"])
        part.log.write_text("")
        if rows[0]["runs"].get("suspicious"):
            raise PartError(
                f"cross-check: {rows[0]['runs']['suspicious']} run(s) suspicious (log: prodsys.log)"
            )
        if status == "done":
            self.parts.run(
                "prodsys-task", [self.python, "-m", "prodsys_core", "task", "set", demo.TASK, "archive"]
            )
        return status

    def _keep_chunks(self) -> None:
        """Hard links to chunk outputs as they are placed: the archive removes the names, not the evidence."""
        for name in ("mDST.chunks", "TRAFDIC", "evtdump"):
            for directory in self.layout.outputs.glob(f"*/*/*/{name}"):
                for path in directory.rglob("*"):
                    if path.name not in self.seen_links and path.is_file() and not path.name.startswith("."):
                        try:
                            os.link(path, self.layout.kept / path.name)
                        except OSError:
                            continue
                        self.seen_links.add(path.name)

    def _maybe_kill_node(self) -> None:
        """The fault: a node dies when at least one payload on it has ended and one runs."""
        for path in (self.layout.shared / "bundles").glob("*/node.*.journal"):
            kinds = [
                line.split(b'"kind":"', 1)[-1].split(b'"', 1)[0] for line in path.read_bytes().splitlines()
            ]
            ended = kinds.count(b"job_ended")
            if ended and kinds.count(b"job_started") > ended and b"agent_ended" not in kinds:
                node = self._node_of(path)
                if node is None:
                    continue
                died = kill_node(str(self.layout.torque), node)
                self.killed = True
                self.progress.say(f"node {node} died: {died} processes killed, its local directory gone")
                return

    def _node_of(self, journal: Path) -> str | None:
        """The batch system's name of the node whose agent writes this journal."""
        index = journal.name.split(".")[1]
        for line in reversed((self.layout.torque / "events.jsonl").read_text().splitlines()):
            event = json.loads(line)
            argv = event.get("argv", [])
            if event.get("event") == "rank_started" and str(journal.parent) in argv:
                if argv[argv.index("--node") + 1] == index:
                    return str(event["node"])
        return None

    def _end(self) -> None:
        """End every part, the pilot first; keep the batch server's events as evidence."""
        order = {"pilot": 0, "prodsys": 1}
        for part in sorted(self.parts.running, key=lambda part: order.get(part.name, 2)):
            if part.name not in ("panda", "tape", "mariadb"):
                self.parts.end(part)
        if self.torque is not None:
            events = self.layout.torque / "events.jsonl"
            self.torque.stop()
            if events.exists():
                shutil.copy(events, self.layout.out / "torque-events.jsonl")
        stop_mariadb(self.parts)
        self.parts.end_all()
