"""Success is never a default: every abnormal ending has a code, none ends as finished."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from rig import EXPERIMENT, good_end, make_job

from pilot.multijob.verdict import file_guid, judge
from pilot.ports import JobStatus

JOB = make_job(1)

ABNORMAL: dict[str, tuple[Callable[[dict[str, Any]], Any], int]] = {
    "exit code not 0": (lambda f: f.update(exit_code=3), 1305),
    "exit code 255": (lambda f: f.update(exit_code=255), 1305),
    "no exit code": (lambda f: f.update(exit_code=None), 1220),
    "exit code is text": (lambda f: f.update(exit_code="0"), 1220),
    "segfault": (lambda f: f.update(exit_code=None, signal=11), 1203),
    "killed by the kernel": (lambda f: f.update(exit_code=None, signal=9), 1246),
    "terminated": (lambda f: f.update(exit_code=None, signal=15), 1201),
    "cpu limit": (lambda f: f.update(exit_code=None, signal=24), 1204),
    "file size limit": (lambda f: f.update(exit_code=None, signal=25), 1124),
    "other signal": (lambda f: f.update(exit_code=None, signal=3), 1220),
    "no end marker": (lambda f: f.update(marker=False), 1240),
    "marker unknown": (lambda f: f.update(marker=None), 1240),
    "fatal text although exit 0": (lambda f: f.update(patterns=["fatal"]), 1235),
    "no database": (lambda f: f.update(exit_code=1, patterns=["cdb-connect"]), 1244),
    "output missing": (lambda f: f["files"][0].update(size=None, placed=False), 1165),
    "output empty": (lambda f: f["files"][0].update(size=0), 1165),
    "log empty": (lambda f: f["files"][-1].update(size=0), 1165),
    "output not in the list": (lambda f: f["files"].pop(0), 1165),
    "log missing": (lambda f: f["files"].pop(), 1165),
    "output not placed": (lambda f: f["files"][0].update(placed=False, reason="EEXIST"), 1137),
    "output without checksum": (lambda f: f["files"][0].update(adler32=""), 1137),
    "files could not be looked at": (
        lambda f: f.update(trouble="EIO", marker=None, files=[], events_read=None),
        1137,
    ),
    "events differ": (lambda f: f.update(events_read=100), 1256),
    "no event count": (lambda f: f.update(events_read=None), 1256),
    "no written count": (lambda f: f.update(events_written=None), 1256),
    "deadline": (lambda f: f.update(ended_by="deadline"), 1213),
    "killed by order": (lambda f: f.update(ended_by="killed"), 1144),
    "closed": (lambda f: f.update(ended_by="closed"), 1379),
    "memory": (lambda f: f.update(ended_by="limit-rss"), 1212),
    "no end": (lambda f: f.update(ended_by="limit-wall"), 1150),
    "no word": (lambda f: f.update(ended_by="limit-quiet"), 1150),
    "too much output": (lambda f: f.update(ended_by="limit-stdout"), 1106),
    "database lost": (lambda f: f.update(ended_by="caldb-lost"), 1244),
    "an input that is not there": (lambda f: f.update(ended_by="no-input", exit_code=None), 1103),
    "an input that did not arrive": (lambda f: f.update(ended_by="stage-in", exit_code=None), 1099),
    "ended for an unheard reason": (lambda f: f.update(ended_by="moon"), 1220),
}


def test_a_good_end_is_finished_with_its_report() -> None:
    verdict, outcome = judge(JOB, 101, good_end(JOB), EXPERIMENT)
    assert verdict.status is JobStatus.FINISHED
    assert verdict.code == 0
    assert {item.lfn for item in outcome.report} == {*JOB.outputs, JOB.log_lfn}
    assert (outcome.n_events, outcome.n_written) == (101, 101)


def test_events_read_and_written_are_told_apart() -> None:
    _, outcome = judge(JOB, 101, good_end(JOB) | {"events_written": 99}, EXPERIMENT)
    assert (outcome.n_events, outcome.n_written) == (101, 99)


@pytest.mark.parametrize("name", ABNORMAL)
def test_no_abnormal_end_is_finished(name: str) -> None:
    change, code = ABNORMAL[name]
    facts = good_end(JOB)
    change(facts)
    verdict, _ = judge(JOB, 101, facts, EXPERIMENT)
    assert (verdict.status, verdict.code) == (JobStatus.FAILED, code)
    assert verdict.reason


def ended(name: str, exit_code: int | None = 0, signal: int | None = None, marker: bool | None = None) -> Any:
    return {"name": name, "exit_code": exit_code, "signal": signal, "marker": marker}


@pytest.mark.parametrize(
    ("steps", "code", "words"),
    [
        ([ended("a"), ended("b", 7), ended("clean")], 1305, "step 'b': exit code 7"),
        ([ended("a", 4), ended("b", None, 11)], 1305, "step 'a': exit code 4"),
        ([ended("a", None, 11), ended("b", 4)], 1203, "step 'a': signal 11"),
        ([ended("a", marker=False), ended("b", 4)], 1240, "step 'a': its end marker"),
        ([ended("a", None), ended("b")], 1220, "step 'a': no exit code"),
        ([ended("a"), ended("b", marker=False)], 1240, "step 'b': its end marker"),
    ],
)
def test_the_first_step_that_failed_decides(steps: Any, code: int, words: str) -> None:
    facts = good_end(JOB)
    # What stands beside them is no excuse: not even a code of the whole that says 0.
    facts.update(steps=steps)
    verdict, _ = judge(JOB, 101, facts, EXPERIMENT)
    assert verdict.code == code
    assert words in verdict.reason


def test_steps_that_all_succeed_are_finished() -> None:
    facts = good_end(JOB)
    facts.update(steps=[ended("a"), ended("b", marker=True), ended("c")])
    assert judge(JOB, 101, facts, EXPERIMENT)[0].status is JobStatus.FINISHED


def test_no_facts_at_all_are_no_success() -> None:
    assert judge(JOB, None, {}, EXPERIMENT)[0].status is JobStatus.FAILED


def test_infrastructure_is_not_charged() -> None:
    facts = good_end(JOB)
    facts.update(ended_by="caldb-lost")
    assert judge(JOB, 101, facts, EXPERIMENT)[0].charge == "infrastructure"


@pytest.mark.parametrize("why", ["no-input", "stage-in"])
def test_inputs_that_a_node_cannot_get_charge_nobody_and_say_which(why: str) -> None:
    facts = good_end(JOB)
    facts.update(ended_by=why, exit_code=None, trouble="/raw/a: I/O error")
    verdict, _ = judge(JOB, 101, facts, EXPERIMENT)
    assert verdict.charge == "site"
    assert "/raw/a: I/O error" in verdict.reason


def test_a_node_that_cannot_look_at_the_files_charges_nobody() -> None:
    facts = good_end(JOB)
    facts.update(trouble="cannot be collected: EIO", marker=None)
    assert judge(JOB, 101, facts, EXPERIMENT)[0].charge == "site"


def test_guid_is_the_same_in_every_repetition() -> None:
    assert file_guid(JOB, "a") == file_guid(JOB, "a")
    assert file_guid(JOB, "a") != file_guid(JOB, "b")
    assert file_guid(JOB, "a") != file_guid(make_job(1, attempt_nr=2), "a")
