"""A bundle directory as the pilot makes one (docs/architecture/files.md), and the commands that run on its nodes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.measurement import CannotMeasure
from pilot.multijob.agentfile import build_agent_file
from pilot.multijob.nodejournal import parse_lines

# What a fact of a COMPASS reconstruction needs: a marker, error texts on both streams, two event counts.
KINDS = {
    "plain": {
        "needs_caldb": False,
        "end_marker": {"where": "stdout", "text": "End of Job"},
        "patterns": [{"name": "fatal", "where": "stderr", "text": "FATAL"}],
        "events_read": r"^(\d+) events had been read",
        "events_written": None,
    }
}
KINDS["calib"] = {**KINDS["plain"], "needs_caldb": True}
KINDS["bare"] = {**KINDS["plain"], "end_marker": None}
LIMIT_S = 600.0


class Bundle:
    """One bundle of `nodes` nodes, built job by job below `root`; `local` stands for the node's memory."""

    def __init__(self, root: Path, local: Path, nodes: int = 1, slots: int = 32) -> None:
        self.root, self.local, self.slots = root, local, slots
        self.directory, self.out = root / "bundle", root / "out"
        self.directory.mkdir(parents=True)
        self.agent_file = build_agent_file(root)
        self.lists: list[list[dict[str, Any]]] = [[] for _ in range(nodes)]
        self.caldb: Mapping[str, Any] | None = None
        self.limits: dict[str, float] = {"margin_s": 5, "quick_failures": 1_000_000}

    def job(
        self,
        argv: Sequence[str],
        outputs: Sequence[str] = (),
        kind: str = "plain",
        node: int = 0,
        log: bool = False,
        run: int | None = None,
    ) -> int:
        """Add a job to a node's list; returns its PandaID."""
        panda_id = 1_000_000 * (node + 1) + len(self.lists[node])
        job = {
            "panda_id": panda_id,
            "attempt_nr": 1,
            "kind": kind,
            "run": run,
            "predicted_s": 0.1,
            "argv": list(argv),
            "environment": {},
            "outputs": [self._place(panda_id, name) for name in outputs],
            "log": self._place(panda_id, "log.tgz") if log else None,
        }
        self.lists[node].append(job)
        return panda_id

    def _place(self, panda_id: int, name: str) -> dict[str, str]:
        return {"lfn": name, "target": str(self.out / f"{panda_id}.{name}")}

    def write(self) -> None:
        """The manifest."""
        manifest = {
            "schema": 1,
            "bundle_id": "bbench",
            "python": sys.executable,
            "agent_file": str(self.agent_file),
            "walltime_s": LIMIT_S,
            "limits": self.limits,
            "local_dir": str(self.local),
            "slots": self.slots,
            "launch": [[] for _ in self.lists],
            "environment": {"PATH": os.defpath, "LANG": "C.UTF-8"},
            "caldb": self.caldb,
            "kinds": KINDS,
            "nodes": [{"index": index, "jobs": jobs} for index, jobs in enumerate(self.lists)],
        }
        (self.directory / "manifest.json").write_text(json.dumps(manifest))

    def command(self, name: str) -> list[str]:
        """`agent` of node 0 or `gate`, as the batch script and the gate start them."""
        words = [sys.executable, "-I", "-S", str(self.agent_file), name, "--bundle", str(self.directory)]
        words += ["--round", "1", "--batch-id", "1.bench"]
        return words + (["--node", "0", "--seconds-left", str(LIMIT_S)] if name == "agent" else [])

    def run(self, name: str, before: Sequence[str] = ()) -> None:
        """Write the manifest and run the command to its end."""
        self.write()
        run_command([*before, *self.command(name)])

    def lines(self, at_work: bool = False) -> list[Mapping[str, Any]]:
        """All lines of its node journals; the last one may be half written while agents are `at_work`."""
        found: list[Mapping[str, Any]] = []
        for path in sorted(self.directory.glob("node.*.journal")):
            parsed = parse_lines(path.name, 0, path.read_bytes())
            if parsed.damaged or (parsed.tail is not None and not at_work):
                raise CannotMeasure(f"{path.name}: a journal with damaged lines")
            found.extend(line.body for line in parsed.lines)
        return found

    def of_kind(self, kind: str, at_work: bool = False) -> list[Mapping[str, Any]]:
        """Lines of one kind, as `lines` reads them."""
        return [line for line in self.lines(at_work) if line["kind"] == kind]


def run_command(argv: Sequence[str], environment: Mapping[str, str] | None = None) -> str:
    """Its standard output; raises CannotMeasure if it is missing, takes too long or ends with another code than 0."""
    try:
        done = subprocess.run(
            list(argv), capture_output=True, text=True, timeout=LIMIT_S, check=False, env=environment
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CannotMeasure(f"{argv[0]}: {error}") from error
    if done.returncode != 0:
        raise CannotMeasure(f"{argv[0]} ended with {done.returncode}: {done.stderr[-300:]}")
    return done.stdout
