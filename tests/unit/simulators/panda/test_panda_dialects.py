"""What the dialects do with arguments that no captured pair shows, and the server's own settings and faults."""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from serverkit import Rig, positional, report

from simulators.panda.dispatch import HttpReply, HttpRequest, respond
from simulators.panda.service import BadFault, PandaServer, fetched_queue, parse_fault
from simulators.panda.settings import BadSettings, Settings, parse_settings

FORM = {"content-type": "application/x-www-form-urlencoded"}
JSON = {"content-type": "application/json"}


def legacy(rig: Rig, method: str, json_wanted: bool = False, **form: Any) -> HttpReply:
    headers = {**FORM, "accept": "application/json"} if json_wanted else FORM
    body = urlencode(form).encode()
    return respond(rig.model, Settings(), HttpRequest("POST", f"/server/panda/{method}", "", headers, body))


def v1(rig: Rig, call: str, **arguments: Any) -> Any:
    body = json.dumps(arguments).encode()
    return json.loads(
        respond(rig.model, Settings(), HttpRequest("POST", f"/api/v1/{call}", "", JSON, body)).text
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [("nEvents", "abc"), ("nEvents", ""), ("cpuConsumptionTime", "abc"), ("nEvents", "99999999999999")],
)
def test_a_bad_number_loses_the_whole_legacy_update(name: str, value: str) -> None:
    rig = Rig()
    panda_id = rig.sent()
    answer = legacy(rig, "updateJob", jobId=panda_id, state="running", attemptNr=1, **{name: value})
    assert answer.text == "StatusCode=30"
    assert rig.status(panda_id) == "sent"


@pytest.mark.parametrize("name", ["transExitCode", "pilotErrorCode", "startTime", "endTime"])
def test_other_bad_values_are_dropped_and_the_update_counts(name: str) -> None:
    rig = Rig()
    panda_id = rig.sent()
    before = rig.model.jobs[panda_id].attributes.get(name)
    answer = legacy(rig, "updateJob", jobId=panda_id, state="starting", attemptNr=1, **{name: "abc"})
    assert answer.text == "StatusCode=0&command=NULL"
    assert rig.model.jobs[panda_id].attributes.get(name) == before


def test_success_is_true_where_the_database_failed() -> None:
    rig = Rig()
    panda_id = rig.sent()
    answer = v1(rig, "pilot/update_job", job_id=panda_id, job_status="running", attempt_nr=1, n_events=10**12)
    assert answer == {"success": True, "message": "Database error", "data": {"StatusCode": 30}}
    assert rig.status(panda_id) == "sent"


def test_texts_are_cut_and_negative_codes_stored_positive() -> None:
    rig = Rig()
    panda_id = rig.sent()
    long = {"node": "n" * 300, "pilotID": "p" * 300, "jobMetrics": "m" * 900, "jobSubStatus": "s" * 99}
    legacy(rig, "updateJob", jobId=panda_id, state="running", attemptNr=1, pilotErrorCode="-1201", **long)
    kept = rig.model.jobs[panda_id].attributes
    names = ("modificationHost", "pilotID", "jobMetrics", "jobSubStatus")
    assert [len(kept[name]) for name in names] == [128, 200, 500, 80]
    assert kept["pilotErrorCode"] == 1201


def test_an_update_without_optional_arguments_may_say_null() -> None:
    rig = Rig()
    panda_id = rig.sent()
    answer = v1(rig, "pilot/update_job", job_id=panda_id, job_status="running", attempt_nr=1, node=None)
    assert answer["data"] == {"StatusCode": 0, "command": "NULL"}


def test_a_truth_value_is_no_integer() -> None:
    answer = v1(Rig(), "pilot/update_job", job_id=True, job_status="running")
    assert answer["message"] == "Type error: 'job_id' must be of type int, got bool."


def test_one_legacy_job_with_other_encoding_holds_the_same() -> None:
    rig = Rig()
    rig.submit(positional(0), positional(1))
    flat = {name: values[0] for name, values in parse_qs(legacy(rig, "getJob", siteName="Q").text).items()}
    (bulk,) = json.loads(legacy(rig, "getJob", True, siteName="Q", nJobs=1).text)["jobs"]
    assert flat["outFiles"] == bulk["outFiles"] == "a.root,b.root,l.job.log.tgz"
    assert flat["logFile"] == "l.job.log.tgz"
    assert "nEvents" not in bulk


def test_a_stopped_bulk_update_has_applied_what_stood_before() -> None:
    rig = Rig()
    ids = [rig.sent(), rig.sent(), rig.sent()]
    items: list[dict[str, Any]] = [{"jobId": n, "state": "running", "attemptNr": 1} for n in ids]
    del items[1]["state"]
    answer = json.loads(legacy(rig, "updateJobsInBulk", jobList=json.dumps(items)).text)
    assert answer == [False, "updateJobsInBulk None failed with KeyError 'state'"]
    assert [rig.status(n) for n in ids] == ["running", "sent", "sent"]


