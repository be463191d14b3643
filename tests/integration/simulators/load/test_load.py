"""Jobs over the wire: real daemon, HTTP, commands; calls fail, answers are lost; no job is lost or doubled."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from simulators.nodejournals import read_journals
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
    journals = list(read_journals(tmp_path / "load/shared/bundles"))
    assert len(journals) >= 2000 // 32


def begin(out: Path, words: list[str]) -> subprocess.Popen[str]:
    """A load run of many small bundles and calls, whose files are kept in `out`."""
    words = [*words, "--seconds", "2", "--nodes", "1", "--chunk", "20", "--limit", str(LIMIT_S)]
    argv = [sys.executable, "-m", "simulators.cli", "load", *words, "--out", str(out)]
    return subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(run: subprocess.Popen[str], out: Path) -> tuple[Any, Any]:
    """Its report, and how each work ended."""
    said, _ = run.communicate(timeout=LIMIT_S + 60)
    assert run.returncode == 0, said
    return json.loads((out / "load.json").read_text()), json.loads((out / "ends.json").read_text())


def test_both_dialects_end_the_same_500_jobs_in_the_same_way_over_the_wire(tmp_path: Path) -> None:
    """A tenth of all answers is lost, also those to fetches, and a twentieth of the calls fails."""
    words = ["--jobs", "500", "--lost", "0.1"]
    runs = {
        dialect: begin(tmp_path / dialect, [*words, "--dialect", dialect]) for dialect in ("v1", "legacy")
    }
    ends = {}
    for dialect, run in runs.items():
        report, ends[dialect] = finish(run, tmp_path / dialect)
        assert report["payloads"] == 500 and report["requests_failed"] > 0
    assert len(ends["v1"]) == 500
    assert ends["v1"] == ends["legacy"]
    (end,) = {json.dumps({**end, "files": sorted(end["files"].values())}) for end in ends["v1"].values()}
    files, rest = json.loads(end)["files"], {k: v for k, v in json.loads(end).items() if k != "files"}
    assert files == [True, True]
    assert rest == {"status": "finished", "pilotErrorCode": 0, "nEvents": 100, "charged": 0}


def test_fifty_kills_end_as_an_undisturbed_run_does(tmp_path: Path) -> None:
    """SIGKILL around calls and commands, at each of three moments, and by chance: same ends and charges."""
    words = ["--jobs", "700", "--failing", "0"]
    killed = begin(tmp_path / "killed", [*words, "--live", "3", "--kills", "50"])
    undisturbed = begin(tmp_path / "undisturbed", words)
    report, ends = finish(killed, tmp_path / "killed")
    _, expected = finish(undisturbed, tmp_path / "undisturbed")
    assert sum(report["kills"].values()) == 50
    assert len(report["kills"]) == 13 and report["kills"]["by chance"] < 20
    assert (report["payloads"], report["lost"], report["doubled"], report["stale"]) == (700, 0, 0, 0)
    assert ends == expected
