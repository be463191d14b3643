"""Pickled submission: what old servers read, and that nothing is made of what they answer."""

import ast
import os
import pickle
import sys
from pathlib import Path
from types import ModuleType
from urllib.parse import quote_plus

import pytest

from prodsys_core.pickles import parse_pickled_answer, parse_pickled_records, render_ids, render_pickle
from prodsys_core.ports import Broken, PandaJob, Refused, Unavailable
from prodsys_core.wire import JOB_SPEC, parse_descriptions, positional
from simulators.panda.pickles import parse_pickle

CAPTURED = Path(__file__).parents[2] / "data/panda-samples/real"

JOBS = [
    PandaJob(
        name,
        900_000_000,
        "Q",
        "mass production",
        "A='\\back' x\ny ü 𝄞",
        {"m": "output", "l": "log"},
        2,
        5,
        2000,
        7,
        300,
    )
    for name in ("n-1", "n-2")
]
POSITIONAL = [positional(job) for job in JOBS]


def test_the_simulated_server_reads_the_same_as_from_json():
    assert parse_pickle(render_pickle(POSITIONAL, "taskbuffer")) == POSITIONAL


@pytest.mark.parametrize("package", ["taskbuffer", "pandaserver.taskbuffer"])
def test_the_servers_own_classes_are_made_and_each_file_knows_its_job(monkeypatch, package):
    parts = package.split(".")
    for name in [".".join(parts[:n]) for n in range(1, len(parts) + 1)]:
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    kinds = {}
    for name in ("JobSpec", "FileSpec"):
        module = ModuleType(f"{package}.{name}")
        kinds[name] = type(name, (), {"__setstate__": lambda self, state: setattr(self, "state", state)})
        setattr(module, name, kinds[name])
        monkeypatch.setitem(sys.modules, module.__name__, module)
    jobs = pickle.loads(render_pickle(POSITIONAL, package).encode("ascii"))
    assert [type(job) for job in jobs] == [kinds["JobSpec"]] * 2
    for job, want in zip(jobs, POSITIONAL, strict=True):
        *values, files = job.state
        assert values == want[:-1]
        assert [type(file) for file in files] == [kinds["FileSpec"]] * 2
        assert [file.state[:-1] for file in files] == [file[:-1] for file in want[-1]]
        assert {file.state[-1] for file in files} == {job}
    assert jobs[0].state[JOB_SPEC.job.index("nEvents")] == "NULL"


def answer(value):
    return parse_pickled_answer(200, pickle.dumps(value, protocol=0))


def test_an_answer_names_the_jobs_that_were_stored():
    assert answer([(5, 7, "n-1"), ("NULL", 7, "n-2"), (None, 7, "n-3")]) == {
        "n-1": 5,
        "n-2": None,
        "n-3": None,
    }


def test_no_and_trouble_are_told_apart():
    assert isinstance(answer(False), Refused)
    assert isinstance(answer("ERROR: ServerError with storeJobs"), Unavailable)
    assert isinstance(parse_pickled_answer(403, b"ERROR : method submitJobs is forbidden"), Refused)
    assert isinstance(parse_pickled_answer(500, b"Traceback"), Unavailable)
    assert isinstance(answer({"a": 1}), Broken)
    assert isinstance(answer([1]), Broken)


class Evil:
    def __reduce__(self):
        return (os.system, ("touch /nonexistent/evil",))


class JobSpec:
    pass


@pytest.mark.parametrize("value", [Evil(), [Evil()], os.system, [(5, 7, JobSpec())], JobSpec])
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_an_answer_that_names_any_class_or_function_is_refused_unread(value, protocol):
    seen = parse_pickled_answer(200, pickle.dumps(value, protocol=protocol))
    assert isinstance(seen, Broken)
    assert "names" in seen.reason


@pytest.mark.parametrize(
    "content", [b"", b".", b"(lp0\n", b"<html>", b"\x80\x05.", b"((((", b"[[5, 7, 'n']]"]
)
def test_what_is_no_pickle_is_broken(content):
    assert isinstance(parse_pickled_answer(200, content), Broken)


def captured(name):
    """Body of a captured answer, which stands there as Python shows bytes."""
    text = (CAPTURED / f"{name}.txt").read_text()
    return ast.literal_eval(text.split("<<< RESPONSE")[1].split("\n\n", 1)[1].strip())


def test_captured_records_are_read_as_those_of_v1_are():
    records = parse_descriptions(parse_pickled_records(200, captured("L91d_getFullJobStatus")))
    record = records[478]
    assert sorted(records) == [478, 479]
    assert (record.job_name, record.attempt_nr, record.status) == (
        "compass.dvcs2016P09t2.000000",
        1,
        "activated",
    )
    assert (record.codes, record.diags, record.node) == ({}, {}, "")
    assert record.files[0].adler32 == "0cc737eb"
    seen = parse_pickled_records(200, captured("L91b_getJobStatus_pickle"))
    assert [item and item["jobStatus"] for item in seen] == ["activated", "activated", None]


HOSTILE = [
    b"cos\nsystem\n(S'true'\ntR.",
    b"(lp0\ncbuiltins\neval\n(S'1'\ntRa.",
    b"ccopy_reg\n_reconstructor\n(cos\nsystem\nc__builtin__\nobject\nNtR.",
    b"(lcsubprocess\nPopen\na.",
    b"(lcdatetime\ntimedelta\na.",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_records_that_name_anything_else_are_refused_unread(text):
    assert "UnpicklingError: names" in parse_pickled_records(200, text).reason


@pytest.mark.parametrize(
    "text", [b"I5\n.", b"(lI5\na.", b"(l(lI5\naa.", b"(lcdecimal\nDecimal\n(tRa.", b"\xff", b""]
)
def test_what_are_no_records_is_broken(text):
    assert isinstance(parse_pickled_records(200, text), Broken)


def test_a_text_in_place_of_records_says_why():
    assert isinstance(parse_pickled_records(403, b"no"), Refused)
    assert isinstance(parse_pickled_records(500, b"no"), Unavailable)


def test_ids_are_written_as_a_captured_client_did():
    sent = (CAPTURED / "L64_killJobs_pickle.txt").read_text()
    assert quote_plus(render_ids([45, 999999])) in sent
