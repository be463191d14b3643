"""The whole chain by its public command: what holds, what turns red, and that nothing is left behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[4]
LIMIT_S = 420
WATCHED = (Path("/tmp"), Path("/dev/shm"))


def command(out: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "simulators.cli", "demo", "--out", str(out), *more]


def start(out: Path, *more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(out, *more),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def summary_of(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "summary.json").read_text())
    return found


def processes_naming(out: Path) -> list[str]:
    """Processes of the machine whose command line or environment names this demo's directories."""
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        try:
            text = Path(f"/proc/{name}/cmdline").read_bytes() + Path(f"/proc/{name}/environ").read_bytes()
        except OSError:
            continue
        if str(out).encode() in text and b"pytest" not in text:
            found.append(f"{name}: {text[:200]!r}")
    return found


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, int, str]]:
    out = tmp_path_factory.mktemp("demo") / "demo-out"
    demo = start(out)
    text, _ = demo.communicate(timeout=LIMIT_S)
    yield out, demo.returncode, text
    shutil.rmtree(out, ignore_errors=True)


def test_the_demo_holds_with_a_dead_node(finished: tuple[Path, int, str]) -> None:
    out, code, text = finished
    assert code == 0, text
    summary = summary_of(out)
    assert summary["broken"] == []
    assert (summary["raw_files"], summary["zero_event_files_skipped"], summary["jobs_finished"]) == (
        37,
        1,
        36,
    )
    assert summary["events_raw"] == summary["events_reconstructed"] == summary["events_merged"] > 0
    assert summary["attempts_charged"] == 36
    assert summary["node_killed"]["jobs_kept"] >= 1
    assert summary["node_killed"]["jobs_returned"] >= 1
    assert summary["attempts"] == 36 + summary["node_killed"]["jobs_returned"]
    assert summary["payloads_run_twice"] == 0
    assert summary["bundles"] >= 5
    assert {"panda.log", "pilot.log", "prodsys.log", "torque.log", "tape.log"} <= {
        p.name for p in (out / "logs").iterdir()
    }
    mdst = [item["name"] for item in summary["merged_files"] if item["name"].startswith("mDST")]
    assert len(mdst) == 6


def test_nothing_is_left_by_the_demo(finished: tuple[Path, int, str]) -> None:
    assert summary_of(finished[0])["leftovers"] == 0
    assert processes_naming(finished[0]) == []


def test_progress_is_plain_lines_in_a_pipe(finished: tuple[Path, int, str]) -> None:
    text = finished[2]
    assert "\x1b[" not in text
    assert "reconstructed: 36 of 36" in text
    assert "all conditions hold" in text


def test_a_payload_started_twice_by_hand_is_counted(finished: tuple[Path, int, str]) -> None:
    from simulators.demo.evidence import read_evidence
    from simulators.demo.layout import Layout

    out = finished[0]
    trace = sorted((out / "trace").glob("*.jsonl"))[0]
    first = json.loads(trace.read_text().splitlines()[0])
    raw = next((out / "raw").glob("*.raw"))
    environment = {
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": str(ROOT),
        "SIM_TRACE_DIR": str(out / "trace"),
        "PANDA_ID": str(first["panda_id"]),
        "PANDA_ATTEMPT": str(first["attempt"]),
        "CDB_SQLITE": str(out / "calibrations/calibrations.sqlite"),
        "OPENBLAS_NUM_THREADS": "1",
    }
    argv = [sys.executable, "-m", "simulators.payload", "reconstruct", "--raw", str(raw)]
    files = ["--mdst", str(out / "x.root"), "--hist", str(out / "y.root"), "--dump", str(out / "z.raw")]
    subprocess.run([*argv, *files], env=environment, check=True, capture_output=True)
    assert read_evidence(Layout(out, out / "none")).runs_twice == 1


