"""prodsys against the simulated PanDA server over real HTTP, with a pilot in a few lines."""

import json
import re
import signal
import subprocess
import sys
import time
import uuid

import pytest
import requests

from prodsys_core.models import AttemptEnd, PandaAttempt, Run, SendBatch
from prodsys_core.panda import HttpJobSink, open_sink
from prodsys_core.ports import PandaJob, Refused
from prodsys_core.selectors import job_rows
from prodsys_core.services.actions import Pick
from prodsys_core.services.looks import look_act
from prodsys_core.services.tasks import as_manager

START_S = 20
LEGACY = {"job_output_report": "xml", "n_events": "nEvents", "job_metrics": "jobMetrics"}


@pytest.fixture
def server(tmp_path, request):
    """Address of a server whose own daemons work at once; its flavour may be the fixture's parameter."""
    ready, times = tmp_path / "ready.json", tmp_path / "times.json"
    flavour = getattr(request, "param", "both")
    times.write_text(json.dumps({"activate_s": 0, "adder_s": 0, "flavour": flavour}))
    process = subprocess.Popen(
        [sys.executable, "-m", "simulators.panda.http", "--ready", str(ready), "--config", str(times)]
    )
    try:
        end = time.monotonic() + START_S
        while not ready.exists():
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.02)
        yield json.loads(ready.read_text())["url"]
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(START_S)


@pytest.fixture
def wired(rig, server):
    """The rig with the real client on the simulated server."""
    rig.at_once(url=server, settle_s=5.0)
    rig.panda = HttpJobSink(rig.config.panda)
    rig.pilot = Pilot(server, rig)
    return rig


class Pilot:
    """Takes jobs of a queue and reports them."""

    def __init__(self, url, rig):
        self.url, self.rig = url, rig

    def post(self, call, body):
        headers = {"Accept": "application/json"}
        answer = requests.post(f"{self.url}/api/v1/{call}", json=body, headers=headers, timeout=20).json()
        return answer["data"] if answer["success"] else None

    def fault(self, **order):
        assert requests.post(f"{self.url}/sim/fault", json=order, timeout=20).text == "ok"

    def take(self, queue, n=100):
        found = self.post(
            "pilot/acquire_jobs", {"site_name": queue, "n_jobs": n, "prod_source_label": "managed"}
        )
        return found["jobs"] if found else []

    def report(self, job, status, **fields):
        body = {"job_id": job["PandaID"], "job_status": status, "attempt_nr": job["attemptNr"], **fields}
        return self.post("pilot/update_job", body)

    def finish(self, job, **counts):
        """`counts`: as reported; otherwise all events that the job was given, read and written."""
        files = self.rig.write_outputs(WireJob(job))
        report = {
            file.lfn: {"guid": str(uuid.uuid4()), "fsize": file.size, "adler32": file.adler32}
            for file in files
        }
        n_events = int(re.search(r"PRODSYS_NEVENTS=(-?\d+)", job["jobPars"])[1])
        if not counts and n_events >= 0:
            counts = {"n_events": n_events, "job_metrics": f"eventsWritten={n_events}"}
        return self.report(job, "finished", job_output_report=json.dumps(report), **counts)


class OldPilot(Pilot):
    """The same over the calls from before v1."""

    def call(self, method, **form):
        headers = {"Accept": "application/json"}
        return requests.post(f"{self.url}/server/panda/{method}", form, headers=headers, timeout=20).json()

    def take(self, queue, n=100):
        return self.call("getJob", siteName=queue, nJobs=n, prodSourceLabel="managed").get("jobs", [])

    def report(self, job, status, **fields):
        named = {LEGACY[name]: value for name, value in fields.items()}
        return self.call("updateJob", jobId=job["PandaID"], state=status, attemptNr=job["attemptNr"], **named)


class WireJob:
    """A job dictionary as the rig's payloads want it."""

    def __init__(self, job):
        self.job_parameters = job["jobPars"]
        log = job["logFile"]
        self.outputs = {lfn: "log" if lfn == log else "output" for lfn in job["outFiles"].split(",")}


