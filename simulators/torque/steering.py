"""Orders of whoever runs the site to a running server: nodes that die, troubles, requeues. Each is answered at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from simulators.torque import commands
from simulators.torque.model import TorqueModel
from simulators.torque.nodetexts import node_state
from simulators.torque.site import TorqueSite
from simulators.torque.troubles import FOR_EVER_S, Troubles
from simulators.torque.wire import Message

COMMANDS = frozenset(commands.VERBS) | {"qsub"}


class Machinery(Protocol):
    """What of the machine an order can hit."""

    def kill_node(self, number: int) -> int:
        """A node dies; returns how many processes died."""

    def boot_node(self, number: int) -> None:
        """A dead node comes back."""

    def kill_recorded(self, number: int) -> int:
        """SIGKILL to the servers that recorded their pid on a node; how many."""


@dataclass(frozen=True, slots=True)
class Steering:
    """A running server as its orders see it. `leave` and `come_back` are the ends of an outage."""

    site: TorqueSite
    model: TorqueModel
    machine: Machinery
    troubles: Troubles
    now: Callable[[], float]
    log: Callable[..., None]
    leave: Callable[[], None]
    come_back: Callable[[float], None]
    asked: dict[str, int] = field(default_factory=dict)

    def kill_node(self, message: Message) -> Message:
        """A node dies with all on it."""
        number = self.site.node_number(message["node"])
        if number is None or not self.model.nodes[number].up:
            return {"error": f"no node {message['node']!r} that is up"}
        return {"processes": self.machine.kill_node(number)}

    def requeue(self, message: Message) -> Message:
        """qrerun."""
        no = self.model.requeue(self.now(), message["batch_id"])
        return {"error": no.text} if no is not None else {}

    def node_back(self, message: Message) -> Message:
        """A dead node is there again, empty."""
        number = self.site.node_number(message["node"])
        if number is None or self.model.nodes[number].up:
            return {"error": f"no node {message['node']!r} that is down"}
        self.machine.boot_node(number)
        return {}

    def break_database(self, message: Message) -> Message:
        """SIGKILL to the database server on a node."""
        number = self.site.node_number(message["node"])
        if number is None or not self.model.nodes[number].up:
            return {"error": f"no node {message['node']!r} that is up"}
        count = self.machine.kill_recorded(number)
        return {"processes": count} if count else {"error": f"no database runs on {message['node']}"}

    def hang(self, message: Message) -> Message:
        """Commands of one name get no answer for some time."""
        if message["command"] not in COMMANDS:
            return {"error": f"no command {message['command']!r} of the batch server"}
        self.troubles.hang(message["command"], self.now() + min(message["seconds"], FOR_EVER_S))
        return {}

    def lose_answer(self, message: Message) -> Message:
        """Answers to the next commands of one name are lost."""
        if message["command"] not in COMMANDS:
            return {"error": f"no command {message['command']!r} of the batch server"}
        self.troubles.lose(message["command"], message["count"])
        return {}

    def fail_share(self, message: Message) -> Message:
        """A share of all commands fails by chance."""
        self.troubles.failing = message["share"]
        return {}

    def go_away(self, message: Message) -> Message:
        """Nobody listens for some time."""
        if self.troubles.away_until is not None:
            return {"error": "the batch server is away already"}
        self.leave()
        self.troubles.away_until = self.now() + min(message["seconds"], FOR_EVER_S)
        self.log("server_away", seconds=message["seconds"])
        return {}

    def mend(self, message: Message) -> Message:
        """Every trouble ends now."""
        if self.troubles.away_until is not None:
            self.come_back(self.now())
        self.troubles.mend()
        return {}

    def reserve(self, message: Message) -> Message:
        """Nodes from one name to another are kept free from now on."""
        names = (message["first"], message["last"])
        numbers = [number for number in map(self.site.node_number, names) if number is not None]
        if len(numbers) != 2 or numbers[0] > numbers[1]:
            return {"error": f"no nodes from {names[0]!r} to {names[1]!r}"}
        now = self.now()
        ends = now + min(message["seconds"], FOR_EVER_S)
        self.model.reserve_nodes(now, ends, frozenset(range(numbers[0], numbers[1] + 1)))
        return {}

    def list_asked(self, message: Message) -> Message:
        """How many requests of each command came (a qsub that reads standard input makes two)."""
        return {"asked": dict(self.asked)}

    def list_nodes(self, message: Message) -> Message:
        """Name, address, state and batch jobs of each node."""
        rows = [
            {
                "name": self.site.node_name(node.number),
                "address": self.site.node_address(node.number),
                "state": node_state(node, self.site, self.now()),
                "jobs": sorted(node.jobs),
            }
            for node in self.model.nodes.values()
        ]
        return {"nodes": rows}


ORDERS: Mapping[str, Callable[[Steering, Message], Message]] = {
    "kill_node": Steering.kill_node,
    "requeue": Steering.requeue,
    "node_back": Steering.node_back,
    "break_database": Steering.break_database,
    "hang": Steering.hang,
    "lose_answer": Steering.lose_answer,
    "fail_share": Steering.fail_share,
    "go_away": Steering.go_away,
    "mend": Steering.mend,
    "list_nodes": Steering.list_nodes,
    "reserve": Steering.reserve,
    "list_asked": Steering.list_asked,
}
