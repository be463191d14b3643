"""A bundle on disk, an agent file, and readers of what an agent left: for tests of the node side."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

KIND = {
    "needs_caldb": False,
    "end_marker": {"where": "stdout", "text": "End of Job"},
    "patterns": [{"name": "fatal", "where": "stderr", "text": "FATAL"}],
    "events_read": r"^(\d+) events had been read",
    "events_written": None,
}
QUICK_LIMITS = {"margin_s": 1, "poll_s": 0.1, "kill_s": 2, "heartbeat_s": 60, "visible_s": 0.05}


class Bundle:
    """A bundle directory with one node, built job by job."""

    def __init__(self, root: Path, agent_file: Path, slots: int = 2, **limits: Any) -> None:
        self.root, self.agent_file, self.slots = root, agent_file, slots
        self.dir, self.local, self.out = root / "b", root / "local", root / "out"
        self.dir.mkdir()
        self.local.mkdir()
        self.limits = {**QUICK_LIMITS, **limits}
        self.python = sys.executable
        self.jobs: list[dict[str, Any]] = []
        self.kinds: dict[str, Any] = {"plain": dict(KIND), "calib": {**KIND, "needs_caldb": True}}
        self.extra: dict[str, Any] = {}
        self.started: list[subprocess.Popen[str]] = []

    def job(self, script: str, outputs: tuple[str, ...] = (), kind: str = "plain", **more: Any) -> int:
        """Add a job that runs `script` with sh; returns its PandaID."""
        panda_id = 1001 + len(self.jobs)
        places = [{"lfn": name, "target": str(self.out / name)} for name in outputs]
        log = f"log.{panda_id}.tgz"
        job = {
            "panda_id": panda_id,
            "attempt_nr": 1,
            "kind": kind,
            "predicted_s": 0.5,
            "argv": ["sh", "-c", script],
            "environment": {},
            "inputs": [],
            "outputs": places,
            "log": {"lfn": log, "target": str(self.out / log)},
        }
        self.jobs.append({**job, **more})
        return panda_id

    def write(self) -> Path:
        """Write the manifest; returns the directory."""
        manifest = {
            "schema": 1,
            "bundle_id": "btestabcd",
            "site": "test",
            "panda_queue": "Q",
            "python": self.python,
            "agent_file": str(self.agent_file),
            "walltime_s": 60,
            "limits": self.limits,
            "local_dir": str(self.local),
            "slots": self.slots,
            "launch": [[]],
            "environment": {"PATH": os.defpath, "LANG": "C.UTF-8"},
            "caldb": None,
            "kinds": self.kinds,
            "nodes": [{"index": 0, "jobs": self.jobs}],
            **self.extra,
        }
        (self.dir / "manifest.json").write_text(json.dumps(manifest))
        return self.dir

    def agent_argv(self, seconds_left: float = 30.0, node: int = 0) -> list[str]:
        """The command that the gate would start."""
        words = [self.python, "-I", "-S", str(self.agent_file), "agent", "--bundle", str(self.dir)]
        return [
            *words,
            "--round",
            "1",
            "--node",
            str(node),
            "--seconds-left",
            str(seconds_left),
            "--batch-id",
            "7.t",
        ]

    def start_agent(self, seconds_left: float = 30.0, node: int = 0) -> subprocess.Popen[str]:
        """Start the agent; the caller waits for it."""
        self.write()
        argv = self.agent_argv(seconds_left, node)
        agent = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.started.append(agent)
        return agent

    def end_agents(self) -> None:
        """End what a failed test left running: an agent that is asked to end takes its payloads with it."""
        for agent in self.started:
            if agent.poll() is None:
                agent.terminate()
            agent.communicate(timeout=30)

    def run_agent(self, seconds_left: float = 30.0) -> list[dict[str, Any]]:
        """Run the agent to its end, which must be exit 0; returns the lines of its journal."""
        process = self.start_agent(seconds_left)
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 0, output
        return self.lines()

    def lines(self) -> list[dict[str, Any]]:
        """All journal lines of the bundle's agents; a wrong crc or sequence fails the test."""
        found = []
        for path in sorted(self.dir.glob("node.*.journal")):
            for number, line in enumerate(path.read_bytes().splitlines(), 1):
                crc, text = line.split(b" ", 1)
                assert int(crc, 16) == zlib.crc32(text)
                body = json.loads(text)
                assert body["n"] == number
                found.append(body)
        return found

    def of_kind(self, kind: str) -> list[dict[str, Any]]:
        """Lines of one kind."""
        return [line for line in self.lines() if line["kind"] == kind]

    def end_of(self, panda_id: int) -> dict[str, Any]:
        """The one end line of a job."""
        [line] = [line for line in self.of_kind("job_ended") if line["panda_id"] == panda_id]
        return line


def await_true(question: Any, limit_s: float = 20.0) -> None:
    """Ask until the answer is true; the limit only ends a test that has failed."""
    import time

    end = time.monotonic() + limit_s
    while not question():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def processes_with(text: str) -> list[int]:
    """Pids of live processes whose environment, command line or working directory holds `text`."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
                words = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
                words += os.readlink(entry / "cwd").encode()
            except OSError:
                continue
            if text.encode() in words and state not in "ZX":
                found.append(int(entry.name))
    return found


def keepers(local: Path) -> list[int]:
    """Pids of the keepers of calibration servers below this node-local directory."""
    return [pid for pid in processes_with(str(local)) if Path(f"/proc/{pid}/comm").read_text() == "keeper\n"]


def interpreters():
    """Other Pythons of 3.8 and later, the oldest first, one of each version: on PATH, and installed beside this one."""
    beside = Path(sys.base_prefix).parent.glob("*/bin/python3")
    found = {}
    for command in (*(f"python3.{minor}" for minor in range(8, 15)), *map(str, beside)):
        try:
            done = subprocess.run(
                [command, "-c", "import sys; print(*sys.version_info[:2])"],
                capture_output=True,
                text=True,
                timeout=20,
                check=False,
            )
        except OSError:
            continue
        version = tuple(map(int, done.stdout.split())) if done.returncode == 0 else ()
        if version >= (3, 8):
            found.setdefault(version, command)
    return [found[version] for version in sorted(found)]
