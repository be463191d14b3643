"""For whoever runs a simulated site: start the server, wait until it is ready, give it orders."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from simulators.torque.wire import Message, connect

_ROOT = Path(__file__).resolve().parents[2]


class ControlError(Exception):
    """The server is not there, or said no."""


@dataclass(frozen=True, slots=True)
class RunningServer:
    """A server that answers. `ready` is what it wrote in ready.json: pid, bin, local_root, nodes, server_name."""

    process: subprocess.Popen[str]
    ready: dict[str, Any]

    def stop(self, limit_s: float = 20.0) -> int:
        """End it with everything that it started; returns its exit code (-9: it had to be killed)."""
        self.process.terminate()
        try:
            return self.process.wait(limit_s)
        except subprocess.TimeoutExpired:
            self.process.kill()  # its keepers notice and end what is theirs
            return self.process.wait()
        finally:
            if self.process.stdout is not None:
                self.process.stdout.close()


def start_server(
    config: str,
    runtime: str,
    log: IO[str] | None = None,
    limit_s: float = 30.0,
    module: str = "simulators.torque.server",
) -> RunningServer:
    """Start a server and return when it answers. ControlError with its own words when it does not come up."""
    process = subprocess.Popen(
        [sys.executable, "-m", module, "--config", config, "--runtime", runtime],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=log if log is not None else subprocess.STDOUT,
        text=True,
        env={
            **os.environ,
            "PYTHONPATH": f"{_ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}".rstrip(os.pathsep),
        },
        start_new_session=True,
    )
    line = _first_line(process, limit_s)
    if line.startswith("{"):
        return RunningServer(process, json.loads(line))
    process.terminate()
    rest, _ = process.communicate(timeout=20)
    raise ControlError(f"the simulated Torque server did not start: {(line + rest).strip() or 'see its log'}")


def _first_line(process: subprocess.Popen[str], limit_s: float) -> str:
    stdout = process.stdout
    if stdout is None:
        return ""
    ready, _, _ = select.select([stdout], [], [], limit_s)
    return stdout.readline() if ready else ""


def kill_node(runtime: str, node: str) -> int:
    """Let a node die: SIGKILL to all on it at once, its local directory gone, the node down.

    Returns how many processes died. The batch job that holds the node stays R as long as its script lives.
    """
    return int(order(runtime, {"verb": "kill_node", "node": node})["processes"])


def requeue(runtime: str, batch_id: str) -> None:
    """qrerun by an operator: only for rerunable batch jobs."""
    order(runtime, {"verb": "requeue", "batch_id": batch_id})


def list_nodes(runtime: str) -> list[dict[str, Any]]:
    """Name, address, state and batch jobs of every node."""
    nodes: list[dict[str, Any]] = order(runtime, {"verb": "list_nodes"})["nodes"]
    return nodes


def order(runtime: str, message: Message, limit_s: float = 30.0) -> Message:
    """Send one order and return the answer."""
    try:
        server = connect(runtime, limit_s)
        try:
            server.send(message)
            end_s = time.monotonic() + limit_s
            while time.monotonic() < end_s and (answers := server.receive()) is not None:
                for answer, _ in answers:
                    if "error" in answer:
                        raise ControlError(answer["error"])
                    return answer
        finally:
            server.close()
    except OSError as error:
        raise ControlError(f"no answer from the server of {runtime}: {error}") from None
    raise ControlError(f"no answer from the server of {runtime}")


def read_events(runtime: str) -> list[dict[str, Any]]:
    """Every event of RUNTIME/events.jsonl so far."""
    path = Path(runtime, "events.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
