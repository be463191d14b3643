"""Pickled submission: what old servers read, and that nothing is made of what they answer."""

import os
import pickle
import sys
from types import ModuleType

import pytest

from prodsys_core.pickles import parse_pickled_answer, render_pickle
from prodsys_core.ports import Broken, OutputFile, PandaJob, Refused, Submitted, Unavailable
from prodsys_core.wire import ATTRIBUTES, positional
from simulators.panda.pickles import parse_pickle

JOBS = [
    PandaJob(
        name,
        900_000_000,
        "Q",
        "mass production",
        "A='\\back' x\ny ü 𝄞",
        (OutputFile("m"), OutputFile("l", "log")),
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
    assert jobs[0].state[ATTRIBUTES.index("nEvents")] == "NULL"


def answer(value):
    return parse_pickled_answer(200, pickle.dumps(value, protocol=0))


def test_an_answer_names_the_jobs_that_were_stored():
    assert answer([(5, 7, "n-1"), ("NULL", 7, "n-2"), (None, 7, "n-3")]) == (
        Submitted("n-1", 5),
        Submitted("n-2", None),
        Submitted("n-3", None),
    )


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
