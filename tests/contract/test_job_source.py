"""One behaviour, four ways: the model's port, v1 over HTTP, legacy over HTTP with forms and with gzipped JSON."""

from __future__ import annotations

import json
import threading
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from pilot.panda.dialect import make_job_source
from pilot.ports import Fetched, FileReport, JobSource, JobStatus, PandaId, Refused, Unavailable, Update
from simulators.panda.http import PandaHttpServer, PandaServer
from simulators.panda.jobspec import ATTRIBUTES, parse_jobs
from simulators.panda.model import PandaModel, PandaTimes
from simulators.panda.port import ModelJobSource

OUTPUTS = ("a.root", "l.job.log.tgz")


class Site:
    """A server with its model and one way to speak to it."""

    def __init__(self, source: JobSource, model: PandaModel, server: PandaServer | None, url: str) -> None:
        self.source, self.model, self.server, self.url = source, model, server, url
        self.at_s = time.monotonic()

    def later(self, seconds: float) -> None:
        """Let the server's daemons see a later time."""
        self.at_s = max(self.at_s, self.model.now_s) + seconds
        self.model.advance(self.at_s)

    def submit(self, count: int = 3, **changes: Any) -> list[int]:
        """Store jobs and let them become activated."""
        ids = [
            panda_id
            for panda_id, _, _ in self.model.submit(
                parse_jobs([positional(n, changes) for n in range(count)])
            )
        ]
        self.later(10.0)
        return ids

    def fault(self, name: str) -> None:
        """Spoil the next call."""
        body = json.dumps({"name": name, "path": "/(api|server)/"}).encode()
        urllib.request.urlopen(urllib.request.Request(f"{self.url}/sim/fault", body), timeout=10).read()


def positional(number: int, changes: dict[str, Any]) -> list[Any]:
    values: dict[str, Any] = {
        "jobName": f"j{number}",
        "computingSite": "Q",
        "prodSourceLabel": "prod_test",
        "attemptNr": 1,
        "currentPriority": 1000,
        "transformation": "mass production",
        "jobParameters": "reco",
        "jediTaskID": 900,
        "nEvents": 5,
        **changes,
    }
    files = [
        ["NULL", "NULL", "NULL", lfn, "log" if lfn.endswith("tgz") else "output", *["NULL"] * 13, None]
        for lfn in OUTPUTS
    ]
    return [*(values.get(name, "NULL") for name in ATTRIBUTES), files]


@pytest.fixture(params=["port", "v1", "legacy", "legacy-packed"])
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    model = PandaModel(PandaTimes(activate_s=0.0, adder_s=1.0))
    if request.param == "port":
        yield Site(ModelJobSource(model), model, None, "")
        return
    panda = PandaServer(model, None)
    server = PandaHttpServer(("127.0.0.1", 0), panda)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{server.server_address[1]}"
    dialect, _, packed = request.param.partition("-")
    source = make_job_source(dialect, url, timeout_s=30.0, prod_source_label="managed", packed=bool(packed))
    yield Site(source, model, panda, url)
    server.shutdown()
    server.server_close()
    thread.join()


def final(panda_id: int, lfns: tuple[str, ...] = OUTPUTS, status: JobStatus = JobStatus.FINISHED) -> Update:
    report = tuple(FileReport(lfn, "g", 5, "00000001") for lfn in lfns)
    return Update(PandaId(panda_id), 1, status, "Q", n_events=5, report=report)


def send(site: Site, *updates: Update) -> list[tuple[bool, str]]:
    acks = site.source.report(updates)
    assert isinstance(acks, tuple), acks
    return [(ack.accepted, ack.command) for ack in acks]


def test_jobs_are_handed_out_once_by_priority_then_age(site: Site) -> None:
    ids = site.submit(3)
    first = site.submit(1, currentPriority=5000)
    fetched = site.source.fetch("Q", 2)
    assert isinstance(fetched, Fetched)
    assert [job.panda_id for job in fetched.jobs] == [first[0], ids[0]]
    rest = site.source.fetch("Q", 10)
    assert isinstance(rest, Fetched)
    assert [job.panda_id for job in rest.jobs] == ids[1:]
    assert site.source.fetch("Q", 10) == Fetched(())
    job = fetched.jobs[0]
    assert (job.outputs, job.log_lfn, job.attempt_nr, job.job_pars) == (
        ("a.root",),
        "l.job.log.tgz",
        1,
        "reco",
    )