@pytest.mark.parametrize(
    "body", [b"", b"{}", gzip.compress(b"[1]", mtime=0), gzip.compress(b"{}", mtime=0)[:12]]
)
def test_a_json_body_that_is_no_gzipped_object_is_an_error_of_the_legacy_path(body: bytes) -> None:
    request = HttpRequest("POST", "/server/panda/getJob", "", JSON, body)
    assert respond(Rig().model, Settings(), request).status == 500


@pytest.mark.parametrize("text", ["[[1]]", "[5]", '[["NULL", [["NULL"]]]]', '{"a": 1}', "[" * 3000])
def test_what_is_no_job_list_is_refused_and_nothing_is_stored(text: str) -> None:
    rig = Rig()
    answer = v1(rig, "job/submit", jobs=text)
    assert answer["success"] is False
    assert rig.model.jobs == {}


def test_counts_by_site_are_of_active_jobs() -> None:
    rig = Rig()
    ids = [rig.sent(), rig.sent()]
    rig.submit(positional(0, computingSite="R"))
    rig.finish(ids[0], report())
    request = HttpRequest(
        "GET", "/api/v1/statistics/active_job_stats_by_site", "", {"accept": JSON["content-type"]}, b""
    )
    assert json.loads(respond(rig.model, Settings(), request).text)["data"] == {
        "Q": {"sent": 1},
        "R": {"activated": 1},
    }


@pytest.mark.parametrize(
    ("flavour", "refused"), [("1.0.4", "/server/panda/isAlive"), ("2018", "/api/v1/system/is_alive")]
)
def test_a_flavour_has_only_its_own_dialects(flavour: str, refused: str) -> None:
    request = HttpRequest("GET", refused, "", {}, b"")
    assert respond(Rig(flavour).model, Settings(), request).status == 403


BAD_SETTINGS = {
    "no object": ([], "found list"),
    "unknown": ({"adder": 1}, "adder: unknown"),
    "negative": ({"adder_s": -1}, "adder_s: found -1"),
    "truth value": ({"adder_s": True}, "adder_s: found True"),
    "flavour": ({"flavour": "3"}, "flavour: found '3', expected one of both"),
    "queue": ({"queues": {"Q": "off"}}, "queues: found"),
    "role": ({"require_role": "yes"}, "require_role: found 'yes'"),
    "owners": ({"pilot_owners": "x"}, "pilot_owners: found 'x'"),
}


@pytest.mark.parametrize(("value", "text"), BAD_SETTINGS.values(), ids=BAD_SETTINGS.keys())
def test_a_bad_setting_is_named_with_what_was_found_and_expected(value: Any, text: str) -> None:
    with pytest.raises(BadSettings, match=text.replace("[", r"\[")):
        parse_settings(value)


@pytest.mark.parametrize(
    "value", [None, [], {"name": "x"}, {"name": "slow", "count": 0}, {"name": "500", "path": "("}]
)
def test_a_bad_fault_is_refused(value: Any) -> None:
    with pytest.raises(BadFault):
        parse_fault(value)


def test_a_fault_spoils_as_many_calls_of_its_path_as_were_asked_for() -> None:
    server = PandaServer(Rig().model)
    server.faults.append(parse_fault({"name": "500", "count": 2, "path": "get"}))
    found = [server.fault_for(path) for path in ("/api/v1/set", "/get1", "/sim/get", "/get2", "/get3")]
    assert [fault is not None for fault in found] == [False, True, False, True, False]


def test_what_a_pilot_is_told_of_a_queue_is_a_setting() -> None:
    settings = parse_settings({"queuedata": {"Q": {"localqueue": "normal", "maxmemory": 1900}}})
    asked = [f"/cache/schedconfig/{name}" for name in ("Q.all.json", "R.all.json", "Q", "..%2fQ.all.json")]
    replies = [respond(Rig().model, settings, HttpRequest("GET", path, "", {}, b"")) for path in asked]
    assert [reply.status for reply in replies] == [200, 404, 404, 404]
    assert json.loads(replies[0].text)["localqueue"] == "normal"
    with pytest.raises(BadSettings):
        parse_settings({"queuedata": {"Q": 1}})


@pytest.mark.parametrize(
    ("path", "body", "queue"),
    [
        ("/api/v1/pilot/acquire_jobs", b'{"site_name": "Q", "n_jobs": 5}', "Q"),
        ("/server/panda/getJob", b"nJobs=5&siteName=Q&node=n", "Q"),
        ("/server/panda/getJob", b"\x1f\x8b no text", ""),
        ("/api/v1/pilot/update_job", b'{"site_name": "Q"}', None),
    ],
)
def test_fetches_of_one_queue_are_rivals(path: str, body: bytes, queue: str | None) -> None:
    assert fetched_queue(HttpRequest("POST", path, "", {}, body)) == queue
