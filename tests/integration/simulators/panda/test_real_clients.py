"""panda-client 1.5.92 (legacy calls) and 2.2.0 (v1) from PyPI, unmodified, each in an environment of its own."""

from __future__ import annotations

import fcntl
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import requests

sys.path.insert(0, str(Path(__file__).parent))
from test_panda_http import LIMIT_S, Process

ROOT = Path(__file__).parents[4]
SESSION = Path(__file__).with_name("client_session.py")
SUBMIT_MAX = 5000
# Downloads and a client that sends 5,001 jobs, on a busy machine.
INSTALL_S, SESSION_S = 300, 120


def client_python(version: str) -> Path:
    """The interpreter of an environment with this client; made once for a clone."""
    home = ROOT / f".venv-panda-client-{version}"
    done = home / "installed"
    with open(ROOT / ".venv-panda-client.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            shutil.rmtree(home, ignore_errors=True)
            subprocess.run([sys.executable, "-m", "venv", str(home)], check=True, timeout=INSTALL_S)
            pip = [str(home / "bin/python"), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
            subprocess.run([*pip, f"panda-client=={version}"], check=True, timeout=INSTALL_S)
            done.touch()
    return home / "bin/python"


def session(
    server: Process, version: str, count: int, how: str, directory: Path, **more: str
) -> dict[str, Any]:
    """What the client's functions returned."""
    url = f"{server.url}/server/panda"
    environment = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(directory),
        "TMPDIR": str(directory),
        "PANDA_URL": url,
        "PANDA_URL_SSL": url,
        "PANDACACHE_URL": url,
        "PANDA_BEHIND_REAL_LB": "1",
        "X509_USER_PROXY": "/dev/null",
        **more,
    }
    argv = [str(client_python(version)), str(SESSION), str(count), how]
    done = subprocess.run(
        argv, env=environment, cwd=directory, capture_output=True, text=True, timeout=SESSION_S, check=False
    )
    line = next((line for line in done.stdout.splitlines() if line.startswith("SESSION ")), None)
    assert line is not None, done.stdout + done.stderr
    told: dict[str, Any] = json.loads(line.removeprefix("SESSION "))
    return told


@pytest.fixture
def server(tmp_path: Path):
    running = Process(tmp_path, activate_s=0)
    yield running
    running.end()
    if running.process.stderr:
        running.process.stderr.close()


def judge(told: dict[str, Any], server: Process, count: int) -> None:
    code, stored = told["submit"]
    assert (code, len(stored)) == (0, min(count, SUBMIT_MAX))
    assert [row[1:] for row in stored[:2]] == [[7, "client-0"], [7, "client-1"]]
    ids = [row[0] for row in stored]
    assert [row[0] for row in told["before"]] == ids[:3]
    assert {row[1] for row in told["before"]} <= {"defined", "activated"}
    assert told["before"][0][2:] == ["client-0", ["l0.job.log.tgz"]]
    killed = told["kill"]
    assert killed[0] == 0
    assert told["after"][0][1] == "cancelled"
    assert {row[1] for row in told["after"][1:]} == {"activated"}
    counts = requests.get(f"{server.url}/sim/counts", timeout=LIMIT_S).json()["jobs"]
    assert counts == {"cancelled": 1, "activated": len(stored) - 1}


@pytest.mark.parametrize("how", ["pickle", "json"])
def test_the_last_legacy_client_submits_5001_jobs_queries_and_kills(server, tmp_path, how) -> None:
    told = session(server, "1.5.92", SUBMIT_MAX + 1, how, tmp_path, PANDA_USE_NATIVE_HTTPLIB="1")
    judge(told, server, SUBMIT_MAX + 1)
    assert told["kill"][1] == [True, False]


@pytest.mark.skipif(
    shutil.which("curl") is None, reason="this client's default is the command curl, not installed"
)
def test_the_last_legacy_client_works_through_its_curl(server, tmp_path) -> None:
    judge(session(server, "1.5.92", 5, "pickle", tmp_path), server, 5)


def test_the_v1_client_submits_5001_jobs_queries_and_kills(server, tmp_path) -> None:
    told = session(server, "2.2.0", SUBMIT_MAX + 1, "json", tmp_path)
    judge(told, server, SUBMIT_MAX + 1)
