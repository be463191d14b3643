"""Nodes of the virtual world: `Machine` carries out what the batch server's model wants done.

It runs the real gate and starts agents, as the simulated site does with real processes.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from functools import partial

from pilot.multijob.node.gate import Outcome, Start, gate_steps
from pilot.multijob.node.manifest import parse_manifest
from simulators.torque.job import JobOver, KillJob, Output, StartJob, TerminateJob
from simulators.torque.model import TorqueModel
from simulators.world.agents import Agent, Floor, Task, nothing_else
from simulators.world.truth import GateRun

_GATE = re.compile(r" gate --bundle (\S+) --round (\d+)")


@dataclass(slots=True)
class Started:
    """One start of a batch script: its gate and, if that launched, its agents. `escaped`: out of the server's reach."""

    batch_id: str
    gate: Task
    agents: list[Agent] = field(default_factory=list)
    escaped: bool = False


@dataclass(slots=True)
class Machine:
    """Carries out what the batch server's model wants done."""

    floor: Floor
    model: TorqueModel
    starts: list[Started] = field(default_factory=list)

    def carry_out(self, outputs: tuple[Output, ...]) -> None:
        """Do it now."""
        for output in outputs:
            match output:
                case StartJob(batch_id):
                    self.start(batch_id)
                case TerminateJob(batch_id, _):
                    for started in self._of(batch_id):
                        for agent in started.agents:
                            agent.terminate()
                        if not started.agents:
                            self._kill(started)
                            self._over(started)
                case KillJob(batch_id):
                    for started in self._of(batch_id):
                        self._kill(started)
                        self._over(started)
                case JobOver(batch_id, _):
                    for started in self._of(batch_id):
                        self._kill(started)

    def start(self, batch_id: str) -> None:
        """Run the batch script (again): the real gate, one operation after the other."""
        job, floor = self.model.jobs[batch_id], self.floor
        found = _GATE.search(job.submission.script)
        if found is None:
            floor.at(floor.now() + 1.0, partial(self.model.job_ended, floor.now() + 1.0, batch_id, 0))
            return
        directory, number = found.group(1), int(found.group(2))
        client = f"mom.{len(self.starts) + 1}"
        nonce = f"n{len(self.starts) + 1}"
        run = GateRun(directory.rpartition("/")[2], number, batch_id, nonce, floor.now())
        floor.truth.gates.append(run)
        started = Started(batch_id, Task(client, batch_id))
        self.starts.append(started)
        if floor.shared.seen(client, f"{directory}/manifest.json") is None:
            # As the real entry: whoever cannot read the manifest ends with 0 and claims nothing.
            self._decided(started, run, directory, Outcome(False, "no manifest"))
            return
        own = Start(batch_id, client, len(self.starts), nonce, "t")
        decided = partial(self._decided, started, run, directory)
        floor.drive(started.gate, gate_steps(directory, number, own, "link", 0.0), nothing_else, decided)

    def lose_contact(self, batch_id: str) -> None:
        """The batch server takes the job for ended; its nodes go on, out of its reach."""
        for started in self._of(batch_id):
            started.escaped = True
        self.model.job_ended(self.floor.now(), batch_id, 271)

    def agents(self) -> list[Agent]:
        """All agents that were ever launched."""
        return [agent for started in self.starts for agent in started.agents]

    def _decided(self, started: Started, run: GateRun, directory: str, outcome: Outcome | OSError) -> None:
        run.launch = isinstance(outcome, Outcome) and outcome.launch
        run.reason = outcome.reason if isinstance(outcome, Outcome) else str(outcome)
        if not run.launch:
            self._over(started)
            return
        manifest = parse_manifest(self.floor.shared.text(f"{directory}/manifest.json") or "")
        placement = self.model.jobs[started.batch_id].placement if started.batch_id in self.model.jobs else ()
        for index in range(len(manifest.launch)):
            node = placement[index].node if index < len(placement) else 0
            task = Task(f"nid{node}.{run.nonce}", started.batch_id)
            if self.floor.shared.seen(task.client, f"{directory}/manifest.json") is None:
                continue
            place = (run.bundle_id, directory, run.round, index)
            agent = Agent(self.floor, task, place, manifest, f"{run.nonce}x{index}")
            agent.ended = partial(self._agent_ended, started)
            started.agents.append(agent)
        self._agent_ended(started)

    def _agent_ended(self, started: Started) -> None:
        if all(agent.over for agent in started.agents):
            self._over(started)

    def _over(self, started: Started) -> None:
        if started.batch_id in self.model.jobs and not started.escaped:
            self.model.job_ended(self.floor.now(), started.batch_id, 0)

    def _kill(self, started: Started) -> None:
        started.gate.dead = True
        for agent in started.agents:
            if not agent.over:
                agent.die("batch system")

    def _of(self, batch_id: str) -> list[Started]:
        return [started for started in self.starts if started.batch_id == batch_id and not started.escaped]


def claim_owner(text: str | None) -> tuple[str, str] | None:
    """(batch id, nonce) of a gate's claim, None for anything else."""
    body = json.loads(text) if text else None
    return (body["batch_id"], body["nonce"]) if body and body["who"] == "gate" else None