def test_whole_chain_over_http(wired):
    wired.sent_task({274495: [300, 200], 274496: [13]})
    jobs = wired.pilot.take("LONG")
    assert [job["attemptNr"] for job in jobs] == [1, 1, 1]
    wired.pilot.report(jobs[0], "running")
    wired.tick()
    assert wired.task().status == "running"
    for job in jobs[:2]:
        wired.pilot.finish(job)
    wired.pilot.report(jobs[2], "failed", pilot_error_code=1379, pilot_error_diag="node died")
    wired.tick()
    assert sorted(step.status for step in wired.steps()) == ["finished", "finished", "sent"]
    (again,) = wired.pilot.take("LONG")
    assert again["attemptNr"] == 2
    wired.pilot.finish(again)
    wired.tick()
    merges = wired.pilot.take("SHORT")
    assert sorted(job["transformation"] for job in merges) == [
        "merging dump",
        "merging hist",
        "merging hist",
        "merging mdst",
        "merging mdst",
    ]
    for job in merges:
        wired.pilot.finish(job)
    for _ in range(3):
        wired.tick()
    assert wired.task().status == "done"
    wired.set("archive")
    for _ in range(6):
        wired.tick()
    assert wired.task().status == "archived"
    assert {run.status for run in Run.objects.all()} == {"archived"}
    assert [step.charged for step in wired.steps()] == [1, 1, 1]
    assert AttemptEnd.objects.get(charge="infrastructure").message.endswith("node died")


def test_lost_answer_is_found_again_over_http(wired):
    wired.create({274495: [300, 200]})
    wired.set("ready")
    wired.tick()
    wired.set("send")
    wired.pilot.fault(name="lose-next-answer", count=1, path="job/submit")
    wired.tick()
    assert SendBatch.objects.get().status == "unknown"
    wired.tick()
    assert SendBatch.objects.get().status == "settled"
    assert PandaAttempt.objects.exclude(panda_id=None).count() == 2
    assert len(wired.pilot.take("LONG")) == 2


@pytest.mark.parametrize("fault", ["500", "html"])
def test_spoiled_status_holds_everything(wired, fault):
    wired.sent_task({274495: [300]})
    (job,) = wired.pilot.take("LONG")
    wired.pilot.finish(job)
    wired.pilot.fault(name=fault, count=1, path="job/get_status")
    wired.tick()
    assert wired.step().status == "sent"
    wired.pilot.fault(name=fault, count=1, path="job/get_description_incl_archive")
    wired.tick()
    assert wired.step().status == "sent"
    wired.tick()
    assert wired.step().status == "finished"


def test_batch_that_was_not_stored_is_sent_again_over_http(wired):
    wired.create({274495: [300]})
    wired.set("ready")
    wired.tick()
    wired.set("send")
    wired.pilot.fault(name="500", count=1, path="job/submit")
    wired.tick()
    wired.tick(1)
    wired.tick(6)
    wired.tick(1)
    (job,) = wired.pilot.take("LONG")
    assert job["attemptNr"] == 2
    assert wired.step().panda_id == job["PandaID"]


def test_other_event_count_is_for_a_person_over_http(wired):
    wired.sent_task({274495: [300]})
    (job,) = wired.pilot.take("LONG")
    wired.pilot.finish(job, n_events=299)
    wired.tick()
    assert wired.step().reason == "events-differ"


def test_counts_that_no_pilot_reported_are_not_known_over_http(wired):
    wired.sent_task({274495: [300]})
    (job,) = wired.pilot.take("LONG")
    wired.pilot.finish(job, cpu_consumption_time=5)
    wired.tick()
    assert (wired.step().status, wired.step().reason) == ("finished", "events-unchecked")
    assert wired.step().message == "events in the catalogue 300, read unknown, written unknown"


def test_read_and_written_are_stored_apart_over_http(wired):
    wired.sent_task({274495: [300]})
    (job,) = wired.pilot.take("LONG")
    wired.pilot.finish(job, n_events=300, job_metrics="leak=5 eventsWritten=280")
    wired.tick()
    assert wired.step().reason == "finished"
    assert AttemptEnd.objects.values_list("n_read", "n_written").get() == (300, 280)
    (row,) = job_rows(wired.task())
    assert (row["events"], row["read"], row["written"]) == (300, 300, 280)


def test_cancelled_task_over_http(wired):
    wired.sent_task({274495: [300, 200]})
    (job,) = wired.pilot.take("LONG", 1)
    wired.pilot.report(job, "running")
    wired.tick()
    wired.set("cancelled")
    wired.tick()
    wired.tick()
    assert sorted(step.status for step in wired.steps()) == ["cancelled", "running"]
    assert wired.pilot.report(job, "running")["command"] == "tobekilled"
    wired.pilot.report(job, "failed", pilot_error_code=1144)
    wired.tick()
    assert {step.status for step in wired.steps()} == {"cancelled"}


