"""The wheel alone, in an empty environment outside the clone: init, check and one bundle against a simulated site."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
JOBS = 3


def run(argv: list[str], directory: Path, **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        argv, cwd=directory, capture_output=True, text=True, timeout=300, check=False, **more
    )


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`bin` of an environment that holds the wheel and what it depends on, nothing else."""
    home = tmp_path_factory.mktemp("wheel")
    built = run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(home / "dist"), str(ROOT)], home
    )
    assert built.returncode == 0, built.stderr
    (wheel,) = (home / "dist").glob("edge_pilot-*.whl")
    assert run([sys.executable, "-m", "venv", str(home / "env")], home).returncode == 0
    done = run([str(home / "env/bin/python"), "-m", "pip", "install", "-q", str(wheel)], home)
    assert done.returncode == 0, done.stderr
    return home / "env/bin"


@pytest.fixture
def site(installed: Path, tmp_path: Path) -> Iterator[dict[str, Any]]:
    runtime = tmp_path / "s"
    process = subprocess.Popen(
        [str(installed / "simsite"), "up", "--runtime", str(runtime)],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    ends = time.monotonic() + 60
    while not (runtime / "site.json").exists():
        assert process.poll() is None and time.monotonic() < ends, process.communicate()[0]
        time.sleep(0.02)
    yield json.loads((runtime / "site.json").read_text())
    process.send_signal(signal.SIGTERM)
    text, _ = process.communicate(timeout=60)
    assert process.returncode == 0, text


def positional(number: int, base: Path) -> list[Any]:
    """A job that writes one event dump."""
    from simulators.panda.jobspec import ATTRIBUTES

    lfn, log = f"evtdump3-10{number}.a1.raw", f"l{number}.a1.job.log.tgz"
    words = [
        f"PRODSYS_WORK=w{number}",
        f"COMPASS_SW_PREFIX={base}/",
        "COMPASS_SW_PATH=p/",
        "PRODSOFT=s",
        "prodSlt=3",
    ]
    command = ["sh", "-c", f"echo hello > {lfn}; echo End of Job"]
    values = {
        "jobName": f"j{number}",
        "transformation": "merging dump",
        "computingSite": "SIM_LONG",
        "prodSourceLabel": "managed",
        "attemptNr": 1,
        "currentPriority": 1000,
        "jobParameters": shlex.join(words + command),
    }
    files = [
        ["NULL", "NULL", "NULL", name, kind, *["NULL"] * 13, None]
        for name, kind in ((lfn, "output"), (log, "log"))
    ]
    return [*(values.get(name, "NULL") for name in ATTRIBUTES), files]


def call(url: str, body: Any = None) -> Any:
    content = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, content, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def test_the_wheel_alone_runs_one_bundle(installed: Path, site: dict[str, Any], tmp_path: Path) -> None:
    environment = {
        "PATH": f"{site['bin']}:/usr/bin:/bin",
        "HOME": str(tmp_path),
        "XDG_STATE_HOME": str(tmp_path / "state"),
        "LANG": "C.UTF-8",
    }
    pilot = str(installed / "pilot")
    printed = run([pilot, "init", "local"], tmp_path, env=environment)
    assert printed.returncode == 0, printed.stderr
    config = tmp_path / "pilot.yaml"
    config.write_text(printed.stdout.replace("http://127.0.0.1:25080", site["panda_url"]))
    checked = run([pilot, "check", "-c", str(config)], tmp_path, env=environment)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "ok   batch queue " in checked.stdout
    base = tmp_path / "state/edge-pilot/outputs"
    jobs = json.dumps([positional(n, base) for n in range(JOBS)])
    submitted = call(f"{site['panda_url']}/api/v1/job/submit", {"jobs": jobs})
    assert submitted["success"], submitted
    done = run([pilot, "run", "--once", "-c", str(config)], tmp_path, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        table = call(f"{site['panda_url']}/sim/table")["jobs"]
        finished = [job for job in table if job["status"] == "finished"]
        if len(finished) >= 2:
            break
        time.sleep(0.1)
    assert len(finished) == 2, [(job["status"], job["attributes"].get("ddmErrorDiag")) for job in table]
    assert len(list(base.rglob("evtdump3-*.raw"))) == 2


def test_a_bad_config_has_exit_code_2_and_writes_nothing(installed: Path, tmp_path: Path) -> None:
    config = tmp_path / "pilot.yaml"
    config.write_text("site: demo\nstate_dir: relative\n")
    done = run([str(installed / "pilot"), "run", "-c", str(config)], tmp_path)
    assert done.returncode == 2
    assert f"{config}:2: state_dir: found 'relative'" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pilot.yaml"]


def test_missing_commands_are_named_by_check(installed: Path, tmp_path: Path) -> None:
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "XDG_STATE_HOME": str(tmp_path / "state")}
    text = run([str(installed / "pilot"), "init", "local"], tmp_path, env=environment).stdout
    config = tmp_path / "pilot.yaml"
    config.write_text(text.replace("submit: qsub", "submit: no-such-qsub"))
    done = run([str(installed / "pilot"), "check", "-c", str(config)], tmp_path, env=environment)
    assert done.returncode == 1
    assert "FAIL command no-such-qsub: not found in PATH" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_every_script_says_what_it_can_do(installed: Path, tmp_path: Path) -> None:
    for name, words in {"pilot": "run the daemon", "simsite": "whole chain"}.items():
        done = run([str(installed / name), "--help"], tmp_path, env={**os.environ, "PATH": "/usr/bin:/bin"})
        assert done.returncode == 0
        assert words in done.stdout
