"""Nodes of the virtual world: `Machine` carries out what the batch server's model wants done.

It runs the real gate and starts agents, as the simulated site does with real processes.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from typing import Any

from pilot.multijob.node.files import Read, Steps
from pilot.multijob.node.gate import Outcome, Start, gate_steps
from pilot.multijob.node.manifest import BadManifest, Manifest, parse_manifest
from simulators.torque.job import JobOver, KillJob, Output, StartJob, TerminateJob
from simulators.torque.model import TorqueModel
from simulators.world.agents import AgentProcess, Place
from simulators.world.floor import Floor, Task
from simulators.world.truth import GateRun

_GATE = re.compile(r" gate --bundle (\S+) --round (\d+)")


@dataclass(slots=True)
class Started:
    """One start of a batch script: its gate and, if that launched, its agents.

    `escaped`: out of the server's reach. `stuck`: a launcher of it does not return, so its script does not end.
    """

    batch_id: str
    gate: Task
    agents: list[AgentProcess] = field(default_factory=list)
    escaped: bool = False
    stuck: bool = False


class NodeFault(StrEnum):
    """What is counted when it changed something."""

    NODE_DEATH = "node-death"
    TORN = "node-death-in-a-line"
    LAUNCHER_TOO = "launcher-took-its-ranks"
    REQUEUE = "requeue"
    REQUEUE_SURVIVED = "requeue-first-start-survives"
    LOST_CONTACT = "lost-contact"
    FROZEN = "agent-hangs-beyond-its-batch-job"


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
                            self._end(started)
                case KillJob(batch_id):
                    for started in self._of(batch_id):
                        self._end(started)
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
        own = Start(batch_id, client, len(self.starts), nonce, "t")
        decided = partial(self._decided, started, run, directory)
        floor.drive(started.gate, _gate(directory, number, own), decided)

    # --- faults -----------------------------------------------------------------------------------------------

    def lose_contact(self, batch_id: str) -> None:
        """The batch server takes the job for ended; its nodes go on, out of its reach."""
        self._escape(batch_id, NodeFault.LOST_CONTACT)
        self.model.job_ended(self.floor.now(), batch_id, 271)

    def kill_node(
        self, number: int, *, all_ranks: bool = False, stays: bool = False, torn: bool = False
    ) -> None:
        """A node is gone with all that ran on it, until `model.node_back`.

        `all_ranks`: one launcher had started all agents of the batch job, and ends them. `stays`: the launcher does
        not return, and the batch job stays running until somebody ends it. `torn`: a line was being written.
        """
        self.model.node_died(number)
        for started in self.starts:
            hit = [agent for agent in started.agents if agent.node == number and not agent.over]
            if not hit:
                continue
            self.floor.fired(NodeFault.NODE_DEATH)
            for agent in hit:
                if torn and agent.tear():
                    self.floor.fired(NodeFault.TORN)
                agent.die("node died")
            others = [agent for agent in started.agents if not agent.over]
            if all_ranks and others:
                self.floor.fired(NodeFault.LAUNCHER_TOO)
                for agent in others:
                    agent.die("launcher ended")
            started.stuck = started.stuck or stays
            self._agent_ended(started)

    def requeue(self, batch_id: str, *, survives: bool = False) -> None:
        """The server puts a running batch job back into its queue, rerunable or not; it starts again later.

        `survives`: what its first start runs goes on, out of the server's reach.
        """
        if self.model.requeue(self.floor.now(), batch_id, forced=True) is not None:
            return
        self.floor.fired(NodeFault.REQUEUE)
        if survives:
            self._escape(batch_id, NodeFault.REQUEUE_SURVIVED)
            self.model.job_ended(self.floor.now(), batch_id, 271)

    def freeze(self, agent: AgentProcess, seconds: float, *, payloads: bool = False) -> None:
        """Nothing of this agent goes on for so long; nobody can end it, also when its batch job is over.

        `payloads`: its whole node stands still.
        """
        if not agent.over:
            agent.escaped = True
            if payloads:
                agent.frozen.append((self.floor.now(), self.floor.now() + seconds))
            self.floor.fired(NodeFault.FROZEN)
            self.floor.hang(agent.task, seconds)

    def _escape(self, batch_id: str, kind: NodeFault) -> None:
        for started in self._of(batch_id):
            started.escaped = True
            if any(not agent.over for agent in started.agents) or not started.gate.dead:
                self.floor.fired(kind)

    def agents(self) -> list[AgentProcess]:
        """All agents that were ever launched."""
        return [agent for started in self.starts for agent in started.agents]

    def _decided(self, started: Started, run: GateRun, directory: str, decided: Any) -> None:
        outcome, manifest = decided
        run.launch, run.reason = outcome.launch, outcome.reason
        run.owner = claim_owner(self.floor.shared.text(f"{directory}/claim.{run.round}"))
        if not run.launch or manifest is None:
            self._over(started)
            return
        placement = self.model.jobs[started.batch_id].placement if started.batch_id in self.model.jobs else ()
        ends_s = run.start_s + manifest.walltime_s
        for index in sorted(manifest.jobs):
            node = placement[index].node if index < len(placement) else 0
            task = Task(f"nid{node}.{run.nonce}", started.batch_id)
            nonce = f"{run.nonce}x{index}"
            place = Place(run.bundle_id, directory, run.round, index, node, nonce, ends_s)
            agent = AgentProcess(self.floor, task, place, partial(self._agent_ended, started))
            started.agents.append(agent)
        for agent in started.agents:
            agent.start()
        self._agent_ended(started)

    def _agent_ended(self, started: Started) -> None:
        if all(agent.over for agent in started.agents):
            self._over(started)

    def _over(self, started: Started) -> None:
        if started.batch_id in self.model.jobs and not started.escaped and not started.stuck:
            self.model.job_ended(self.floor.now(), started.batch_id, 0)

    def _end(self, started: Started) -> None:
        """SIGKILL to the script and its launchers: the batch job is over, also where one did not return."""
        self._kill(started)
        started.stuck = False
        self._over(started)

    def _kill(self, started: Started) -> None:
        started.gate.dead = True
        for agent in started.agents:
            if not agent.over and not agent.escaped:
                agent.die("batch system")

    def _of(self, batch_id: str) -> list[Started]:
        return [started for started in self.starts if started.batch_id == batch_id and not started.escaped]


def _gate(directory: str, number: int, start: Start) -> Steps[tuple[Outcome, Manifest | None]]:
    """As `entry` has it: whoever cannot read the manifest ends with 0 and claims nothing."""
    try:
        manifest = parse_manifest((yield Read(f"{directory}/manifest.json")))
    except (OSError, BadManifest) as error:
        return Outcome(False, f"gate: {error}"), None
    steps = gate_steps(directory, number, start, manifest.fencing, manifest.limits.visible_s)
    outcome = yield from steps
    return outcome, manifest


def claim_owner(text: str | None) -> tuple[str, str] | None:
    """(batch id, nonce) of a gate's claim, None for anything else."""
    body = json.loads(text) if text else None
    return (body["batch_id"], body["nonce"]) if body and body["who"] == "gate" else None
