"""Jobs over the wire: real daemon, HTTP, commands; calls fail, answers are lost; no job is lost or doubled."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from simulators.torque.sweep import descendants

ROOT = Path(__file__).parents[4]
LIMIT_S = 240


def test_2000_jobs_over_the_wire_with_a_twentieth_of_the_calls_failing(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "simulators.cli", "load", "--jobs", "2000", "--seconds", "2"]
    run = subprocess.Popen(
        [*argv, "--limit", str(LIMIT_S), "--out", str(tmp_path / "load")],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    said, _ = run.communicate(timeout=LIMIT_S + 60)
    report = json.loads((tmp_path / "load/load.json").read_text())
    assert run.returncode == 0, said
    assert (report["lost"], report["doubled"], report["stale"]) == (0, 0, 0)
    assert report["payloads"] == 2000
    assert report["requests_failed"] > 0
    assert report["cpu_s"] > 0 and report["rss_mib"] > 10
    assert report["calls"]["/api/v1/pilot/update_jobs_bulk"] > 50
    assert descendants(run.pid) == []
    journals = list((tmp_path / "load/shared/bundles").glob("*/node.*.journal"))
    assert len(journals) >= 2000 // 32


def test_both_dialects_end_the_same_500_jobs_in_the_same_way_over_the_wire(tmp_path: Path) -> None:
    """A tenth of all answers is lost, also those to fetches, and a twentieth of the calls fails."""
    words = ["--jobs", "500", "--seconds", "2", "--lost", "0.1", "--nodes", "1", "--chunk", "20"]
    runs = {}
    for dialect in ("v1", "legacy"):
        argv = [sys.executable, "-m", "simulators.cli", "load", *words, "--limit", str(LIMIT_S)]
        runs[dialect] = subprocess.Popen(
            [*argv, "--dialect", dialect, "--out", str(tmp_path / dialect)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    ends = {}
    for dialect, run in runs.items():
        said, _ = run.communicate(timeout=LIMIT_S + 60)
        assert run.returncode == 0, said
        report = json.loads((tmp_path / dialect / "load.json").read_text())
        assert report["payloads"] == 500 and report["requests_failed"] > 0
        ends[dialect] = json.loads((tmp_path / dialect / "ends.json").read_text())
    assert len(ends["v1"]) == 500
    assert ends["v1"] == ends["legacy"]
    (end,) = {json.dumps({**end, "files": sorted(end["files"].values())}) for end in ends["v1"].values()}
    assert json.loads(end) == {
        "status": "finished",
        "pilotErrorCode": 0,
        "nEvents": 100,
        "files": [True, True],
    }
