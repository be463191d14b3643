"""Pickles of old submitters: what is read, and what never is."""

from __future__ import annotations

import json
import os
import pickle
import sys
from datetime import datetime
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from serverkit import Rig, positional
from test_panda_dialects import legacy

from simulators.panda.flavour import FLAVOURS
from simulators.panda.jobspec import ATTRIBUTES
from simulators.panda.pickles import BadPickle, parse_pickle, render_pickle


class FileSpec:
    def __init__(self, state):
        self.state = state

    def __getstate__(self):
        return self.state

    def __setstate__(self, state):
        self.state = state


class JobSpec(FileSpec):
    pass


class Evil:
    def __reduce__(self):
        return (os.system, ("touch /nonexistent/evil",))


def as_client(jobs: list[list]) -> str:
    """Pickled as panda-client does: records with their files, each of which knows its job."""
    records = []
    for state in jobs:
        record = JobSpec(list(state[:-1]))
        record.state.append([FileSpec([*file[:-1], record]) for file in state[-1]])
        records.append(record)
    return pickle.dumps(records, protocol=0).decode("latin-1")


def test_pickled_jobs_are_stored_as_json_ones_and_answered_by_a_pickle() -> None:
    rig = Rig()
    answer = legacy(rig, "submitJobs", jobs=as_client([positional(1), positional(2)]))
    (first, _, name), (second, _, _) = pickle.loads(answer.text.encode())
    assert (second, name) == (first + 1, "j1")
    stored = rig.model.jobs[first]
    assert (stored.attributes["nEvents"], [entry["lfn"] for entry in stored.files][2]) == (5, "l.job.log.tgz")
    answer = legacy(rig, "submitJobs", json_wanted=True, jobs=json.dumps([positional(3)]))
    assert json.loads(answer.text)[0][0] == second + 1


@pytest.mark.parametrize(
    "value",
    [Evil(), [Evil()], os.system, object(), {"a": 1}, [b"x"], FileSpec(3)],
    ids=lambda value: type(value).__name__,
)
def test_nothing_but_records_and_plain_values_is_read(value) -> None:
    with pytest.raises(BadPickle):
        parse_pickle(pickle.dumps(value, protocol=0).decode("latin-1"))


@pytest.mark.parametrize(
    "text", ["", ".", "(lp0\n", "[44]", "cos\nsystem\n(S'true'\ntR.", "\x80\x05.", "((((("]
)
def test_a_broken_text_is_no_pickle(text: str) -> None:
    with pytest.raises(BadPickle):
        parse_pickle(text)


def test_plain_values_come_back() -> None:
    now = datetime(2026, 7, 1, 8, 0, 0, 5)
    text = pickle.dumps([1, None, "ü", 1.5, (2, True), now], protocol=0).decode("latin-1")
    assert parse_pickle(text) == [1, None, "ü", 1.5, [2, True], {"_datetime_object": now.isoformat()}]
    assert render_pickle([False, False]) == "(lp0\nI00\naI00\na."


def test_jobs_that_cannot_be_read_are_an_error_in_words() -> None:
    rig = Rig()
    answer = legacy(rig, "submitJobs", jobs=pickle.dumps([Evil()], protocol=0).decode("latin-1"))
    assert pickle.loads(answer.text.encode()) == "ERROR: jobs cannot be read"
    assert not rig.model.jobs


def test_get_job_status_gives_positional_records_and_fails_for_an_unknown_job() -> None:
    rig = Rig()
    panda_id = rig.sent()
    (record,) = json.loads(legacy(rig, "getJobStatus", ids=f"[{panda_id}]", no_pickle="True").text)
    assert record[ATTRIBUTES.index("jobStatus")] == "sent"
    assert record[ATTRIBUTES.index("creationTime")].keys() == {"_datetime_object"}
    assert (record[-1][0][3], record[-1][0][-1]) == ("a.root", None)
    assert legacy(rig, "getJobStatus", ids=f"[{panda_id},9]", no_pickle="True").status == 500
    (by_name, missing) = json.loads(legacy(rig, "getJobStatus", json_wanted=True, ids=f"[{panda_id},9]").text)
    assert (by_name["jobStatus"], missing) == ("sent", None)
    rig.model.flavour = FLAVOURS["0.8.1"]
    assert "Decimal" in legacy(rig, "getJobStatus", ids=f"[{panda_id}]", no_pickle="True").text


def test_pickled_ids_are_ended_where_the_database_lets_it() -> None:
    rig = Rig()
    panda_id = rig.sent()
    answer = legacy(rig, "killJobs", ids=f"(lp0\nI{panda_id}\naI999999\na.")
    assert (answer.text, rig.status(panda_id)) == ("(lp0\nI01\naI00\na.", "cancelled")


def test_the_server_of_2018_reads_and_answers_pickles_only() -> None:
    rig = Rig("2018")
    refused = legacy(rig, "submitJobs", json_wanted=True, jobs=json.dumps([positional(1)]))
    assert (pickle.loads(refused.text.encode()), rig.model.jobs) == ("ERROR: jobs cannot be read", {})
    ((_, _, name),) = pickle.loads(
        legacy(rig, "submitJobs", True, jobs=as_client([positional(2)])).text.encode()
    )
    assert name == "j2"
