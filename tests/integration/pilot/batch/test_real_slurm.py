"""The dialect of Slurm's wrappers against a real Slurm: submit, list, cancel, a stopped controller, a whole pilot."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parent))
from slurmkit import SlurmSite, reason_to_skip

from pilot.batch import slurm
from pilot.batch.cli import BatchCli, BatchTimeouts
from pilot.launcher import make_launcher
from pilot.ports import BatchId, BatchRequest, BatchState, CancelResult, Listing, Refused, Unavailable

ROOT = Path(__file__).parents[4]
REASON = reason_to_skip()
pytestmark = pytest.mark.skipif(REASON is not None, reason=REASON or "")
WITHIN_S = 30.0


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmSite]:
    made = SlurmSite(tmp_path_factory.mktemp("slurm"))
    try:
        made.start()
        yield made
    finally:
        made.close()


@pytest.fixture
def batch(site: SlurmSite) -> BatchCli:
    return BatchCli(slurm, "wires", site.environment, timeouts=BatchTimeouts(20.0, 20.0, 20.0))


def write_script(directory: Path, name: str, body: str, **changes: Any) -> str:
    request = {"name": name, "queue": "normal", "nodes": 2, "slots_per_node": 2, "walltime_s": 300}
    request |= {"stdout": str(directory / "batch.1.out"), **changes}
    path = directory / "script.1.sh"
    path.write_text(f"#!/bin/sh\n{slurm.render_directives(BatchRequest(**request))}{body}\n")
    return str(path)


def until(ask: Callable[[], Any], holds: Callable[[Any], bool]) -> Any:
    deadline_s = time.monotonic() + WITHIN_S
    while not holds(found := ask()):
        assert time.monotonic() < deadline_s, found
        time.sleep(0.1)
    return found


def states(listing: Any) -> dict[str, BatchState]:
    assert isinstance(listing, Listing), listing
    return {job.name: job.state for job in listing.jobs}


def test_a_batch_job_on_two_nodes_is_submitted_seen_by_name_and_ends(
    site: SlurmSite, batch: BatchCli, tmp_path: Path
) -> None:
    step = shlex.join(make_launcher("srun", 2).command(1, ("sh", "-c", "echo on $SLURMD_NODENAME")))
    script = write_script(tmp_path, "aaaaaaaaa.1", f"echo id $SLURM_JOB_ID\n{step}")
    batch_id = batch.submit(script, "aaaaaaaaa.1")
    assert isinstance(batch_id, str), batch_id
    seen = until(lambda: states(batch.list_jobs(None)), lambda found: found["aaaaaaaaa.1"] is BatchState.OVER)
    assert set(seen) == {"aaaaaaaaa.1"}
    single = batch.list_jobs([BatchId(batch_id)])
    assert isinstance(single, Listing)
    assert (single.jobs[0].walltime_s, single.jobs[0].queue) == (300, "normal")
    assert (tmp_path / "batch.1.out").read_text() == f"id {batch_id}\non n2\n"
    assert batch.cancel(BatchId(batch_id)) is CancelResult.UNKNOWN_ID


def test_a_waiting_and_a_running_batch_job_are_cancelled(batch: BatchCli, tmp_path: Path) -> None:
    ids = []
    for number in (1, 2):
        directory = tmp_path / str(number)
        directory.mkdir()
        ids.append(
            batch.submit(write_script(directory, f"bbbbbbbbb.{number}", "sleep 120"), f"bbbbbbbbb.{number}")
        )
    running, waiting = BatchState.RUNNING, BatchState.WAITING
    until(
        lambda: states(batch.list_jobs(None)),
        lambda found: (found["bbbbbbbbb.1"], found["bbbbbbbbb.2"]) == (running, waiting),
    )
    assert [batch.cancel(batch_id) for batch_id in reversed(ids)] == [CancelResult.ASKED] * 2
    until(
        lambda: states(batch.list_jobs(None)),
        lambda found: {found["bbbbbbbbb.1"], found["bbbbbbbbb.2"]} == {BatchState.OVER},
    )


@pytest.mark.parametrize(
    "change",
    [{"queue": "nosuch"}, {"nodes": 9}, {"slots_per_node": 9}, {"walltime_s": 90_000}, {"features": ("xe",)}],
)
def test_what_slurm_refuses_is_a_definite_no(batch: BatchCli, tmp_path: Path, change: dict[str, Any]) -> None:
    answer = batch.submit(write_script(tmp_path, "ccccccccc.1", "true", **change), "ccccccccc.1")
    assert isinstance(answer, Refused), answer


def test_an_unknown_id_is_definite_and_a_stopped_controller_tells_nothing(
    site: SlurmSite, batch: BatchCli, tmp_path: Path
) -> None:
    unknown = BatchId("999999")
    assert batch.list_jobs([unknown]) == Listing("wires", (), (unknown,), (unknown,))
    assert batch.cancel(unknown) is CancelResult.UNKNOWN_ID
    assert site.controller is not None
    site.controller.send_signal(signal.SIGSTOP)
    try:
        quick = BatchCli(slurm, "wires", site.environment, timeouts=BatchTimeouts(1.0, 1.0, 1.0))
        script = write_script(tmp_path, "ddddddddd.1", "true")
        assert isinstance(quick.list_jobs(None), Unavailable)
        assert isinstance(quick.cancel(unknown), Unavailable)
        assert isinstance(quick.submit(script, "ddddddddd.1"), Unavailable)
    finally:
        site.controller.send_signal(signal.SIGCONT)
    until(lambda: batch.list_jobs(None), lambda found: isinstance(found, Listing))


PAYLOAD = """\
echo "$SLURMD_NODENAME" >"$1"
echo "Number of events saved to output : 7"
echo "End of Job"
"""

# --- a whole pilot ------------------------------------------------------------------------------------------------


def job(number: int, payload: Path, base: Path) -> list[Any]:
    from simulators.panda.jobspec import ATTRIBUTES

    name = f"histsum-274495-{number}.root"
    words = [
        f"PRODSYS_WORK=w{number}",
        f"COMPASS_SW_PREFIX={base}/",
        "COMPASS_SW_PATH=p/",
        "PRODSOFT=s",
        "prodSlt=3",
    ]
    values = {
        "jobName": f"j{number}",
        "transformation": "merging hist",
        "computingSite": "MY_QUEUE",
        "prodSourceLabel": "managed",
        "attemptNr": 1,
        "currentPriority": 1000,
        "jobParameters": shlex.join([*words, "/bin/sh", str(payload), name]),
    }
    files = [(name, "output"), (f"l{number}.a1.job.log.tgz", "log")]
    listed = [["NULL", "NULL", "NULL", lfn, kind, *["NULL"] * 13, None] for lfn, kind in files]
    return [*(values.get(attribute, "NULL") for attribute in ATTRIBUTES), listed]


def write_config(tmp_path: Path, url: str, local_dir: Path) -> Path:
    text = (ROOT / "pilot/sites/slurm.yaml").read_text().replace("@BASE@", str(tmp_path / "base"))
    config = yaml.safe_load(text.replace("@PYTHON@", os.path.realpath(sys.executable)))
    config["servers"] = [{"name": "panda", "url": url, "dialect": "v1", "timeout_s": 30.0}]
    config["protocol"] |= {"visible_s": 0.5, "poll_s": 1.0, "kill_s": 2.0, "grace_s": 30.0, "margin_s": 20.0}
    config["batch"] |= {"listing_every_s": 1.0}
    config |= {"evidence_every_s": 0.5, "tick_s": 0.2, "log_file": None}
    config["node"] |= {"local_dir": str(local_dir)}
    config["queues"][0] |= {"slots": 2, "nodes": 2, "fill_wait_s": 2.0}
    config["queues"][0]["walltime"] |= {"min_s": 120, "max_s": 600, "startup_s": 1.0, "per_event_s": 0.0}
    path = tmp_path / "pilot.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def test_a_pilot_runs_its_bundle_on_two_nodes_of_a_real_slurm(
    site: SlurmSite, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    payload = tmp_path / "payload.sh"
    payload.write_text(PAYLOAD)
    ready = tmp_path / "ready.json"
    panda = subprocess.Popen([sys.executable, "-m", "simulators.panda.http", "--ready", str(ready)], cwd=ROOT)
    try:
        until(ready.exists, bool)
        url = json.loads(ready.read_text())["url"]
        specs = json.dumps([job(number, payload, tmp_path / "base/outputs") for number in range(1, 5)])
        body = json.dumps({"jobs": specs}).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{url}/api/v1/job/submit", body, headers)
        assert json.load(urllib.request.urlopen(request, timeout=30))["success"]
        jobs = lambda: json.load(urllib.request.urlopen(f"{url}/sim/table", timeout=30))["jobs"]  # noqa: E731
        until(jobs, lambda found: all(item["status"] == "activated" for item in found))
        config = write_config(tmp_path, url, tmp_path_factory.mktemp("n"))
        command = [sys.executable, "-m", "pilot", "run", "--once", "-c", str(config)]
        done = subprocess.run(
            command, cwd=ROOT, env=site.environment, capture_output=True, text=True, timeout=120, check=False
        )
        log = done.stdout + done.stderr
        assert done.returncode == 0, log
        found = until(jobs, lambda rows: all(item["status"] in ("finished", "failed") for item in rows))
    finally:
        panda.terminate()
        panda.wait(30)
    assert [item["status"] for item in found] == ["finished"] * 4, (found, log)
    outputs = sorted((tmp_path / "base/outputs").rglob("histsum-*.root"))
    assert len(outputs) == 4
