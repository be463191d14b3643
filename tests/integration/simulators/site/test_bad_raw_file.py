"""One damaged raw file among good ones: its job fails with its own code and reason, its neighbours finish."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import yaml

from simulators.demo.layout import experiment_text

ROOT = Path(__file__).parents[4]
RUN = 274495


def run(*argv: str, **more: Any) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, *argv], cwd=ROOT, capture_output=True, text=True, timeout=200, check=False, **more
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def positional(number: int, raw: Path, base: Path) -> list[Any]:
    from simulators.panda.jobspec import ATTRIBUTES

    names = (
        f"mDST-{RUN}-1100{number}-3-8.a1.root",
        f"{RUN}-1100{number}-3.a1.root",
        f"evtdump3-1100{number}-{RUN}.a1.raw",
    )
    words = [
        f"PRODSYS_WORK=w{number}",
        f"COMPASS_SW_PREFIX={base}/",
        "COMPASS_SW_PATH=p/",
        "PRODSOFT=s",
        "prodSlt=3",
    ]
    command = ["python3", "-m", "simulators.payload", "reconstruct", "--raw", str(raw)]
    files = ["--mdst", names[0], "--hist", names[1], "--dump", names[2]]
    values = {
        "jobName": f"j{number}",
        "transformation": "mass production",
        "computingSite": "SIM_LONG",
        "prodSourceLabel": "managed",
        "attemptNr": 1,
        "currentPriority": 1000,
        "jobParameters": shlex.join(words + command + files),
    }
    outputs = [(name, "output") for name in names] + [(f"l{number}.a1.job.log.tgz", "log")]
    listed = [["NULL", "NULL", "NULL", name, kind, *["NULL"] * 13, None] for name, kind in outputs]
    return [*(values.get(name, "NULL") for name in ATTRIBUTES), listed]


def write_config(tmp_path: Path, site: dict[str, Any]) -> Path:
    """The local profile with the demo's payload, two slots and a SQLite snapshot."""
    text = (ROOT / "pilot/sites/local.yaml").read_text()
    text = text.replace("@BASE@", str(tmp_path / "base")).replace(
        "@PYTHON@", os.path.realpath(sys.executable)
    )
    config = yaml.safe_load(text)
    config["servers"][0]["url"] = site["panda_url"]
    config["experiment"] = str(tmp_path / "experiment.yaml")
    config["caldb"] = {"backend": "sqlite", "snapshot": str(tmp_path / "snapshot.sqlite")}
    config["queues"][0] |= {"slots": 3, "fill_wait_s": 3.0}
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    config["node"]["environment"] = {"PATH": path, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}
    compass = (ROOT / "pilot/experiments/compass.yaml").read_text()
    (tmp_path / "experiment.yaml").write_text(experiment_text(compass))
    (tmp_path / "pilot.yaml").write_text(yaml.safe_dump(config))
    return tmp_path / "pilot.yaml"


def table(site: dict[str, Any]) -> list[dict[str, Any]]:
    with urllib.request.urlopen(f"{site['panda_url']}/sim/table", timeout=30) as answer:
        found: list[dict[str, Any]] = json.load(answer)["jobs"]
    return found


def test_a_truncated_raw_file_fails_its_own_job_only(tmp_path: Path) -> None:
    raw, calibrations = tmp_path / "raw", tmp_path / "calibrations"
    sizes = ["--chunks", "3", "--max-events", "300", "--zero-event-files", "0", "--runs", "1", "--seed", "5"]
    run(
        "-m",
        "simulators.payload",
        "write-raw",
        "--out",
        str(raw),
        "--catalogue",
        str(tmp_path / "c.txt"),
        *sizes,
    )
    run(
        "-m",
        "simulators.payload",
        "write-calibrations",
        "--out",
        str(calibrations),
        "--size-mb",
        "20",
        "--runs",
        "1",
        "--seed",
        "5",
    )
    facts = json.loads((calibrations / "calibrations.json").read_text())
    build = [
        "-m",
        "pilot",
        "caldb",
        "build",
        str(calibrations / "calibrations.sql"),
        str(tmp_path / "snapshot.sqlite"),
    ]
    run(*build, "--backend", "sqlite", "--identity", "test", "--probe", facts["probe"]["sql"])
    paths = sorted(raw.glob("*.raw"))
    paths[1].write_bytes(paths[1].read_bytes()[:-500])
    runtime = tmp_path / "s"
    up = subprocess.Popen([sys.executable, "-m", "simulators.cli", "up", "--runtime", str(runtime)], cwd=ROOT)
    try:
        ends = time.monotonic() + 60
        while not (runtime / "site.json").exists() and time.monotonic() < ends:
            time.sleep(0.02)
        site = json.loads((runtime / "site.json").read_text())
        config = write_config(tmp_path, site)
        jobs = json.dumps([positional(n, path, tmp_path / "base/outputs") for n, path in enumerate(paths)])
        body = json.dumps({"jobs": jobs}).encode()
        request = urllib.request.Request(
            f"{site['panda_url']}/api/v1/job/submit", body, {"Content-Type": "application/json"}
        )
        assert json.load(urllib.request.urlopen(request, timeout=30))["success"]
        while any(job["status"] != "activated" for job in table(site)):
            time.sleep(0.05)
        run(
            "-m",
            "pilot",
            "run",
            "--once",
            "-c",
            str(config),
            env={**os.environ, "PATH": f"{site['bin']}:/usr/bin:/bin"},
        )
        while (
            any(job["status"] not in ("finished", "failed") for job in table(site))
            and time.monotonic() < ends
        ):
            time.sleep(0.1)
        found = table(site)
    finally:
        up.send_signal(signal.SIGTERM)
        up.wait(60)
    assert [job["status"] for job in found] == ["finished", "failed", "finished"]
    bad = found[1]["attributes"]
    assert bad["pilotErrorCode"] == 1252
    assert "raw file truncated" in bad["pilotErrorDiag"]
    assert up.returncode == 0
