"""One contract for both carriers of the commands: this process, and real executables against the real server."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from pilot.batch import torque
from pilot.batch.cli import BatchCli, BatchTimeouts
from pilot.ports import BatchId, BatchRequest, BatchState, Broken, CancelResult, Listing, Refused, Unavailable
from simulators.torque.control import start_server
from simulators.torque.job import KillJob, StartJob, TerminateJob
from simulators.torque.model import TorqueModel
from simulators.torque.port import TorqueCommands
from simulators.torque.site import TorqueSite

SITE = {"nodes": 2, "slots": 4, "keep_completed_s": 1.5, "scheduler_interval_s": 0.05, "kill_delay_s": 0.3}
LIMIT_S = 20.0


class Virtual:
    """The model with a clock of its own; a script ends when the test says so."""

    def __init__(self, tmp_path: Path) -> None:
        self.now, self.tmp_path = 1_000.0, tmp_path
        self.model = TorqueModel(TorqueSite.model_validate({**SITE, "server_name": "sim"}))
        commands = TorqueCommands(
            self.model, lambda: self.now, lambda path: Path(path).read_text(), self._carry_out
        )
        self.batch = BatchCli(torque, "sim", {}, run=commands)
        self.name = self.user = "alice"

    def _carry_out(self, outputs) -> None:
        for output in outputs:
            match output:
                case StartJob(batch_id):
                    self.model.job_started(batch_id, 1)
                case TerminateJob(batch_id) | KillJob(batch_id):
                    self.model.job_ended(self.now, batch_id, 143)

    def end(self, batch_id: BatchId, code: int) -> None:
        self.model.job_ended(self.now, batch_id, code)

    def wait(self) -> None:
        self.now += 0.05
        self._carry_out(self.model.advance(self.now))


class Wire:
    """Commands on PATH and a server process; a script ends when its file appears."""

    def __init__(self, tmp_path: Path, server) -> None:
        self.tmp_path = tmp_path
        environment = {"PATH": f"{server.ready['bin']}:/usr/bin:/bin", "HOME": str(tmp_path)}
        self.batch = BatchCli(torque, "sim", environment)

    def end(self, batch_id: BatchId, code: int) -> None:
        listing = self.batch.list_jobs([batch_id])
        assert isinstance(listing, Listing)
        flag = self.tmp_path / f"{listing.jobs[0].name}.end"
        flag.with_suffix(".new").write_text(str(code))
        flag.with_suffix(".new").rename(flag)

    def wait(self) -> None:
        """The next question is a process of its own: that is pause enough."""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    runtime = tmp_path_factory.mktemp("torque")
    config = runtime / "site.json"
    config.write_text(json.dumps(SITE))
    running = start_server(str(config), str(runtime / "runtime"))
    yield running
    assert running.stop() == 0


@pytest.fixture(params=["virtual", "wire"])
def site(request, tmp_path):
    if request.param == "virtual":
        return Virtual(tmp_path)
    return Wire(tmp_path, request.getfixturevalue("server"))


def submit(site, name: str, nodes: int = 1, queue: str = "normal", walltime_s: int = 600):
    request = BatchRequest(name, queue, nodes, 4, walltime_s, f"{site.tmp_path}/{name}.out")
    script = site.tmp_path / f"{name}.sh"
    loop = f"while [ ! -e {site.tmp_path}/{name}.end ]; do sleep 0.02; done; exit $(cat {site.tmp_path}/{name}.end)"
    script.write_text(f"#!/bin/sh\n{torque.render_directives(request)}{loop}\n")
    return site.batch.submit(str(script), name)


def seen(site, batch_id):
    listing = site.batch.list_jobs(None)
    assert isinstance(listing, Listing) and listing.server == "sim"
    return next((job for job in listing.jobs if job.batch_id == batch_id), None)


def wait_for(site, batch_id, holds):
    """Ask until it holds; the last thing that was seen."""
    end_s = time.monotonic() + LIMIT_S
    while not holds(job := seen(site, batch_id)):
        assert time.monotonic() < end_s, f"still {job}"
        site.wait()
    return job


def running(job):
    return job is not None and job.state is BatchState.RUNNING


def over(job):
    return job is not None and job.state is BatchState.OVER


def test_submitted_job_is_found_by_its_name_and_runs(site):
    batch_id = submit(site, "p7k2m4x9q.1", nodes=2)
    assert isinstance(batch_id, str) and batch_id.endswith(".sim")
    job = wait_for(site, batch_id, running)
    assert (job.name, job.queue, job.walltime_s, job.start_count) == ("p7k2m4x9q.1", "normal", 600, 1)
    assert (job.exec_hosts, job.exit_status) == (("1", "2"), None)
    site.end(batch_id, 0)
    job = wait_for(site, batch_id, over)
    assert job.exit_status == 0 and job.used_walltime_s is not None


def test_exit_code_of_the_script_is_seen(site):
    batch_id = submit(site, "code.1")
    wait_for(site, batch_id, running)
    site.end(batch_id, 3)
    assert wait_for(site, batch_id, over).exit_status == 3


def test_job_without_room_waits_and_its_cancel_leaves_no_exit_status(site):
    first, second = submit(site, "first.1", nodes=2), submit(site, "second.1", nodes=2)
    wait_for(site, first, running)
    assert seen(site, second).state is BatchState.WAITING
    assert site.batch.cancel(second) is CancelResult.ASKED
    assert seen(site, second).state is BatchState.OVER and seen(site, second).exit_status is None
    assert site.batch.cancel(second) is CancelResult.ALREADY_OVER
    assert site.batch.cancel(first) is CancelResult.ASKED
    assert wait_for(site, first, over).exit_status == 271


def test_over_is_forgotten_and_then_definitely_unknown(site):
    batch_id = submit(site, "gone.1")
    wait_for(site, batch_id, running)
    site.end(batch_id, 0)
    wait_for(site, batch_id, over)
    wait_for(site, batch_id, lambda job: job is None)
    assert site.batch.list_jobs([batch_id]) == Listing("sim", (), (batch_id,), (batch_id,))
    assert site.batch.cancel(batch_id) is CancelResult.UNKNOWN_ID


def test_single_questions_answer_for_each_id(site):
    batch_id = submit(site, "one.1")
    wait_for(site, batch_id, running)
    answer = site.batch.list_jobs([batch_id, BatchId("999999.sim")])
    assert isinstance(answer, Listing) and answer.unknown_ids == ("999999.sim",)
    assert [job.batch_id for job in answer.jobs] == [batch_id]
    site.batch.cancel(batch_id)
    wait_for(site, batch_id, over)


def test_what_the_site_cannot_run_is_refused_with_the_server_s_code(site):
    for wanted, code in (
        ({"queue": "nosuch"}, "172"),
        ({"nodes": 3}, "190"),
        ({"walltime_s": 999_999}, "190"),
    ):
        answer = submit(site, "no.1", **wanted)
        assert isinstance(answer, Refused) and answer.code == code


def test_id_of_another_server_is_broken_and_backfill_is_not_known(site):
    assert isinstance(site.batch.list_jobs([BatchId("1.other")]), Broken)
    assert isinstance(site.batch.holes(), Unavailable)


def test_walltime_is_enforced_with_its_own_status(site):
    batch_id = submit(site, "late.1", walltime_s=1)
    assert wait_for(site, batch_id, over).exit_status == -11


def test_script_that_is_not_there_is_refused_without_a_batch_job(site):
    answer = site.batch.submit(str(site.tmp_path / "missing.sh"), "missing234.1")
    assert isinstance(answer, Refused) and "cannot be loaded" in answer.reason
    assert "missing234.1" not in {job.name for job in site.batch.list_jobs(None).jobs}


def test_server_that_is_gone_is_unavailable(tmp_path, server):
    from simulators.torque.executables import write_executables

    (tmp_path / "runtime").mkdir()
    write_executables(str(tmp_path / "bin"), str(tmp_path / "runtime"))
    batch = BatchCli(torque, "sim", {"PATH": f"{tmp_path}/bin:{os.defpath}"})
    assert isinstance(batch.list_jobs(None), Unavailable)
    assert isinstance(batch.list_jobs([BatchId("1.sim")]), Unavailable)
    assert isinstance(batch.submit(str(tmp_path / "s"), "n"), Unavailable)
    assert isinstance(batch.cancel(BatchId("1.sim")), Unavailable)


def test_server_that_hangs_is_given_up_at_the_limit_and_a_submission_stays_open(tmp_path, server):
    site = Wire(tmp_path, server)
    environment = {"PATH": f"{server.ready['bin']}:/usr/bin:/bin", "HOME": str(tmp_path)}
    quick = BatchCli(torque, "sim", environment, timeouts=BatchTimeouts(1.0, 1.0, 1.0))
    server.process.send_signal(signal.SIGSTOP)
    try:
        start_s = time.monotonic()
        assert isinstance(quick.list_jobs(None), Unavailable)
        assert isinstance(quick.cancel(BatchId("1.sim")), Unavailable)
        site.batch = quick
        assert isinstance(submit(site, "hungry234.1"), Unavailable)
        assert time.monotonic() - start_s < LIMIT_S
    finally:
        server.process.send_signal(signal.SIGCONT)
    listing = BatchCli(torque, "sim", environment).list_jobs(None)
    assert isinstance(listing, Listing)
    # Whether the server took it is found out by its name, never by another qsub.
    for job in listing.jobs:
        if job.name == "hungry234.1":
            assert quick.cancel(job.batch_id) is CancelResult.ASKED
