"""Where a load run keeps what, and the texts of its configurations. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

NODES, SLOTS = 16, 32
QUEUE = "SIM_LOAD"
LIVE_MAX = 12
CHUNK = 100
# Real servers wait 30 min for the first update of a job that was handed out; a run that is to end soon cannot.
SENT_MAX_S = 8.0


@dataclass(frozen=True, slots=True)
class LoadLayout:
    """Paths of one load run."""

    out: Path

    @property
    def outputs(self) -> Path:
        """Root of all outputs."""
        return self.out / "outputs"

    @property
    def torque(self) -> Path:
        """Runtime directory of the batch server."""
        return self.out / "t"

    @property
    def state(self) -> Path:
        """The daemon's state."""
        return self.out / "state"

    @property
    def commands(self) -> Path:
        """The batch commands as a daemon that is to be killed calls them."""
        return self.out / "commands"

    @property
    def config(self) -> Path:
        """The daemon's configuration."""
        return self.out / "pilot.yaml"

    @property
    def report(self) -> Path:
        """Figures and findings."""
        return self.out / "load.json"

    @property
    def ends(self) -> Path:
        """How each work ended: status, codes, events, and sizes and checksums of its files."""
        return self.out / "ends.json"


@dataclass(frozen=True, slots=True)
class Shape:
    """What a run is made of: `nodes` of a bundle, `chunk` updates in a call at most, the `dialect` of PanDA,
    bundles live at once at most."""

    jobs: int
    nodes: int = NODES
    chunk: int = CHUNK
    dialect: str = "v1"
    live_max: int = LIVE_MAX

    @property
    def live(self) -> int:
        """Pilots wanted: enough for all jobs at once, up to a machine of some hundred nodes."""
        return max(1, min(self.live_max, -(-self.jobs // (self.nodes * SLOTS))))


def panda_settings() -> dict[str, Any]:
    """The server's daemons, quicker than real ones."""
    return {"activate_s": 0.2, "adder_s": 1.0, "sent_max_s": SENT_MAX_S}


def torque_config(shape: Shape) -> dict[str, Any]:
    """A Cray of as many nodes as the live bundles need."""
    return {
        "server_name": "sim",
        "nodes": shape.nodes * shape.live,
        "slots": SLOTS,
        "queues": {"normal": {}},
        "keep_completed_s": 60,
        "scheduler_interval_s": 0.5,
    }


def pilot_config(layout: LoadLayout, shape: Shape, url: str, bin_dir: str, python: str) -> dict[str, Any]:
    """Bundles of 512 jobs on 16 nodes of 32 slots, or of as many nodes as asked for."""
    walltime = {"min_s": 600, "max_s": 3600, "startup_s": 10.0, "per_event_s": 0.01, "margin_s": 60.0}
    return {
        "site": "load",
        "state_dir": str(layout.state),
        "shared_dir": str(layout.out / "shared"),
        "output_root": str(layout.outputs),
        "log_file": str(layout.out / "pilot.log"),
        "tick_s": 0.5,
        "evidence_every_s": 2.0,
        "batch": {
            "server": "sim",
            "commands": {
                "submit": f"{bin_dir}/qsub",
                "list": f"{bin_dir}/qstat",
                "cancel": f"{bin_dir}/qdel",
            },
            "listing_every_s": 2.0,
            "timeouts": {"submit_s": 20.0, "list_s": 20.0, "cancel_s": 20.0},
        },
        "node": {"python": python, "local_dir": "/dev/shm", "environment": {"PATH": "/usr/bin:/bin"}},
        "protocol": {"visible_s": 0.5, "poll_s": 5.0, "kill_s": 2.0, "grace_s": 10.0, "margin_s": 20.0},
        "caldb": None,
        # A payload of hours takes seconds here, and so do the pauses after a failed call.
        "reporting": {"retry_s": 0.5, "retry_max_s": 4.0},
        "rotation": {"next_round_s": 1.0},
        # Small calls, so that many of them can fail.
        "servers": [
            {
                "name": "panda",
                "url": url,
                "dialect": shape.dialect,
                "timeout_s": 30.0,
                "chunk": shape.chunk,
            }
        ],
        "queues": [
            {
                "name": "load",
                "server": "panda",
                "panda_queue": QUEUE,
                "batch_queue": "normal",
                "wanted": shape.live,
                "nodes": shape.nodes,
                "slots": SLOTS,
                "fill_wait_s": 2.0,
                "walltime": walltime,
            }
        ],
    }
