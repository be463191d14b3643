"""The gate as a process: decide by `gate_steps`, then start one launcher per node and wait for all of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import List, Mapping, Optional, Sequence

from pilot.multijob.node.files import perform, run_steps
from pilot.multijob.node.gate import Start, gate_steps
from pilot.multijob.node.manifest import Manifest
from pilot.multijob.node.wake import ASKS

# Where batch systems put the id of the batch job that a script runs in.
BATCH_ID_NAMES = ("PBS_JOBID", "SLURM_JOB_ID")


def find_batch_id(environment: Mapping[str, str], given: Optional[str]) -> Optional[str]:
    """The batch job's id, None if it has none. Pure."""
    found = [environment[name] for name in BATCH_ID_NAMES if environment.get(name)]
    return found[0] if found else given or None


def agent_argv(
    manifest: Manifest, bundle: str, number: int, node: int, seconds_left: float, batch_id: str
) -> List[str]:
    """The command of one node: its launcher's words, then the agent. Pure."""
    return [
        *manifest.launch[node],
        manifest.python,
        "-I",
        "-S",
        manifest.agent_file,
        "agent",
        "--bundle",
        bundle,
        "--round",
        str(number),
        "--node",
        str(node),
        "--seconds-left",
        "%.1f" % seconds_left,
        "--batch-id",
        batch_id,
    ]


def run_gate(manifest: Manifest, bundle: str, number: int, start: Start, started_mono: float) -> None:
    """Own the round and work it, or say why not on standard output."""
    steps = gate_steps(bundle, number, start, manifest.fencing, manifest.limits.visible_s)
    outcome = run_steps(steps, perform)
    print(outcome.reason, flush=True)
    if not outcome.launch:
        return
    launchers: List[subprocess.Popen[bytes]] = []

    def forward(*_: object) -> None:
        # What the batch system asks of the script is asked of the agents: they end in order and write it down.
        for launcher in launchers:
            launcher.send_signal(signal.SIGTERM)

    for asked in ASKS:
        signal.signal(asked, forward)
    output = _open_output(bundle + "/launchers.out")
    for node in sorted(manifest.jobs):
        left = manifest.walltime_s - (time.monotonic() - started_mono)
        launcher = _launch(agent_argv(manifest, bundle, number, node, left, start.batch_id), output)
        if launcher is not None:
            launchers.append(launcher)
    for launcher in launchers:
        launcher.wait()


def _open_output(path: str) -> int:
    """One file for what all launchers print, each write at its end: a file per node would be a file too many."""
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    except OSError as error:
        print("%s: %s" % (path, error), file=sys.stderr)
        return os.open(os.devnull, os.O_WRONLY)


def _launch(argv: Sequence[str], output: int) -> Optional[subprocess.Popen[bytes]]:
    """A launcher that cannot be started costs its own node only."""
    try:
        return subprocess.Popen(list(argv), stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    except OSError as error:
        os.write(output, ("%s: cannot be started: %s\n" % (argv[0], error)).encode())
        return None