@pytest.mark.parametrize("server", ["both", "0.8.1"], indirect=True)
@pytest.mark.parametrize("package", ["taskbuffer", "pandaserver.taskbuffer"])
def test_pickled_jobs_go_the_whole_way_as_others_do(wired, package):
    wired.panda = HttpJobSink(wired.config.panda.model_copy(update={"legacy_package": package}))
    wired.sent_task({274495: [300, 200]})
    assert [attempt.panda_id is None for attempt in PandaAttempt.objects.all()] == [False, False]
    jobs = wired.pilot.take("LONG")
    for job in jobs:
        wired.pilot.finish(job)
    wired.tick()
    merges = wired.pilot.take("SHORT")
    assert len(merges) == 3
    for job in merges:
        wired.pilot.finish(job)
    for _ in range(3):
        wired.tick()
    assert wired.task().status == "done"


def test_a_lost_answer_to_pickled_jobs_is_found_again(wired):
    wired.panda = HttpJobSink(wired.config.panda.model_copy(update={"legacy_package": "taskbuffer"}))
    wired.pilot.fault(name="lose-next-answer", count=1, path="submitJobs")
    wired.sent_task({274495: [300, 200]})
    assert SendBatch.objects.get().status == "unknown"
    wired.tick()
    assert SendBatch.objects.get().status == "settled"
    assert len(wired.pilot.take("LONG")) == 2


@pytest.mark.parametrize("server", ["2018"], indirect=True)
def test_the_server_of_2018_takes_pickled_jobs_and_gives_their_ids(server, rig):
    panda = rig.config.panda.model_copy(update={"url": server, "legacy_package": "taskbuffer"})
    job = PandaJob("n-1", 900_000_000, "LONG", "mass production", "A=b x", {"m": "output"}, 1, 5, 2000, 7)
    stored = HttpJobSink(panda).submit([job])
    assert (list(stored), stored["n-1"] > 0) == (["n-1"], True)


@pytest.mark.parametrize("server", ["2018"], indirect=True)
def test_jobs_of_a_server_without_v1_are_found_again_followed_and_ended(server, wired):
    wired.panda = open_sink(wired.config.panda.model_copy(update={"legacy_package": "taskbuffer"}))
    wired.pilot = OldPilot(server, wired)
    wired.pilot.fault(name="lose-next-answer", count=1, path="submitJobs")
    wired.sent_task({274495: [300, 200], 274496: [100]})
    assert SendBatch.objects.get().status == "unknown"
    wired.tick()
    assert SendBatch.objects.get().status == "settled"
    jobs = wired.pilot.take("LONG", 2)
    for job in jobs:
        wired.pilot.report(job, "running")
    wired.tick()
    assert sorted(step.status for step in wired.steps()) == ["running", "running", "sent"]
    act = look_act("exclude", wired.task(), Pick(files=("cdr11001-274496.raw",)))
    assert act.perform(as_manager("ann", wired.now)) == 1
    wired.tick()
    wired.tick()
    assert AttemptEnd.objects.values_list("status", "reason").get() == (
        "cancelled",
        "taskBufferErrorCode:100",
    )
    for job in jobs:
        wired.pilot.finish(job)
    wired.tick()
    assert set(AttemptEnd.objects.filter(status="finished").values_list("n_read", "n_written")) == {
        (300, 300),
        (200, 200),
    }
    for job in wired.pilot.take("SHORT"):
        wired.pilot.finish(job)
    for _ in range(3):
        wired.tick()
    assert Run.objects.get(number=274495).status == "checked"


@pytest.mark.parametrize("server", ["2018"], indirect=True)
def test_a_server_without_v1_gets_no_job_that_would_be_followed_over_v1(wired):
    wired.panda = open_sink(
        wired.config.panda.model_copy(update={"legacy_package": "pandaserver.taskbuffer"})
    )
    wired.sent_task({274495: [300]})
    assert not SendBatch.objects.exists()


@pytest.mark.parametrize("server", ["1.0.4"], indirect=True)
def test_a_server_without_legacy_calls_refuses_pickled_jobs(server, rig):
    panda = rig.config.panda.model_copy(update={"url": server, "legacy_package": "taskbuffer"})
    job = PandaJob("n-1", 900_000_000, "LONG", "mass production", "A=b x", {"m": "output"}, 1, 5, 2000, 7)
    assert isinstance(HttpJobSink(panda).submit([job]), Refused)
