"""`simsite demo`: runs the chain, reads the evidence, says what holds; leaves nothing behind, also on a signal."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from pilot.caldb.server import find_server
from pilot.caldb.unpack import KeeperFailed
from pilot.lease import process_start
from simulators.demo import watcher
from simulators.demo.chain import Chain, Options
from simulators.demo.evidence import read_evidence
from simulators.demo.layout import CHUNKS, RUNS, Layout, clone_mark
from simulators.demo.parts import Interrupts, PartError, Parts, Stopped
from simulators.demo.progress import make_progress
from simulators.demo.report import render_report
from simulators.demo.summary import broken_conditions, summarise
from simulators.torque.control import ControlError

EXIT_OK, EXIT_BROKEN = 0, 1
JOBS = len(RUNS) * CHUNKS
BUNDLES_MIN = 5
PREFIX = "ep-"
# Stands in every directory that a demo made; only such a directory is ever removed.
OWN_MARK = ".edge-pilot-demo"
# Prefixes of entries in /tmp and /dev/shm that other demos and test sessions make.
NOT_OURS = frozenset(
    {PREFIX, "pytest-of-", "pytest-", "mutant-", "pip-", "simsite-", ".org.chromium", "playwright"}
)


def demo(root: Path, out: Path, fault: str, database: str) -> int:
    """Run the demo of the clone at `root` into `out`. Returns the exit code."""
    interrupts = Interrupts()
    interrupts.install()
    mark = f"{PREFIX}{clone_mark(out)}"
    layout = Layout(out, _short_directory(mark))
    try:
        return _demo(root, layout, mark, interrupts, fault, database)
    except Stopped as error:  # every part has ended: starts and ends are held
        shutil.rmtree(layout.short, ignore_errors=True)
        layout.run_file.unlink(missing_ok=True)
        print(f"demo: ended by signal {error.number}", flush=True)
        return 128 + error.number


def _demo(root: Path, layout: Layout, mark: str, interrupts: Interrupts, fault: str, database: str) -> int:
    start_s, out = time.monotonic(), layout.out
    backend = _backend()
    if backend == "sqlite":
        print("no MariaDB server here: the calibration database is the SQLite snapshot", flush=True)
    if (problem := clean(root, out) or _make_directories(layout)) is not None:
        print(f"demo: {problem}", file=sys.stderr)
        return EXIT_BROKEN
    watcher.become_watcher()
    before = watcher.look()
    failure, stopped = _run(root, layout, Options(root, fault, database, backend), interrupts)
    watcher.reap()
    shutil.rmtree(layout.short, ignore_errors=True)
    after = watcher.look()
    leftovers = watcher.left_behind(before, after, watcher.held_sockets(after.descendants), mark, NOT_OURS)
    if stopped is not None:
        print(
            f"demo: ended by signal {stopped}; left behind: {', '.join(leftovers) or 'nothing'}", flush=True
        )
        layout.run_file.unlink(missing_ok=True)
        return 128 + stopped
    code = _judge(layout, leftovers, time.monotonic() - start_s, failure, fault, backend)
    layout.run_file.unlink(missing_ok=True)
    if backend == "sqlite":
        print("no MariaDB server here: the calibration database was the SQLite snapshot", flush=True)
    return code


def _make_directories(layout: Layout) -> str | None:
    """Make the output directories; one line if that is not possible."""
    made = (
        layout.logs,
        layout.trace,
        layout.kept,
        layout.state,
        layout.outputs,
        layout.tape,
        layout.out / "tmp",
    )
    try:
        layout.out.mkdir(parents=True, exist_ok=True)
        (layout.out / OWN_MARK).touch()
        for path in made:
            path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return f"{error.filename}: {error.strerror}"
    return None


def _short_directory(mark: str) -> Path:
    """A brief path in RAM (or the temp directory): sockets have short names, nodes have RAM file systems."""
    ram = Path("/dev/shm")
    return (ram if ram.is_dir() else Path(tempfile.gettempdir())) / mark


def _backend() -> str:
    try:
        find_server(None)
    except KeeperFailed:
        return "sqlite"
    return "mariadb"


def _run(
    root: Path, layout: Layout, options: Options, interrupts: Interrupts
) -> tuple[str | None, int | None]:
    """Run the chain; (what went wrong, signal that ended it)."""
    parts: Parts | None = None
    try:
        layout.short.mkdir(mode=0o711)
        parts = Parts(
            layout.run_file, layout.logs, [str(layout.short)], _environment(root, layout), interrupts
        )
        parts.record()
        with make_progress() as progress:
            Chain(options, layout, parts, progress).run()
    except Stopped as error:
        return None, error.number
    except (PartError, ControlError) as error:
        return str(error), None
    except OSError as error:
        return f"{error.filename or layout.out}: {error.strerror}", None
    finally:
        if parts is not None:
            with interrupts.held():
                parts.end_all()
    return None, None


def _environment(root: Path, layout: Layout) -> dict[str, str]:
    """What the parts see: this environment's programs, a temp directory of the demo's own."""
    here = str(Path(sys.executable).parent)
    kept = {name: os.environ[name] for name in ("HOME", "LANG", "USER", "LOGNAME") if name in os.environ}
    return {
        **kept,
        "PATH": f"{here}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
        "PYTHONPATH": str(root),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "TMPDIR": str(layout.out / "tmp"),
    }


def _own_codes(root: Path) -> frozenset[int]:
    """Pilot error codes that are charged, from prodsys' table of codes."""
    codes = yaml.safe_load((root / "prodsys_core/data/codes.yaml").read_text())["codes"]["pilotErrorCode"]
    return frozenset(int(code) for code, item in codes.items() if item["charge"] == "own")