def test_one_event_less_before_merging_turns_cross_check_summary_and_exit_code_red(tmp_path: Path) -> None:
    from simulators.payload.mdst import read_mdst, slice_columns, write_mdst

    out = tmp_path / "demo-out"
    demo = start(out, "--fault", "none")
    try:
        chunk = _wait(lambda: next(iter(out.glob("outputs/*/*/*/mDST.chunks/mDST-*.root")), None), demo)
        _wait(lambda: (out / "evidence" / chunk.name).exists(), demo)
        columns = read_mdst(chunk)
        shorter = chunk.with_name(f".{chunk.name}.shorter")
        write_mdst(shorter, slice_columns(columns, 0, len(columns["event"]) - 1))
        os.rename(shorter, chunk)
        text, _ = demo.communicate(timeout=LIMIT_S)
    finally:
        demo.kill() if demo.poll() is None else None
    assert demo.returncode == 1, text
    summary = summary_of(out)
    assert summary["crosscheck"] == "no"
    assert summary["archived"] is False
    assert "suspicious" in text
    assert any("crosscheck" in line for line in text.splitlines() if line.startswith("does not hold"))
    assert summary["leftovers"] == 0


def _wait(there: Callable[[], Any], demo: subprocess.Popen[str]) -> Any:
    """Poll until something is there, the demo ends, or its limit is over."""
    ends = time.monotonic() + LIMIT_S
    while time.monotonic() < ends and demo.poll() is None:
        found = there()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError(f"demo ended with {demo.poll()} before it was there")


# Moments: a file of the demo that exists from that stage on.
MOMENTS = {
    "input": (signal.SIGINT, "raw/*.raw"),
    "servers": (signal.SIGTERM, "panda-ready.json"),
    "payloads run": (signal.SIGHUP, "trace/*.jsonl"),
    "first output": (signal.SIGTERM, "outputs/*/*/*/mDST.chunks/*.root"),
}
LONG_MOMENTS = {
    "snapshot": (signal.SIGHUP, "calibrations/calibrations.json"),
    "task": (signal.SIGTERM, "prodsys.yaml"),
    "merging": (signal.SIGINT, "outputs/*/*/*/mDST/*.root"),
    "on tape": (signal.SIGHUP, "tape/receipts/**/*.json"),
}


@pytest.mark.parametrize(
    "moment", [*MOMENTS, *(pytest.param(name, marks=pytest.mark.long) for name in LONG_MOMENTS)]
)
def test_a_signal_leaves_nothing_and_says_so(moment: str, tmp_path: Path) -> None:
    number, pattern = {**MOMENTS, **LONG_MOMENTS}[moment]
    out = tmp_path / "demo-out"
    before = {path for directory in WATCHED for path in directory.iterdir() if path.name.startswith("ep-")}
    demo = start(out)
    _wait(lambda: next(iter(out.glob(pattern)), None), demo)
    demo.send_signal(number)
    text, _ = demo.communicate(timeout=120)
    assert demo.returncode == 128 + number, text
    assert "left behind: nothing" in text
    assert processes_naming(out) == []
    after = {path for directory in WATCHED for path in directory.iterdir() if path.name.startswith("ep-")}
    assert not [path for path in after - before if path.name == short_name(out)]


@pytest.mark.long
def test_after_a_signal_the_next_demo_passes(tmp_path: Path) -> None:
    out = tmp_path / "demo-out"
    demo = start(out)
    _wait(lambda: next(iter(out.glob("trace/*.jsonl")), None), demo)
    demo.send_signal(signal.SIGINT)
    demo.communicate(timeout=120)
    again = start(out)
    text, _ = again.communicate(timeout=LIMIT_S)
    assert again.returncode == 0, text


def short_name(out: Path) -> str:
    from simulators.demo.layout import clone_mark

    return f"ep-{clone_mark(out)}"


def test_clean_ends_and_removes_what_a_killed_demo_left(tmp_path: Path) -> None:
    out = tmp_path / "demo-out"
    demo = start(out)
    _wait(lambda: next(iter(out.glob("trace/*.jsonl")), None), demo)
    demo.kill()
    demo.wait()
    subprocess.run(command(out, "--clean"), cwd=ROOT, check=True, timeout=120)
    assert not out.exists()
    ends = time.monotonic() + 20
    while processes_naming(out) and time.monotonic() < ends:
        time.sleep(0.05)
    assert processes_naming(out) == []
    assert not (Path("/dev/shm") / short_name(out)).exists()


def test_an_unwritable_directory_is_one_clear_line() -> None:
    done = subprocess.run(
        command(Path("/proc/nowhere/demo-out")),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr
    assert "/proc/nowhere" in done.stdout + done.stderr
