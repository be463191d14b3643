"""Every captured Torque case against the simulator, byte for byte after one normalisation."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import torque_cases as captures
import torque_sessions as sessions

from simulators.torque.request import Reply

LEFT_OUT = {
    "torque-6.1.3/003_qstat_f": "its paths were made neutral after the lines had been folded (test_torque_texts.py)",
    "torque-6.1.3/211_walltime_exceeded_output": "a file of the batch job, not an answer of the server",
    "torque-6.1.3/440_serverhung_qstat": "no answer at all: `timeout` ended the command",
    "torque-6.1.3/441_serverhung_qsub": "no answer at all: `timeout` ended the command",
    "torque-6.1.3/442_after_hang_qstat": "the 620 jobs of a load run, whose commands were not captured",
    "torque-6.1.3/450_nohome_job": "submitted through another user's shell with an environment that was not captured",
    "torque-6.1.3/474_trap_with_kill_delay10": "a file of the batch job, not an answer of the server",
    "torque-6.1.3-craymode/003_qstat_f_running": "a job of 16 nodes started by hand on one (qrun)",
    "torque-6.1.3-craymode/020_qstat_290_running": "holds the job of 003",
    "torque-6.1.3-craymode/021_qstat_x_290": "only its first characters were kept",
}
LEFT_OUT_MAX = 15
SYSTEMS = {"torque-6.1.3": sessions.cluster, "torque-6.1.3-craymode": sessions.cray}
CASES = {f"{system}/{name}": case for system in SYSTEMS for name, case in captures.load(system).items()}
PLAYED = [name for name in CASES if name not in LEFT_OUT]


@cache
def replies(system: str) -> dict[str, Reply]:
    return SYSTEMS[system]()


def as_text(stdout: str, stderr: str, exit_code: int) -> str:
    return f"{stdout}--- stderr\n{stderr}--- exit code {exit_code}\n"


def captured(name: str) -> str:
    case = CASES[name]
    return as_text(case.stdout, case.stderr, case.rc)


@pytest.mark.parametrize("name", PLAYED)
def test_every_captured_case_is_given_again(name):
    reply = replies(CASES[name].system).get(CASES[name].name)
    assert reply is not None, "not played"
    given = as_text(reply.stdout, reply.stderr, reply.exit_code)
    assert captures.normalise(given) == captures.normalise(captured(name))


@pytest.mark.parametrize("name", PLAYED)
def test_a_changed_character_outside_the_normalised_parts_is_noticed(name):
    text = captured(name)
    hidden = {at for start, end, _ in captures.spans(text) for at in range(start, end)}
    open_places = [at for at in range(len(text)) if at not in hidden]
    want = captures.normalise(text)
    for at in open_places[:: max(1, len(open_places) // 7)]:
        changed = text[:at] + ("#" if text[at] != "#" else "%") + text[at + 1 :]
        assert captures.normalise(changed) != want, (at, text[max(0, at - 20) : at + 20])


def test_at_most_15_cases_are_left_out_each_with_a_reason():
    assert set(LEFT_OUT) <= set(CASES) and all(LEFT_OUT.values())
    assert (len(CASES), len(LEFT_OUT) <= LEFT_OUT_MAX) == (167, True)


def test_only_times_hosts_pids_and_accounting_numbers_are_normalised():
    assert {word for word, _ in captures.NORMALISED} == {"time", "host", "pid", "accounting"}
    for name in PLAYED:
        for start, end, word in captures.spans(captured(name)):
            part = captured(name)[start:end]
            assert any(character.isdigit() for character in part), (name, word, part)
