"""2,000 jobs over the wire: real daemon, HTTP and commands, 5 % of the calls failing; nothing lost or doubled."""

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
