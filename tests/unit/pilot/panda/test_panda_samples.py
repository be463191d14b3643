"""What real servers answered, parsed as they meant it."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from samples import DIRECTORY, load

from pilot.panda import legacy, v1
from pilot.panda.transport import read_answer
from pilot.panda.wire import parse_job, shared_fields
from pilot.ports import (
    Ack,
    Broken,
    Fetched,
    FileReport,
    Job,
    JobStatus,
    MalformedJob,
    PandaId,
    Refused,
    Unavailable,
    Update,
)


def answer(name: str) -> object:
    sample = load(name)
    return read_answer(sample.path, sample.status, sample.body)


def text(name: str) -> str:
    found = answer(name)
    assert isinstance(found, str), found
    return found


def update(panda_id: int, status: JobStatus = JobStatus.RUNNING) -> Update:
    return Update(PandaId(panda_id), 1, status, "Q")


def test_samples_are_whole() -> None:
    sums = dict(reversed(line.split()) for line in (DIRECTORY.parent / "SHA256SUMS").read_text().splitlines())
    assert len(sums) > 170
    for name, expected in sums.items():
        assert hashlib.sha256((DIRECTORY.parent / name).read_bytes()).hexdigest() == expected


LEGACY_FETCH = {
    "L02": 1,
    "L03": 1,
    "L06": 5,
    "L07": 5,
    "L08": 1,
    "L11": 1,
    "L21": 1,
    "L22": 1,
    "L29": 1,
    "L32": 1,
    "L33": 14,
}
LEGACY_NONE = ["L09", "L10", "L12", "L16", "L17", "L18", "L19", "L20", "L23"]


@pytest.mark.parametrize(("name", "count"), LEGACY_FETCH.items())
def test_legacy_jobs_come_whole_in_both_encodings(name: str, count: int) -> None:
    found = legacy.parse_fetch(text(name), "Q")
    assert isinstance(found, Fetched)
    assert not found.malformed
    assert len(found.jobs) in (count, count * 5)
    for job in found.jobs:
        assert job.attempt_nr >= 0
        assert job.log_lfn is not None
        assert job.log_lfn.endswith(".job.log.tgz")
        assert job.log_lfn not in job.outputs
        assert "NULL" not in (job.job_name, job.transformation, job.job_pars)


@pytest.mark.parametrize("name", ["L04", "L05"])
def test_the_flat_form_is_one_job(name: str) -> None:
    found = legacy.parse_fetch(text(name), "Q")
    assert isinstance(found, Fetched)
    assert len(found.jobs) == 1


@pytest.mark.parametrize("name", LEGACY_NONE)
def test_no_jobs_is_an_empty_answer_not_a_failure(name: str) -> None:
    assert legacy.parse_fetch(text(name), "Q") == Fetched(())


@pytest.mark.parametrize("name", ["L24", "L25", "L26"])
def test_a_missing_role_is_a_definite_no(name: str) -> None:
    assert isinstance(legacy.parse_fetch(text(name), "Q"), Refused)


@pytest.mark.parametrize("name", ["L27", "L28", "L30"])
def test_403_is_a_definite_no(name: str) -> None:
    assert isinstance(answer(name), Refused)


@pytest.mark.parametrize("name", ["L13", "L14", "L15", "L31"])
def test_500_tells_nothing(name: str) -> None:
    assert isinstance(answer(name), Unavailable)


@pytest.mark.parametrize(("name", "ids"), [("L80", (49, 50, 51)), ("L81", (49, 50))])
def test_legacy_bulk_results_are_decoded_twice(name: str, ids: tuple[int, ...]) -> None:
    updates = [update(n) for n in ids]
    assert legacy.parse_bulk(text(name), updates) == tuple(Ack(PandaId(n), 1, True) for n in ids)


@pytest.mark.parametrize("name", ["L83", "L85", "L86"])
def test_a_bulk_update_that_stopped_tells_nothing_of_any_item(name: str) -> None:
    assert isinstance(legacy.parse_bulk(text(name), [update(1), update(2)]), Unavailable)


def test_bulk_without_role_is_not_accepted() -> None:
    found = legacy.parse_bulk(text("L88"), [update(1)])
    assert isinstance(found, Refused) or not found[0].accepted  # type: ignore[index]


@pytest.mark.parametrize(
    ("name", "command"), [("L48", "alreadydone"), ("L51", "tobekilled"), ("L52", "tobekilled")]
)
def test_a_repeated_final_report_is_with_the_server(name: str, command: str) -> None:
    ack = legacy.parse_item(update(1, JobStatus.FINISHED), text(name))
    assert (ack.accepted, ack.command) == (True, command)


@pytest.mark.parametrize("name", ["L55", "L56"])
def test_an_answer_without_command_did_nothing(name: str) -> None:
    assert not legacy.parse_item(update(1), text(name)).accepted


def test_unknown_status_is_told_as_unknown() -> None:
    found = legacy.parse_check(text("L93"), [PandaId(1)])
    assert isinstance(found, Broken) or any(item.status == "unknown" for item in found)  # type: ignore[union-attr]


@pytest.mark.parametrize(("name", "count"), [("N10", 1), ("N11", 1), ("N12", 5), ("N14", 1)])
def test_v1_jobs_come_whole(name: str, count: int) -> None:
    found = v1.parse_fetch(text(name), "Q")
    assert isinstance(found, Fetched)
    assert (len(found.jobs), found.malformed) == (count, ())


def test_v1_without_jobs_is_empty() -> None:
    assert v1.parse_fetch(text("N15"), "Q") == Fetched(())


def test_a_python_repr_is_broken_not_empty() -> None:
    assert isinstance(v1.parse_fetch(text("N13"), "Q"), Broken | Fetched)


def test_v1_bulk_results_are_per_item() -> None:
    found = v1.parse_bulk(text("N81"), [update(n) for n in (81, 999999, 82, 83, 83)])
    assert isinstance(found, tuple)
    assert [ack.accepted for ack in found] == [True, True, False, False, False]
    assert found[1].command == "tobekilled"


@pytest.mark.parametrize("name", ["N82"])
def test_v1_bulk_that_stopped_accepts_nothing(name: str) -> None:
    found = v1.parse_bulk(text(name), [update(1), update(2)])
    assert isinstance(found, Refused | Unavailable)


def test_success_true_alone_proves_nothing() -> None:
    item = {"success": True, "message": "Database error", "data": {"StatusCode": 30, "command": None}}
    assert not v1.parse_item(update(1), item).accepted


def test_html_in_a_200_answer_is_no_answer() -> None:
    assert isinstance(read_answer("/x", 200, b"<html><body>proxy</body></html>"), Unavailable)


def full_update(status: JobStatus) -> Update:
    at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    return Update(
        PandaId(7),
        3,
        status,
        "Q",
        batch_id="8400001.bw",
        node="n" * 200,
        start_time=at,
        end_time=at,
        pilot_error_diag="d" * 900,
        n_events=12,
        report=(FileReport("a.root", "g", 5, "00000001"),),
    )


def test_attempt_nr_stands_in_every_update() -> None:
    for status in JobStatus:
        assert legacy.render_update(full_update(status))["attemptNr"] == 3
        assert v1.render_update(full_update(status))["attempt_nr"] == 3


def test_batch_id_is_a_number_and_comes_with_running() -> None:
    assert "batchID" not in legacy.render_update(full_update(JobStatus.STARTING))
    assert legacy.render_update(full_update(JobStatus.RUNNING))["batchID"] == "8400001"


def test_events_are_told_only_at_the_end_and_never_empty() -> None:
    assert "nEvents" not in legacy.render_update(full_update(JobStatus.RUNNING))
    assert legacy.render_update(full_update(JobStatus.FINISHED))["nEvents"] == 12
    assert "nEvents" not in legacy.render_update(Update(PandaId(1), 1, JobStatus.FAILED, "Q"))


def test_the_report_names_every_file_as_json() -> None:
    fields = legacy.render_update(full_update(JobStatus.FINISHED))
    assert '"a.root": {"adler32": "00000001", "fsize": 5, "guid": "g"}' in fields["xml"]
    assert fields["startTime"] == "2026-01-02 03:04:05"
    assert len(fields["node"]) == 128
    assert len(fields["pilotErrorDiag"]) == 250


def test_v1_types_are_exact() -> None:
    fields = v1.render_update(full_update(JobStatus.FINISHED))
    assert type(fields["job_id"]) is int
    assert type(fields["n_events"]) is int
    assert "xml" not in fields
    assert set(shared_fields(full_update(JobStatus.STARTING))) == {"attempt_nr", "site", "node", "start"}


@pytest.mark.parametrize(
    "item",
    [
        None,
        [],
        {"PandaID": "x"},
        {"PandaID": 5},
        {"PandaID": 5, "attemptNr": 1},
        {"PandaID": True, "attemptNr": 1},
    ],
)
def test_an_item_that_is_no_job_is_set_aside(item: object) -> None:
    assert isinstance(parse_job(item, "Q"), MalformedJob)


def test_null_text_is_absent() -> None:
    item = {
        "PandaID": 5,
        "attemptNr": 1,
        "transformation": "t",
        "jobPars": "p",
        "outFiles": "a,l",
        "logFile": "NULL",
    }
    job = parse_job(item, "Q")
    assert isinstance(job, Job)
    assert job.log_lfn is None


def test_a_diag_has_no_control_characters() -> None:
    found = legacy.render_update(replace(full_update(JobStatus.FAILED), pilot_error_diag="a\x00b\nc"))
    assert found["pilotErrorDiag"].isprintable()


def test_a_failed_job_without_files_sends_no_report() -> None:
    assert "xml" not in legacy.render_update(Update(PandaId(1), 1, JobStatus.FAILED, "Q"))


def test_nested_nonsense_is_broken_not_an_exception() -> None:
    assert isinstance(v1.parse_fetch("[" * 100_000, "Q"), Broken)
    assert isinstance(legacy.parse_fetch("{" * 100_000, "Q"), Broken)