def test_an_unknown_queue_is_an_empty_one(site: Site) -> None:
    assert site.source.fetch("NONE", 5) == Fetched(())


def test_a_finished_job_with_all_files_ends_as_finished(site: Site) -> None:
    (panda_id,) = site.submit(1)
    site.source.fetch("Q", 1)
    for status in (JobStatus.STARTING, JobStatus.RUNNING):
        assert send(site, Update(PandaId(panda_id), 1, status, "Q", batch_id="7.sim")) == [(True, "")]
    assert send(site, final(panda_id)) == [(True, "")]
    site.later(5.0)
    assert site.model.jobs[panda_id].status == "finished"
    assert site.model.jobs[panda_id].attributes["nEvents"] == 5


@pytest.mark.parametrize("lfns", [(), ("a.root",), (*OUTPUTS, "extra.root")])
def test_a_report_that_is_not_exactly_the_declared_files_fails_the_job(
    site: Site, lfns: tuple[str, ...]
) -> None:
    (panda_id,) = site.submit(1)
    site.source.fetch("Q", 1)
    send(site, final(panda_id, lfns))
    site.later(5.0)
    job = site.model.jobs[panda_id]
    assert (job.status, job.attributes["ddmErrorCode"]) == ("failed", 200)


def test_a_repeated_final_report_is_accepted_before_and_after_the_archive(site: Site) -> None:
    (panda_id,) = site.submit(1)
    site.source.fetch("Q", 1)
    send(site, final(panda_id))
    assert send(site, final(panda_id)) == [(True, "alreadydone")]
    site.later(5.0)
    assert send(site, final(panda_id)) == [(True, "tobekilled")]


def test_unknown_jobs_and_wrong_attempts_are_told_to_end_not_refused(site: Site) -> None:
    (panda_id,) = site.submit(1)
    site.source.fetch("Q", 1)
    wrong = Update(PandaId(panda_id), 2, JobStatus.RUNNING, "Q")
    unknown = Update(PandaId(999999), 1, JobStatus.RUNNING, "Q")
    assert send(site, wrong, unknown) == [(True, "tobekilled")] * 2
    assert site.model.jobs[panda_id].status == "sent"


def test_a_sent_job_is_given_up_after_30_minutes_and_a_running_one_after_2_hours(site: Site) -> None:
    ids = site.submit(2)
    site.source.fetch("Q", 2)
    send(site, Update(PandaId(ids[0]), 1, JobStatus.RUNNING, "Q"))
    site.later(1801.0)
    assert site.model.jobs[ids[1]].attributes["jobDispatcherErrorCode"] == 102
    assert site.model.jobs[ids[0]].status == "running"
    site.later(7200.0)
    assert site.model.jobs[ids[0]].attributes["jobDispatcherErrorCode"] == 100


def test_an_order_to_end_reaches_a_running_job_at_its_next_report(site: Site) -> None:
    (panda_id,) = site.submit(1)
    site.source.fetch("Q", 1)
    running = Update(PandaId(panda_id), 1, JobStatus.RUNNING, "Q")
    send(site, running)
    site.model.order_end(panda_id)
    assert send(site, running) == [(True, "tobekilled")]
    statuses = site.source.status([PandaId(panda_id), PandaId(999999)])
    assert isinstance(statuses, tuple)
    assert [(item.status, item.command) for item in statuses] == [
        ("running", "tobekilled"),
        ("unknown", "tobekilled"),
    ]
    send(site, final(panda_id, (), JobStatus.FAILED))
    site.later(5.0)
    assert site.model.jobs[panda_id].status == "cancelled"


@pytest.mark.parametrize("fault", ["lose-next-answer", "500", "html"])
def test_a_spoiled_answer_tells_nothing(site: Site, fault: str) -> None:
    if site.server is None:
        site.submit(1)
        assert isinstance(site.source.fetch("Q", 1), Fetched)
        return
    site.submit(1)
    site.fault(fault)
    assert isinstance(site.source.fetch("Q", 1), Unavailable)
    lost = fault == "lose-next-answer"
    again = site.source.fetch("Q", 1)
    assert isinstance(again, Fetched)
    assert len(again.jobs) == (0 if lost else 1)


def test_nobody_there_is_unavailable() -> None:
    for dialect in ("v1", "legacy"):
        source = make_job_source(dialect, "http://127.0.0.1:9", timeout_s=11.0, prod_source_label="managed")
        assert isinstance(source.fetch("Q", 1), Unavailable)
        assert not isinstance(source.queue_depth("Q"), int | Refused)
