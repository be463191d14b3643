"""Where a demo keeps what, and the texts of its configurations. Pure."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from simulators.payload.exits import Exit

RUNS = (274495, 274496, 274497)
CHUNKS = 12
SEED = 20160701
NODES, SLOTS, BUNDLE_NODES = 4, 4, 2
LONG, SHORT = "SIM_LONG", "SIM_SHORT"
TASK = "demo"
SITE = "DEMO"
CALIBRATION_MB = 30
# Exit codes of the demo's payload by cause, as words of the experiment's code table.
EXIT_WORDS = {
    Exit.INPUT_MISSING: "input-missing",
    Exit.RAW_DAMAGED: "raw-damaged",
    Exit.NO_DATABASE: "caldb",
    Exit.CALIBRATION_MISSING: "caldb-content",
    Exit.OUTPUT_FAILED: "stage-out",
}


@dataclass(frozen=True, slots=True)
class Layout:
    """Paths of one demo. `short` is a brief directory for sockets and node-local files (limit of socket paths)."""

    out: Path
    short: Path

    @property
    def raw(self) -> Path:
        """Raw files."""
        return self.out / "raw"

    @property
    def catalogue(self) -> Path:
        """Event counts that prodsys reads."""
        return self.out / "catalogue.txt"

    @property
    def calibrations(self) -> Path:
        """The calibration data set as dump and SQLite file."""
        return self.out / "calibrations"

    @property
    def shared(self) -> Path:
        """The pilot's shared directory."""
        return self.out / "shared"

    @property
    def outputs(self) -> Path:
        """Root of all outputs."""
        return self.out / "outputs"

    @property
    def tape(self) -> Path:
        """The simulated tape."""
        return self.out / "tape"

    @property
    def logs(self) -> Path:
        """One file per component."""
        return self.out / "logs"

    @property
    def trace(self) -> Path:
        """What the payloads themselves write."""
        return self.out / "trace"

    @property
    def kept(self) -> Path:
        """Hard links to chunk outputs: evidence that outlives the archive's clean-up."""
        return self.out / "evidence"

    @property
    def state(self) -> Path:
        """State of pilot and prodsys."""
        return self.out / "state"

    @property
    def table(self) -> Path:
        """PanDA's whole job table, written by the server at its end."""
        return self.out / "panda-table.json"

    @property
    def torque(self) -> Path:
        """Runtime directory of the batch server."""
        return self.short / "t"

    @property
    def run_file(self) -> Path:
        """Processes and directories of this demo, for `make clean`."""
        return self.out / "run.json"


def clone_mark(out: Path) -> str:
    """8 hex digits that tell the demos of two clones (two output directories) apart."""
    return hashlib.sha256(str(out.resolve()).encode()).hexdigest()[:8]


def torque_config(layout: Layout) -> dict[str, Any]:
    """4 nodes of 4 slots, queues as the pilot's config names them."""
    return {
        "server_name": "sim",
        "nodes": NODES,
        "slots": SLOTS,
        "queues": {"normal": {}, "short": {"priority": 100, "walltime_max_s": 3600}},
        "keep_completed_s": 60,
        "scheduler_interval_s": 0.2,
        "local_root": str(layout.short / "n"),
    }


def panda_times() -> dict[str, float]:
    """The server's daemons, quicker than real ones so that the demo ends in minutes."""
    return {"activate_s": 0.5, "adder_s": 0.5}


def experiment_text(compass: str) -> str:
    """COMPASS' words with the exit codes of the demo's payload."""
    words = yaml.safe_load(compass)
    words["name"] = "demo"
    words["exit_codes"] = {int(code): word for code, word in EXIT_WORDS.items()}
    return yaml.safe_dump(words, sort_keys=False)