def _judge(
    layout: Layout, leftovers: list[str], wall_s: float, failure: str | None, fault: str, backend: str
) -> int:
    """Write summary.json and report.html, print the table and every condition that does not hold."""
    evidence = read_evidence(layout)
    summary = summarise(evidence, leftovers, wall_s, _own_codes(Path(__file__).resolve().parents[2]))
    broken = broken_conditions(
        summary,
        raw_files=JOBS + 1,
        jobs=JOBS,
        bundles_min=BUNDLES_MIN,
        node_fault=fault == "node",
        backend=backend,
    )
    if failure is not None:
        broken.insert(0, failure)
    summary["broken"] = broken
    (layout.out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    (layout.out / "report.html").write_text(render_report(summary, evidence, broken))
    _print_table(summary)
    for condition in broken:
        print(f"does not hold: {condition}")
    print(
        f"{'all conditions hold' if not broken else 'FAILED'}: {layout.out}/summary.json, report.html",
        flush=True,
    )
    return EXIT_BROKEN if broken else EXIT_OK


def _print_table(summary: Mapping[str, Any]) -> None:
    for name, value in summary.items():
        if name in ("broken", "left_behind", "crosscheck_problems"):
            continue
        if name == "merged_files":
            value = f"{len(value)} files"
        print(f"  {name:26} {value}")


def clean(root: Path, out: Path) -> str | None:
    """End and remove what an earlier demo of this clone left. Returns why it cannot, None if all is gone.

    A directory that no demo made (it is not empty and has no mark) is never touched.
    """
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / OWN_MARK).exists())):
        return f"{out} was not made by a demo: choose another directory, or remove it yourself"
    run_file = out / "run.json"
    mark = f"{PREFIX}{clone_mark(out)}"
    directories = {str(Path("/dev/shm") / mark), str(Path(tempfile.gettempdir()) / mark)}
    if run_file.exists():
        try:
            recorded = json.loads(run_file.read_text())
        except ValueError:
            recorded = {"processes": [], "directories": []}
        for item in reversed(recorded["processes"]):
            alive = item["start"] is not None and process_start(item["pid"]) == item["start"]
            if alive and item["name"] == "demo":
                return f"a demo of this clone runs (process {item['pid']})"
        for item in reversed(recorded["processes"]):
            _end_process(item)
    for name in sorted(directories):
        shutil.rmtree(name, ignore_errors=True)
    shutil.rmtree(out, ignore_errors=True)
    return f"{out} cannot be removed" if out.exists() else None


def _end_process(item: Mapping[str, Any]) -> None:
    """SIGTERM to a recorded process that is still the same, SIGKILL if it does not end within 10 s."""
    pid, start = int(item["pid"]), item["start"]
    for number in (signal.SIGTERM, signal.SIGKILL):
        if start is None or process_start(pid) != start:
            return
        os.kill(pid, number)
        ends = time.monotonic() + 10.0
        while process_start(pid) == start and time.monotonic() < ends:
            time.sleep(0.05)
