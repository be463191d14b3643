"""PanDA's texts, as captured from real servers."""

import json
from pathlib import Path

import pytest

from prodsys_core.ports import Broken, PandaJob, Refused, Unavailable
from prodsys_core.wire import (
    JOB_SPEC,
    parse_descriptions,
    parse_envelope,
    parse_ids,
    parse_statuses,
    parse_submitted,
    positional,
)

DATA = Path(__file__).parents[2] / "data/panda"


def captured(name):
    """Body of a captured answer."""
    return (DATA / f"{name}.txt").read_text().split("<<< RESPONSE")[1].split("\n\n", 1)[1]


JOB = PandaJob("n-1", 900, "Q", "mass production", "A=b x", {"m": "output", "l": "log"}, 2, 5, 2000, 7)


def test_positions_are_those_of_the_server():
    job = positional(JOB)
    assert len(JOB_SPEC.job) == 126
    assert (job[16], job[19], job[47], job[49], job[62], job[89]) == (2, "n-1", "Q", "A=b x", 7, 900)
    assert (job[9], job[12], job[15], job[55]) == ("mass production", "prod_test", 2000, "NULL")
    assert [(file[3], file[4]) for file in job[126]] == [("m", "output"), ("l", "log")]
    assert {len(file) for file in job[126]} == {len(JOB_SPEC.file) + 1}


def test_same_shape_as_a_captured_submission():
    sample = json.loads(json.loads((DATA / "v1_job_submit.json").read_text())["request"]["body"]["jobs"])[0]
    job = positional(JOB)
    assert len(job) == len(sample)
    assert len(job[-1][0]) == len(sample[-1][0])


def test_captured_record_is_read():
    data = parse_envelope(200, captured("N90_job_get_description"))
    records = parse_descriptions(data)
    record = records[85]
    assert list(records) == [85]
    assert (record.job_name, record.attempt_nr, record.status, record.n_events) == (
        "compass.dvcs2016P09t2.000009",
        1,
        "sent",
        20000,
    )
    assert record.files[0].adler32 == "0cc737eb"
    assert {file.kind for file in record.files} == {"input", "output", "log"}


def test_codes_and_words_of_a_failed_job_are_read():
    record = parse_descriptions(parse_envelope(200, captured("L71_description_finished_no_xml")))[47]
    assert record.codes == {"ddmErrorCode": 200}
    assert record.diags == {"ddmErrorDiag": "Could not get GUID/LFN/MD5/FSIZE/SURL from pilot JSON"}


@pytest.mark.parametrize("name", ["N92_job_submit_empty", "N30_acquire_no_cert"])
def test_definite_no_is_refused(name):
    assert isinstance(parse_envelope(200, captured(name)), Refused)


@pytest.mark.parametrize(
    ("status", "text", "kind"),
    [
        (200, "<html>gateway</html>", Broken),
        (200, "{'success': True, 'message': '', 'data': None}", Broken),
        (200, '{"success": "yes", "message": ""}', Unavailable),
        (200, '{"success": false, "message": "Failed to submit jobs", "data": null}', Unavailable),
        (200, '{"success": false, "message": "ERROR: ServerError with storeJobs"}', Unavailable),
        (200, "[]", Broken),
        (500, "Traceback", Unavailable),
        (403, "ERROR : method x is forbidden", Refused),
        (503, "", Unavailable),
    ],
)
def test_other_answers(status, text, kind):
    assert isinstance(parse_envelope(status, text), kind)


def test_job_that_was_not_stored_has_no_id():
    answer = parse_submitted([[5, 0, "a"], [None, 0, "b"], ["NULL", 0, "c"]])
    assert answer == {"a": 5, "b": None, "c": None}


@pytest.mark.parametrize("data", [None, {}, [[1]], [["x", 0, "n"]], "text", [[True, 0, "n"]]])
def test_odd_submission_answers_are_broken(data):
    assert isinstance(parse_submitted(data), Broken)


@pytest.mark.parametrize("data", [None, False, {"ids": []}, [1.5], ["x"]])
def test_odd_id_lists_are_broken(data):
    assert isinstance(parse_ids(data), Broken)


def test_status_answer_must_have_one_item_per_id():
    assert parse_statuses([1, 2], [{"status": "running", "command": None}, {"status": "unknown"}]) == {
        1: "running",
        2: "unknown",
    }
    assert isinstance(parse_statuses([1, 2], [{"status": "running"}]), Broken)


def test_odd_records_are_unknown_and_harm_no_neighbour():
    good = {
        "PandaID": 1,
        "jobName": "n",
        "attemptNr": 1,
        "jobStatus": "running",
        "nEvents": None,
        "Files": [],
    }
    records = parse_descriptions([None, {"PandaID": "x"}, 7, {**good, "PandaID": 2, "Files": [{}]}, good])
    assert list(records) == [1]


def test_control_characters_of_a_server_are_escaped():
    failure = parse_envelope(500, "a\x1b[31m\nb")
    assert "\x1b" not in failure.reason
    assert "\n" not in failure.reason


def record(**changes):
    return {"PandaID": 1, "jobName": "n", "attemptNr": 1, "jobStatus": "finished", "Files": []} | changes


@pytest.mark.parametrize("count", ["abc", "", -1, 2**63, "9" * 30, True, 1.5, [], None, "NULL"])
def test_a_count_that_cannot_be_one_is_not_known(count):
    (seen,) = parse_descriptions([record(nEvents=count, Files=[{"lfn": "a", "fsize": count}])]).values()
    assert (seen.n_events, seen.files[0].size) == (None, 0)


def test_an_id_that_cannot_be_stored_is_no_job():
    assert parse_descriptions([record(PandaID=2**63)]) == {}
    assert isinstance(parse_ids([1, 2**63]), Broken)


@pytest.mark.parametrize("item", [None, "finished", [], {}])
def test_of_an_item_without_a_status_nothing_is_known_and_of_its_neighbours_all(item):
    assert parse_statuses([1, 2], [{"status": "running"}, item]) == {1: "running", 2: "unknown"}


def test_half_characters_of_an_answer_reach_no_column():
    (seen,) = parse_descriptions([record(pilotErrorDiag="\ud800", modificationHost="n\ud800")]).values()
    assert (seen.diags["pilotErrorDiag"], seen.node) == ("\\ud800", "n\\ud800")


def test_an_answer_that_is_nested_too_deeply_is_broken():
    assert isinstance(parse_envelope(200, "[" * 200_000), Broken)