def pilot_config(
    layout: Layout, url: str, backend: str, python: str, paths: list[str], clone: str
) -> dict[str, Any]:
    """The pilot's configuration: two queues of one daemon, long over v1 and short over the legacy calls."""
    walltime = {"min_s": 240, "max_s": 3600, "startup_s": 5.0, "per_event_s": 0.002, "margin_s": 60.0}
    queue = {"nodes": BUNDLE_NODES, "slots": SLOTS, "fill_wait_s": 3.0, "walltime": walltime}
    snapshot = layout.out / ("snapshot.tar" if backend == "mariadb" else "snapshot.sqlite")
    return {
        "site": "demo",
        "state_dir": str(layout.state / "pilot"),
        "shared_dir": str(layout.shared),
        "output_root": str(layout.outputs),
        "log_file": str(layout.logs / "pilot.log"),
        "experiment": str(layout.out / "experiment.yaml"),
        "tick_s": 0.5,
        "evidence_every_s": 1.0,
        "batch": {
            "server": "sim",
            "listing_every_s": 1.0,
            "timeouts": {"submit_s": 20.0, "list_s": 10.0, "cancel_s": 10.0},
        },
        "launcher": {"kind": "aprun"},
        "node": {
            "python": python,
            "local_dir": "$NODE_LOCAL_DIR",
            "environment": {
                "PATH": ":".join(paths),
                "LANG": "C.UTF-8",
                "PYTHONPATH": clone,
                "PYTHONDONTWRITEBYTECODE": "1",
                "OPENBLAS_NUM_THREADS": "1",
                "SIM_TRACE_DIR": str(layout.trace),
            },
        },
        "protocol": {"visible_s": 0.2, "poll_s": 1.0, "kill_s": 2.0, "grace_s": 10.0, "margin_s": 20.0},
        "caldb": {"backend": backend, "snapshot": str(snapshot)},
        "inputs": {"quiet_s": 1.0},
        "servers": [
            {"name": "panda-v1", "url": url, "dialect": "v1", "timeout_s": 30.0},
            {"name": "panda-legacy", "url": url, "dialect": "legacy", "timeout_s": 30.0},
        ],
        "queues": [
            {
                "name": "long",
                "server": "panda-v1",
                "panda_queue": LONG,
                "batch_queue": "normal",
                "wanted": 3,
                **queue,
            },
            {
                "name": "short",
                "server": "panda-legacy",
                "panda_queue": SHORT,
                "batch_queue": "short",
                "wanted": 2,
                **queue,
            },
        ],
    }


def prodsys_config(layout: Layout, url: str, database: dict[str, Any]) -> dict[str, Any]:
    """prodsys' configuration: one site that merges on the short queue."""
    payload = "python3 -m simulators.payload"
    return {
        "instance": "demo",
        "state_dir": str(layout.state / "prodsys"),
        "database": database,
        "panda": {"url": url, "settle_s": 2.0, "status_every_s": 1.0},
        "sites": [
            {
                "name": SITE,
                "panda_queue": LONG,
                "merge_queue": SHORT,
                "files": {"root": str(layout.outputs)},
                "tape": {"kind": "dropbox", "root": str(layout.tape)},
                "commands": {
                    "reconstruct": f"{payload} reconstruct --raw {{raw}} --mdst {{mdst}} --hist {{hist}}"
                    " --dump {dump}",
                    "merge mdst": f"{payload} merge-mdst --inputs-from {{inputs}} --out {{out}}",
                    "merge hist": f"{payload} merge-hist --inputs-from {{inputs}} --out {{out}}",
                    "merge dump": f"{payload} merge-dump --inputs-from {{inputs}} --out {{out}}",
                },
            }
        ],
        "retry": {"uncharged_max": 20, "backoff_s": [0.0, 2.0, 5.0]},
    }


def task_file(layout: Layout, mdst_events: int) -> dict[str, Any]:
    """The manager's task; small merged files so that each run has two pieces."""
    return {
        "name": TASK,
        "type": "mass production",
        "site": SITE,
        "production": "demo2016",
        "path": "generalprod/testcoral/",
        "soft": "dvcs2016P07t1",
        "year": 2016,
        "period": "P07",
        "prodslt": 3,
        "phastver": 8,
        "template": "template.opt",
        "files_source": "runs list",
        "runs": list(RUNS),
        "catalogue": str(layout.catalogue),
        "files_home": f"{layout.raw}/",
        "files_home_prefix": f"{layout.outputs}/",
        "max_attempts": 5,
        "merge": {"mdst_events": mdst_events},
    }
