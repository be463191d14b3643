"""The machine of a load run: the batch server is real for its users, what runs on the nodes is pretended.

Gates and agents are production's own code over real files on the real clock; payloads only take time. All of it
happens in the batch server's process, between its commands.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict
from random import Random
from typing import Any, cast

from pilot.multijob.node.manifest import Job
from simulators.kernel import Timers
from simulators.load.files import RealFiles
from simulators.torque.machine import Places
from simulators.torque.model import TorqueModel
from simulators.torque.request import Reply, Request
from simulators.torque.wire import Peer
from simulators.world.files import VirtualFiles
from simulators.world.floor import Floor, Play
from simulators.world.nodes import Machine
from simulators.world.truth import Truth

TRUTH = "truth.json"
RUN_S = "SIM_RUN_S"
# How long commands wait at most for what the nodes do.
_TURN_S = 0.02


class NoApplications:
    """No aprun runs here: gates start their agents without one."""

    def start(self, command: Peer, request: Request, umask: int, files: tuple[int, ...]) -> Reply | None:
        """Refused."""
        return Reply(stderr="aprun: the nodes of this machine are pretended\n", exit_code=1)

    def forward(self, command: Peer, number: int) -> None:
        """Nothing to tell."""

    def aprun_gone(self, command: Peer) -> None:
        """Nothing to end."""


class PretendedMachine:
    """Stands in the place of `simulators.torque.machine.SimulatedMachine`."""

    def __init__(
        self,
        model: TorqueModel,
        places: Places,
        now: Callable[[], float],
        watch: Any,
        log: Callable[..., None],
    ) -> None:
        self._model, self._places, self._now, self._log = model, places, now, log
        self._timers: Timers[Callable[[], None]] = Timers()
        self.truth = Truth()
        self.applications = NoApplications()
        files = RealFiles(lambda client, path: self._floor.read_local(client, path))
        self._files = files
        self._floor = Floor(
            cast(VirtualFiles, files),
            self.truth,
            now,
            self._timers.set,
            Random(8),
            _play,
            operation_s=(0.0, 0.0),
        )
        self._machine = Machine(self._floor, model)

    def start(self) -> None:
        """Nothing boots."""
        os.makedirs(self._places.runtime, exist_ok=True)

    def next_at(self) -> float | None:
        """When something on the nodes is due."""
        return self._timers.next_at()

    def carry_out(self) -> None:
        """Do what the model wants done and what is due on the nodes, for a bounded time."""
        until = self._now() + _TURN_S
        while True:
            outputs = self._model.advance(self._now())
            self._machine.carry_out(outputs)
            due = self._timers.pop_due(self._now())
            if due is not None:
                due[1]()
            elif not outputs:
                break
            if self._now() > until:
                break
        self._forget()

    def _forget(self) -> None:
        """Batch jobs that the server has forgotten are not looked at again."""
        known = self._model.jobs
        self._machine.starts[:] = [started for started in self._machine.starts if started.batch_id in known]

    def stop(self) -> int:
        """Write down what really ran."""
        path = self._places.inside(TRUTH)
        with open(f"{path}.new", "w") as file:
            json.dump(
                {
                    "payloads": [asdict(run) for run in self.truth.payloads],
                    "gates": [asdict(run) for run in self.truth.gates],
                },
                file,
            )
        os.rename(f"{path}.new", path)
        return 0

    def kill_node(self, number: int) -> int:
        """A node dies with the agents on it."""
        hit = [agent for agent in self._machine.agents() if agent.node == number and not agent.over]
        self._machine.kill_node(number)
        return len(hit)

    def boot_node(self, number: int) -> None:
        """A dead node comes back, empty."""
        self._model.node_back(self._now(), number)

    def kill_recorded(self, number: int) -> int:
        """No database runs here."""
        return 0


def _play(job: Job) -> Play:
    """Every payload is good and takes what its job says."""
    return Play(float(job.environment.get(RUN_S, "1")))
