"""Rules of PanDA's wire that a pilot can break without seeing it at once, three ways each (see test_job_source.py)."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from pilot.panda.dialect import make_job_source
from pilot.ports import Fetched, FileReport, JobSource, JobStatus, PandaId, Refused, Update
from simulators.panda.flavour import FLAVOURS
from simulators.panda.http import PandaHttpServer
from simulators.panda.jobspec import ATTRIBUTES, parse_jobs
from simulators.panda.model import PandaModel
from simulators.panda.port import ModelJobSource
from simulators.panda.rules import PandaTimes
from simulators.panda.service import PandaServer
from simulators.panda.settings import Settings

WAYS = ("port", "v1", "legacy")


@dataclass
class Open:
    """Servers to stop."""

    servers: list[PandaHttpServer] = field(default_factory=list)

    def source(self, way: str, model: PandaModel, settings: Settings | None = None) -> JobSource:
        """One way to speak to this model."""
        if way == "port":
            return ModelJobSource(model)
        server = PandaHttpServer(("127.0.0.1", 0), PandaServer(model, None, settings or Settings()))
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        self.servers.append(server)
        url = f"http://127.0.0.1:{server.server_address[1]}"
        return make_job_source(way, url, timeout_s=30.0, prod_source_label="managed")


@pytest.fixture
def opened() -> Iterator[Open]:
    found = Open()
    yield found
    for server in found.servers:
        server.shutdown()
        server.server_close()


def positional(**changes: Any) -> list[Any]:
    values: dict[str, Any] = {
        "jobName": "j",
        "computingSite": "Q",
        "prodSourceLabel": "prod_test",
        "attemptNr": 1,
        "currentPriority": 1000,
        "transformation": "mass production",
        "jobParameters": "reco",
        "nEvents": 77,
        **changes,
    }
    files = [["NULL", "NULL", "NULL", "l.tgz", "log", *["NULL"] * 13, None]]
    return [*(values.get(name, "NULL") for name in ATTRIBUTES), files]


def taken(opened: Open, way: str, flavour: str = "both", **changes: Any) -> tuple[PandaModel, JobSource, int]:
    """A model with one job that a pilot has, and the way to it."""
    model = PandaModel(PandaTimes(activate_s=0.0, adder_s=0.0), FLAVOURS[flavour])
    source = opened.source(way, model)
    ((panda_id, _, _),) = model.submit(parse_jobs([positional(**changes)]))
    model.advance(model.now_s)
    fetched = source.fetch("Q", 1)
    assert isinstance(fetched, Fetched)
    assert [job.panda_id for job in fetched.jobs] == [panda_id]
    return model, source, panda_id


def send(source: JobSource, *updates: Update) -> list[tuple[bool, str]]:
    acks = source.report(updates)
    assert isinstance(acks, tuple), acks
    return [(ack.accepted, ack.command) for ack in acks]


@pytest.mark.parametrize("way", WAYS)
def test_another_batch_job_of_the_same_attempt_is_no_impostor(opened: Open, way: str) -> None:
    _, source, panda_id = taken(opened, way)
    for batch_id in ("8400001.bw", "8400117.bw", "8400117[3].bw"):
        running = Update(PandaId(panda_id), 1, JobStatus.RUNNING, "Q", batch_id=batch_id)
        assert send(source, running) == [(True, "")]


@pytest.mark.parametrize("way", WAYS)
def test_an_update_that_the_database_lost_is_not_accepted(opened: Open, way: str) -> None:
    model, source, panda_id = taken(opened, way)
    good = Update(PandaId(panda_id), 1, JobStatus.RUNNING, "Q")
    lost = Update(PandaId(panda_id), 1, JobStatus.RUNNING, "Q", cpu_s=10**12)
    assert [accepted for accepted, _ in send(source, lost, good)] == [False, True]
    assert "cpuConsumptionTime" not in model.jobs[panda_id].attributes


@pytest.mark.parametrize("way", WAYS)
def test_heartbeats_leave_the_submitters_events_alone(opened: Open, way: str) -> None:
    model, source, panda_id = taken(opened, way)
    send(source, Update(PandaId(panda_id), 1, JobStatus.RUNNING, "Q", n_events=3))
    assert model.jobs[panda_id].attributes["nEvents"] == 77
    report = (FileReport("l.tgz", "g", 1, "00000001"),)
    send(source, Update(PandaId(panda_id), 1, JobStatus.FINISHED, "Q", n_events=76, report=report))
    assert model.jobs[panda_id].attributes["nEvents"] == 76


@pytest.mark.parametrize("way", WAYS)
def test_a_job_that_cannot_be_read_leaves_its_neighbours_usable(opened: Open, way: str) -> None:
    model = PandaModel(PandaTimes(activate_s=0.0))
    source = opened.source(way, model)
    jobs = [positional(), positional(transformation="NULL"), positional()]
    ids = [item[0] for item in model.submit(parse_jobs(jobs))]
    model.advance(model.now_s)
    fetched = source.fetch("Q", 9)
    assert isinstance(fetched, Fetched)
    assert [job.panda_id for job in fetched.jobs] == [ids[0], ids[2]]
    assert [(item.panda_id, item.attempt_nr) for item in fetched.malformed] == [(ids[1], 1)]


@pytest.mark.parametrize("way", WAYS)
def test_job_parameters_come_through_untouched(opened: Open, way: str) -> None:
    text = "A='x y' B=\"$HOME\";rm -rf / &%+=\u00e9 \x07\n--end"
    model = PandaModel(PandaTimes(activate_s=0.0))
    source = opened.source(way, model)
    model.submit(parse_jobs([positional(jobParameters=text)]))
    model.advance(model.now_s)
    fetched = source.fetch("Q", 1)
    assert isinstance(fetched, Fetched)
    assert fetched.jobs[0].job_pars == text


@pytest.mark.parametrize("way", ["v1", "legacy"])
def test_without_a_role_nothing_is_fetched_and_nothing_accepted(opened: Open, way: str) -> None:
    model = PandaModel(PandaTimes(activate_s=0.0))
    source = opened.source(way, model, Settings(require_role=True))
    ((panda_id, _, _),) = model.submit(parse_jobs([positional()]))
    model.advance(model.now_s)
    assert isinstance(source.fetch("Q", 1), Refused)
    answer = source.report([Update(PandaId(panda_id), 1, JobStatus.RUNNING, "Q")])
    assert isinstance(answer, Refused) or not any(ack.accepted for ack in answer)  # type: ignore[union-attr]
    assert model.jobs[panda_id].status == "activated"


@pytest.mark.parametrize(("way", "chunk"), [("v1", 400), ("legacy", 100)])
def test_a_full_chunk_of_final_reports_ends_in_the_same_table(opened: Open, way: str, chunk: int) -> None:
    model = PandaModel(PandaTimes(activate_s=0.0, adder_s=0.0))
    source = opened.source(way, model)
    model.submit(parse_jobs([positional(jobName=f"j{n}") for n in range(chunk)]))
    model.advance(model.now_s)
    fetched = source.fetch("Q", chunk)
    assert isinstance(fetched, Fetched)
    report = (FileReport("l.tgz", "g", 1, "00000001"),)
    updates = [
        Update(job.panda_id, 1, JobStatus.FINISHED, "Q", n_events=1, report=report) for job in fetched.jobs
    ]
    assert send(source, *updates) == [(True, "")] * chunk
    model.advance(model.now_s + 1.0)
    assert {job.status for job in model.jobs.values()} == {"finished"}
    assert json.loads(str(model.jobs[int(updates[0].panda_id)].report)) == {
        "l.tgz": {"guid": "g", "fsize": 1, "adler32": "00000001"}
    }
    statuses = source.status([update.panda_id for update in updates])
    assert isinstance(statuses, tuple)
    assert {item.status for item in statuses} == {"finished"}
