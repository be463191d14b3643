"""`pilot confirm-kill`: a real daemon, a PanDA server over HTTP that orders everything to end, the real socket."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pilot.control import ControlError, ask_daemon
from simulators.panda.http import PandaHttpServer, PandaServer
from simulators.panda.jobspec import ATTRIBUTES, parse_jobs
from simulators.panda.model import PandaModel, PandaTimes

JOBS = 24
CONFIG = """
site: here
state_dir: {base}/state
shared_dir: {base}/shared
output_root: {base}/out
tick_s: 0.05
batch: {{server: sim, commands: {{submit: "{base}/qsub", list: "{base}/qstat", cancel: "{base}/qdel"}}}}
servers: [{{name: panda, url: "{url}/", dialect: v1}}]
queues:
  - {{name: long, server: panda, panda_queue: Q, batch_queue: normal, nodes: 4, slots: 8, fill_wait_s: 9999}}
reporting: {{heartbeat_s: 1, heartbeat_spread_s: 0, urgent_s: 2}}
space: {{free_min_mib: 0, free_inodes_min: 0}}
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[PandaModel, str]]:
    """A PanDA server with jobs for the queue."""
    model = PandaModel(PandaTimes(activate_s=0.0, adder_s=1.0))
    http = PandaHttpServer(("127.0.0.1", 0), PandaServer(model, None))
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    model.submit(parse_jobs([_positional(number, tmp_path) for number in range(JOBS)]))
    yield model, f"http://127.0.0.1:{http.server_address[1]}"
    http.shutdown()
    http.server_close()
    thread.join()


def _positional(number: int, base: Path) -> list[Any]:
    values = {
        "jobName": f"j{number}",
        "computingSite": "Q",
        "prodSourceLabel": "managed",
        "attemptNr": 1,
        "currentPriority": 1000,
        "transformation": "mass production",
        "jobParameters": f"COMPASS_SW_PREFIX={base}/out/ COMPASS_SW_PATH=p/ PRODSOFT=s prodSlt=3 reco --raw x",
        "jediTaskID": 900,
    }
    files = [["NULL", "NULL", "NULL", f"mDST-1-{number}-3-8.a1.root", "output", *["NULL"] * 13, None]]
    return [*(values.get(name, "NULL") for name in ATTRIBUTES), files]


@pytest.fixture
def config(tmp_path: Path, server: tuple[PandaModel, str]) -> Iterator[Path]:
    """A site whose batch system is empty and takes nothing."""
    for name, body in (("qsub", "exit 1"), ("qstat", "echo '<Data></Data>'"), ("qdel", "exit 1")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "out").mkdir()
    path = tmp_path / "pilot.yaml"
    path.write_text(CONFIG.format(base=tmp_path, url=server[1]))
    yield path
    with contextlib.suppress(OSError, ValueError, KeyError):
        import json

        newest = max((tmp_path / "state").glob("lease.*"), key=lambda lease: int(lease.suffix[1:]))
        os.kill(json.loads(newest.read_text())["pid"], signal.SIGKILL)


def pilot(config: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """One command of the operator."""
    argv = [sys.executable, "-m", "pilot", *words, "-c", str(config)]
    return subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)


def status_when(config: Path, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The first status document that is as wanted."""
    ends, document = time.monotonic() + 60, {}
    while time.monotonic() < ends:
        with contextlib.suppress(ControlError):
            document = ask_daemon(config.parent / "state", "status")
            if document.get("queues") and wanted(document):
                return document
        threading.Event().wait(0.05)
    raise AssertionError(document)


def held(document: dict[str, Any]) -> bool:
    """All jobs are ordered to end, and none of them is ended."""
    return bool(document["orders_held"] == {"long": JOBS} and document["queues"][0]["jobs"]["pooled"] == JOBS)


def test_orders_are_held_through_a_restart_until_a_person_confirms_them(
    config: Path, server: tuple[PandaModel, str]
) -> None:
    model = server[0]
    assert pilot(config, "start").returncode == 0
    nothing = pilot(config, "confirm-kill")
    assert (nothing.returncode, nothing.stdout) == (
        0,
        "no order to end a job is held: nothing is changed\n",
    )
    status_when(config, lambda document: all(job.status == "starting" for job in model.jobs.values()))
    for panda_id in tuple(model.jobs):
        assert model.set_command(panda_id, "tobekilled")
    document = status_when(config, held)
    assert any(a["name"] == "mass-kill" and "pilot confirm-kill" in a["reason"] for a in document["alarms"])
    assert "24 jobs are ordered to end and held: `pilot confirm-kill`" in pilot(config, "status").stdout
    some_job = str(min(model.jobs))
    assert "held until `pilot confirm-kill`" in pilot(config, "why", some_job).stdout

    assert pilot(config, "stop").returncode == 0
    assert pilot(config, "start").returncode == 0
    status_when(config, held)

    refused = pilot(config, "confirm-kill", "--at-most", str(JOBS - 1))
    assert refused.returncode == 1
    assert f"{JOBS} orders to end a job are held, more than {JOBS - 1}: nothing is changed" in refused.stdout
    status_when(config, held)

    confirmed = pilot(config, "confirm-kill", "--at-most", str(JOBS))
    assert confirmed.returncode == 0, confirmed.stderr
    assert f"{JOBS} orders were held" in confirmed.stdout
    over = status_when(config, lambda document: not any(document["queues"][0]["jobs"].values()))
    assert not over["orders_held"]
    assert not [alarm for alarm in over["alarms"] if alarm["name"] == "mass-kill"]
    assert '"confirmed":true' in "".join(
        path.read_text(errors="replace") for path in (config.parent / "state").rglob("*") if path.is_file()
    )


def test_a_number_of_jobs_that_is_none_is_wrong_usage(config: Path) -> None:
    assert pilot(config, "confirm-kill", "--at-most", "-1").returncode == 2
