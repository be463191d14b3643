"""Carries out what the model says with real processes: batch scripts, nodes, ranks, output files.

It decides nothing about batch jobs (model.py); applications are in applications.py.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from simulators.torque.applications import Applications
from simulators.torque.job import BatchJob, JobOver, KillJob, StartJob, TerminateJob
from simulators.torque.jobenv import job_environment, node_file
from simulators.torque.keepers import KeeperProcess, reap_adopted
from simulators.torque.model import TorqueModel
from simulators.torque.sweep import descendants, sweep
from simulators.torque.wire import Message, Peer

_SCRIPT_UMASK = 0o077
_STOP_LIMIT_S = 10.0
# What a batch job's exit status is when its script could not be run.
_START_FAILURES = {"chdir": -2, "exec": 127, "start": -1}
# ... and when its output files could not be made.
_NO_FILES = -9


@dataclass(slots=True)
class _JobRun:
    """A batch script under way. `spool`: its stdout and stderr (one file when joined)."""

    keeper: KeeperProcess
    spool: dict[str, str]


@dataclass(slots=True)
class Places:
    """Directories of a server. `local_root` holds one directory for each node."""

    runtime: str
    local_root: str
    bin_dir: str
    path: str = field(default="")

    def inside(self, *parts: str) -> str:
        return os.path.join(self.runtime, *parts)


class SimulatedMachine:
    """Nodes, running batch scripts and applications.

    `watch(peer, callback)` makes the owner call back when something can be read; `log(event, **fields)` keeps
    what happened.
    """

    def __init__(
        self,
        model: TorqueModel,
        places: Places,
        now: Callable[[], float],
        watch: Callable[[Peer, Callable[[], None] | None], None],
        log: Callable[..., None],
    ) -> None:
        self._model, self._places, self._now, self._watch, self._log = model, places, now, watch, log
        self._site = model.site
        self._nodes: dict[int, KeeperProcess] = {}
        self._runs: dict[str, _JobRun] = {}
        self._retired: list[KeeperProcess] = []
        self.applications = Applications(model, self._nodes, self.local_dir, now, log)

    # --- start and end of the machine ---------------------------------------------------------------------------

    def start(self) -> None:
        """Make the directories, boot every node, and return when all of them answer."""
        for name in ("jobs", "spool", "aux", "undelivered"):
            os.makedirs(self._places.inside(name), mode=0o700, exist_ok=True)
        os.makedirs(self._places.local_root, mode=0o700, exist_ok=True)
        for number in self._model.nodes:
            shutil.rmtree(self.local_dir(number), ignore_errors=True)
            os.mkdir(self.local_dir(number), 0o700)
            self._nodes[number] = KeeperProcess()
        for number, keeper in self._nodes.items():
            if not keeper.peer.receive():
                raise OSError(f"node {self._site.node_name(number)} does not answer")
            self._watch(keeper.peer, partial(self._node_speaks, number))

    def stop(self) -> int:
        """End everything that runs and remove the node-local directories; returns how many strays there were."""
        for run in self._runs.values():
            run.keeper.sweep()
        for keeper in (*self._nodes.values(), *(run.keeper for run in self._runs.values())):
            self._watch(keeper.peer, None)
            keeper.end()
        for keeper in (*self._nodes.values(), *(run.keeper for run in self._runs.values())):
            if not keeper.wait(_STOP_LIMIT_S):
                keeper.kill()
            keeper.close()
        for keeper in self._retired:
            keeper.close()
        for batch_id, run in self._runs.items():
            self._deliver(self._model.jobs[batch_id], run)
        strays = reap_adopted(frozenset())
        for number in self._model.nodes:
            shutil.rmtree(self.local_dir(number), ignore_errors=True)
        return strays

    def local_dir(self, number: int) -> str:
        """The node-local directory of a node."""
        return os.path.join(self._places.local_root, self._site.node_name(number))

    # --- batch jobs ----------------------------------------------------------------------------------------------

    def next_at(self) -> float | None:
        """Processes tell by themselves when something has happened."""
        return None

    def carry_out(self) -> None:
        """Do what the model wants done by now."""
        self._retired = [keeper for keeper in self._retired if not keeper.wait(0)]
        while outputs := self._model.advance(self._now()):
            for output in outputs:
                match output:
                    case StartJob(batch_id):
                        self._start_job(self._model.jobs[batch_id])
                    case TerminateJob(batch_id, note):
                        self._terminate(batch_id, note)
                    case KillJob(batch_id):
                        if batch_id in self._runs:
                            self._runs[batch_id].keeper.sweep()
                    case JobOver(batch_id):
                        self._job_over(output)

    def _start_job(self, job: BatchJob) -> None:
        aux = self._places.inside("aux", job.batch_id)
        try:
            script, spool = self._write_files(job, aux)
        except OSError as error:
            self._log("script_ended", batch_id=job.batch_id, status=_NO_FILES, reason=str(error))
            self._model.job_ended(self._now(), job.batch_id, _NO_FILES)
            return
        home = dict(job.submission.user_variables).get("PBS_O_HOME", "/")
        cookie = secrets.token_hex(16).upper()
        environment = job_environment(job, self._site, aux, self._places.path, home, cookie)
        keeper = KeeperProcess()
        self._runs[job.batch_id] = _JobRun(keeper, spool)
        self._watch(keeper.peer, partial(self._job_speaks, job.batch_id, keeper))
        where, outputs = job.submission.start_dir or home, tuple(spool.values())
        keeper.start("script", self._interpreter(script), where, environment, _SCRIPT_UMASK, outputs)

    def _write_files(self, job: BatchJob, aux: str) -> tuple[str, dict[str, str]]:
        """Script, node file and empty spool files of a job; path of the script and the spool by its ending."""
        script = self._places.inside("jobs", f"{job.batch_id}.SC")
        with open(script, "w", encoding="utf-8", errors="surrogateescape") as file:
            os.fchmod(file.fileno(), 0o700)
            file.write(job.submission.script)
        with open(aux, "w") as file:
            file.write(node_file(job, self._site))
        wanted = {"oe": ("OU",), "eo": ("ER",)}.get(job.submission.join, ("OU", "ER"))
        spool = {ending: self._places.inside("spool", f"{job.batch_id}.{ending}") for ending in wanted}
        for path in spool.values():
            with open(path, "w"):
                os.chmod(path, 0o600)
        return script, spool

    def _interpreter(self, script: str) -> tuple[str, ...]:
        """A script without #! is read by the shell, as the top shell of a batch job would."""
        with open(script, "rb") as file:
            return (script,) if file.read(2) == b"#!" else ("/bin/sh", script)

    def _job_speaks(self, batch_id: str, keeper: KeeperProcess) -> None:
        for message in self._hear(keeper):
            match message["did"]:
                case "started":
                    self._model.job_started(batch_id, message["pid"])
                    nodes = [
                        self._site.node_name(share.node) for share in self._model.jobs[batch_id].placement
                    ]
                    self._log("job_started", batch_id=batch_id, pid=message["pid"], nodes=nodes)
                case "failed":
                    status = _START_FAILURES[message["stage"]]
                    self._script_ended(batch_id, status, reason=os.strerror(message["errno"]))
                case "ended":
                    code, number = message["code"], message["signal"]
                    status = code if code is not None else 128 + number
                    self._look_at_cpu(batch_id, message["utime_s"] + message["stime_s"])
                    self._script_ended(batch_id, status, orphans=message["orphans"])
                case "gone":
                    self._script_ended(batch_id, 128 + signal.SIGKILL, reason="its keeper died")
                    reap_adopted(self._keepers())

    def _look_at_cpu(self, batch_id: str, cpu_s: float) -> None:
        """MOM nodes are shared by all users: payloads belong to compute nodes, through aprun."""
        if cpu_s > self._site.script_cpu_max_s:
            self._log("violation", batch_id=batch_id, cpu_s=round(cpu_s, 3), why="payload outside aprun")

    def _script_ended(self, batch_id: str, status: int, **more: Any) -> None:
        run = self._runs.pop(batch_id, None)
        if run is None:
            return
        self._watch(run.keeper.peer, None)
        run.keeper.retire()
        self._retired.append(run.keeper)
        self._deliver(self._model.jobs[batch_id], run)
        self._model.job_ended(self._now(), batch_id, status)
        self._log("script_ended", batch_id=batch_id, status=status, **more)

    def _terminate(self, batch_id: str, note: str) -> None:
        run = self._runs.get(batch_id)
        if run is None:
            return
        if note:
            with open(run.spool.get("ER", next(iter(run.spool.values()))), "a") as file:
                file.write(note)
        run.keeper.signal("script", signal.SIGTERM, session=True)

    def _job_over(self, output: JobOver) -> None:
        self.applications.job_over(output.batch_id)
        for share in output.placement:
            if self._model.nodes[share.node].up:
                self._empty(share.node)
        job = self._model.jobs[output.batch_id]
        for path in (
            self._places.inside("jobs", f"{job.batch_id}.SC"),
            self._places.inside("aux", job.batch_id),
        ):
            if os.path.exists(path):
                os.unlink(path)
        self._log("job_over", batch_id=output.batch_id, state=job.state, exit_status=job.exit_status)

    def _empty(self, number: int) -> None:
        """What is left on a node's RAM disk does not outlive the batch job."""
        left = os.listdir(self.local_dir(number))
        for name in left:
            path = os.path.join(self.local_dir(number), name)
            if os.path.isdir(path) and not os.path.islink(path):
                shutil.rmtree(path, ignore_errors=True)
            else:
                os.unlink(path)
        if left:
            self._log("node_emptied", node=self._site.node_name(number), left_behind=sorted(left))

    def _deliver(self, job: BatchJob, run: _JobRun) -> None:
        """Bring the spooled output where the user wants it; what cannot be delivered is kept."""
        made = job.submission
        for ending, path in run.spool.items():
            wanted, letter = (made.stdout, "o") if ending == "OU" else (made.stderr, "e")
            default = job.default_output(letter)
            target = wanted or os.path.join(made.work_dir, default)
            if os.path.isdir(target):
                target = os.path.join(target, default)
            try:
                shutil.copyfile(path, target)
                os.unlink(path)
            except OSError as error:
                kept = self._places.inside("undelivered", os.path.basename(path))
                os.rename(path, kept)
                if job.batch_id in self._model.jobs:
                    self._model.output_undelivered(job.batch_id)
                self._log("undelivered", batch_id=job.batch_id, path=target, kept=kept, reason=str(error))

    # --- nodes ------------------------------------------------------------------------------------------------------

    def kill_node(self, number: int) -> int:
        """A node dies: SIGKILL to all on it, its local files gone, it is down. Returns how many processes died."""
        keeper = self._nodes.pop(number)
        self._watch(keeper.peer, None)
        count = keeper.kill() - 1  # itself
        shutil.rmtree(self.local_dir(number), ignore_errors=True)
        self._model.node_died(number, self._now())
        self._log("node_died", node=self._site.node_name(number), processes=count)
        self.applications.node_died(number)
        reap_adopted(self._keepers())
        return count

    def boot_node(self, number: int) -> None:
        """A dead node comes back, empty."""
        os.mkdir(self.local_dir(number), 0o700)
        keeper = self._nodes[number] = KeeperProcess()
        self._watch(keeper.peer, partial(self._node_speaks, number))
        self._model.node_back(self._now(), number)
        self._log("node_back", node=self._site.node_name(number))

    def kill_recorded(self, number: int) -> int:
        """SIGKILL to the servers on a node that recorded their pid in its local directory (NAME.pid); how many."""
        recorded = set()
        for path in Path(self.local_dir(number)).glob("**/*.pid"):
            with contextlib.suppress(OSError, ValueError):
                recorded.add(int(path.read_text()))
        below = [row for row in descendants(self._nodes[number].pid) if row.pid in recorded]
        for row in below:
            sweep(row.pid, include_root=True)
        self._log("database_broken", node=self._site.node_name(number), processes=len(below))
        return len(below)

    def _node_speaks(self, number: int) -> None:
        for message in self._hear(self._nodes[number]):
            if message["did"] == "gone":
                self.kill_node(number)
            else:
                self.applications.rank_speaks(message)

    def _keepers(self) -> frozenset[int]:
        keepers = (*self._nodes.values(), *(run.keeper for run in self._runs.values()), *self._retired)
        return frozenset(keeper.pid for keeper in keepers)

    def _hear(self, keeper: KeeperProcess) -> list[Message]:
        """What a keeper said; `gone` when it has ended by itself."""
        messages = keeper.peer.receive()
        if messages is None:
            return [{"did": "gone"}]
        return [message for message, _ in messages]
