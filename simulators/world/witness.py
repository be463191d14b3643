"""Writes down what must be known at the moment at which it happens: what lives when something is closed or settled."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from pilot.multijob.events import BundleSettled, Event
from simulators.world.files import EDGE
from simulators.world.nodes import claim_owner

if TYPE_CHECKING:
    from simulators.world.world import Daemon, World


def wrote(world: World, client: str, operation: Any, reply: Any) -> Any:
    """Look at what was just written; the reply goes on as it is."""
    path = str(getattr(operation, "path", ""))
    if type(operation).__name__ == "Put" and path.endswith("/closed"):
        _closed(world, path.rpartition("/")[0])
    if client == EDGE and path.endswith("/commands.json") and hasattr(operation, "text"):
        told = json.loads(operation.text)["end"]
        server = world.truth.servers.get(path.split("/")[-2], "")
        world.truth.ended.extend((world.now_s, (server, int(item["panda_id"]))) for item in told)
    if client == EDGE and path.endswith("/manifest.json") and hasattr(operation, "text"):
        queue = world.limits.queues[json.loads(operation.text)["queue"]]
        world.truth.servers[path.split("/")[-2]] = queue.server
    return reply


def _closed(world: World, directory: str) -> None:
    for path in world.shared.files_in(directory, "claim."):
        owner = claim_owner(world.shared.text(path)) if path.count(".") == 1 else None
        job = world.torque.jobs.get(owner[0]) if owner else None
        if owner and job is not None and job.completed_at is None and world.truth.may_live(owner[0]):
            world.truth.closed_while_live.append((world.now_s, directory.rpartition("/")[2], owner[0]))
    launched = {gate.nonce for gate in world.truth.gates if gate.launch}
    for path in world.shared.files_in(directory, "mark."):
        # Weak fencing: of all that made a mark, the one that went on.
        owner = claim_owner(world.shared.text(path))
        job = world.torque.jobs.get(owner[0]) if owner and owner[1] in launched else None
        if owner and job is not None and job.completed_at is None and world.truth.may_live(owner[0]):
            world.truth.closed_while_live.append((world.now_s, directory.rpartition("/")[2], owner[0]))


def outlived(world: World, daemon: Daemon, event: Event) -> None:
    """Payloads that still run where the bundle is taken for settled."""
    living = world.truth.living(event.bundle_id) if isinstance(event, BundleSettled) else []
    if living:
        hanging = {agent.task.client for agent in world.machine.agents() if agent.task.hanging}
        world.truth.outlived.extend((world.now_s, run) for run in living if run.node not in hanging)
