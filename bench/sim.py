"""Figures of the simulated servers: their own processes, asked over their own wires."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import requests

from bench.measurement import CannotMeasure, Measurement, Sample, Take

LIMIT_S = 60.0
JOBS = 4000
BULK = 400
QSUBS = 100
LISTED = 300
QUEUE = "SIM_LONG"


@contextlib.contextmanager
def running_site(work: Path, site: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """`simsite up` with this site file; gives its site.json."""
    file, runtime = work / "site.json", work / "r"
    file.write_text(json.dumps(site))
    up = subprocess.Popen(
        [sys.executable, "-m", "simulators.cli", "up", str(file), "--runtime", str(runtime)],
        stdout=subprocess.DEVNULL,
    )
    try:
        ends = time.monotonic() + LIMIT_S
        while not (runtime / "site.json").exists():
            if up.poll() is not None or time.monotonic() > ends:
                raise CannotMeasure("simsite up did not come up")
            time.sleep(0.05)
        yield json.loads((runtime / "site.json").read_text())
    finally:
        up.terminate()
        up.wait(LIMIT_S)


def _call(session: requests.Session, url: str, name: str, body: bytes) -> Any:
    reply = session.post(
        f"{url}/api/v1/{name}", body, headers={"Content-Type": "application/json"}, timeout=LIMIT_S
    )
    answer = reply.json()
    if not answer["success"]:
        raise CannotMeasure(f"{name}: {answer['message']}")
    return answer["data"]


@contextlib.contextmanager
def _updates(work: Path) -> Iterator[Take]:
    with running_site(work, {"panda": {"activate_s": 0}, "torque": {"nodes": 1, "slots": 1}}) as site:
        url, session = site["panda_url"], requests.Session()
        submit = [sys.executable, "-m", "simulators.cli", "jobs", str(JOBS), "--runtime", str(work / "r")]
        subprocess.run(submit, check=True, stdout=subprocess.DEVNULL, timeout=LIMIT_S)
        ids: list[int] = []
        while len(ids) < JOBS:
            wish = json.dumps({"site_name": QUEUE, "n_jobs": JOBS, "timeout": 60}).encode()
            jobs = _call(session, url, "pilot/acquire_jobs", wish)["jobs"]
            ids += [int(job["PandaID"]) for job in jobs]
        states = ("starting", "running")

        def take(run: int) -> dict[str, Sample]:
            bodies = []
            for start in range(0, JOBS, BULK):
                updates = [
                    {"job_id": panda_id, "job_status": states[run % 2], "attempt_nr": 1, "batch_id": "1.sim"}
                    for panda_id in ids[start : start + BULK]
                ]
                bodies.append(json.dumps({"job_list": updates}).encode())
            begun = time.monotonic()
            answers = [_call(session, url, "pilot/update_jobs_bulk", body) for body in bodies]
            spent = time.monotonic() - begun
            if sum(item["success"] for answer in answers for item in answer) != JOBS:
                raise CannotMeasure("not every update was accepted")
            return {"sim.panda_updates_per_s": JOBS / spent}

        yield take


@contextlib.contextmanager
def _commands(work: Path) -> Iterator[Take]:
    # Nothing starts, and what was deleted is forgotten at once.
    waiting_only = {"queues": {"normal": {"started": False}}, "keep_completed_s": 0}
    site = {"torque": {"server_name": "sim", "nodes": 1, "slots": 1, **waiting_only}}
    script = work / "job.sh"
    script.write_text("#!/bin/sh\n#PBS -N bench -l nodes=1:ppn=1,walltime=600 -j oe -r n\nsleep 1\n")
    with running_site(work, site) as facts:
        environment = {**os.environ, "PATH": f"{facts['bin']}:/usr/bin:/bin"}

        def command(*argv: str) -> str:
            done = subprocess.run(
                argv, env=environment, cwd=work, capture_output=True, text=True, timeout=LIMIT_S, check=True
            )
            return done.stdout

        def take(run: int) -> dict[str, Sample]:
            begun = time.monotonic()
            for _ in range(QSUBS):
                command("qsub", str(script))
            per_s = QSUBS / (time.monotonic() - begun)
            for _ in range(LISTED - QSUBS):
                command("qsub", str(script))
            waiting = command("qselect", "-s", "Q").split()
            begun = time.monotonic()
            text = command("qstat", "-x")
            spent = time.monotonic() - begun
            if len(waiting) != LISTED or text.count("<job_state>Q<") != LISTED:
                raise CannotMeasure(f"{len(waiting)} batch jobs wait instead of {LISTED}")
            command("qdel", *waiting)
            return {"sim.qsub_per_s": per_s, "sim.qstat_x_300_s": spent}

        yield take


MEASUREMENTS = (
    Measurement(
        ("sim.panda_updates_per_s",),
        f"simsite up: {JOBS} jobs updated by pilot/update_jobs_bulk, {BULK} in a call, one caller",
        _updates,
    ),
    Measurement(
        ("sim.qsub_per_s", "sim.qstat_x_300_s"),
        f"simsite up: {QSUBS} qsub one after the other, per second; one `qstat -x` of {LISTED} batch jobs",
        _commands,
    ),
)
