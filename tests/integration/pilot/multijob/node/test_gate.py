"""The gate as a process: one owner of a round, however many start."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from nodekit import await_true

from pilot.multijob.node.files import perform, run_steps
from pilot.multijob.node.gate import Start, gate_steps


def gate_argv(bundle, number=1, *more):
    words = [sys.executable, "-I", "-S", str(bundle.agent_file), "gate", "--bundle", str(bundle.dir)]
    return [*words, "--round", str(number), *more]


def run_gate(bundle, batch_id="7.t", number=1):
    environment = {"PATH": os.defpath, **({"PBS_JOBID": batch_id} if batch_id else {})}
    done = subprocess.run(
        gate_argv(bundle, number), env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def names(bundle, start):
    return sorted(path.name for path in bundle.dir.iterdir() if path.name.startswith(start))


def test_winner_launches_every_node_and_waits(bundle):
    job = bundle.job("echo End of Job")
    bundle.write()
    run_gate(bundle)
    assert bundle.end_of(job)["exit_code"] == 0
    [started] = bundle.of_kind("agent_started")
    assert (started["batch_id"], started["round"], started["node"]) == ("7.t", 1, 0)
    assert 50 < started["seconds_left"] <= 60
    claim = json.loads((bundle.dir / "claim.1").read_text())
    assert (claim["who"], claim["round"], claim["batch_id"]) == ("gate", 1, "7.t")
    assert names(bundle, "claim") == ["claim.1"]
    assert names(bundle, "launched") == ["launched.1"]


def test_second_start_of_the_same_batch_job_loses(bundle):
    bundle.job("echo ran >> $RAN; echo End of Job", environment={"RAN": str(bundle.root / "ran")})
    bundle.write()
    run_gate(bundle)
    run_gate(bundle)
    assert (bundle.root / "ran").read_text() == "ran\n"
    assert len(names(bundle, "again.1.")) == 1


def test_without_a_batch_id_nothing_is_claimed(bundle):
    bundle.job("true")
    bundle.write()
    assert "no batch job" in run_gate(bundle, batch_id=None)
    assert names(bundle, "claim") == []


def test_door_turns_away_a_winner(bundle):
    bundle.job("true")
    bundle.write()
    (bundle.dir / "door").write_text('{"round": 2}')
    run_gate(bundle)
    assert names(bundle, "turned-away") == ["turned-away.1"]
    assert names(bundle, "launched") == []
    assert bundle.lines() == []


def test_claim_of_the_pilot_is_respected(bundle):
    bundle.job("true")
    bundle.write()
    (bundle.dir / "claim.1").write_text('{"who": "pilot", "round": 1, "batch_id": null, "nonce": "n"}')
    assert "belongs to pilot" in run_gate(bundle)
    assert bundle.lines() == []


def test_launcher_that_cannot_be_started_costs_its_own_node(bundle):
    job = bundle.job("echo End of Job")
    bundle.extra["launch"] = [[], ["no-such-launcher"]]
    bundle.extra["nodes"] = [{"index": 0, "jobs": bundle.jobs}, {"index": 1, "jobs": []}]
    bundle.write()
    run_gate(bundle)
    assert "no-such-launcher" in (bundle.dir / "launchers.out").read_text()
    assert bundle.end_of(job)["exit_code"] == 0


def test_sigterm_of_the_batch_system_reaches_the_agents(bundle):
    job = bundle.job("exec sleep 65.5")
    bundle.write()
    gate = subprocess.Popen(gate_argv(bundle, 1, "--batch-id", "7.t"), stdout=subprocess.DEVNULL)
    await_true(lambda: bundle.of_kind("job_started"))
    gate.terminate()
    assert gate.wait(20) == 0
    assert bundle.end_of(job)["ended_by"] == "terminated"


RACE = """
import os, sys, json
sys.path.insert(0, sys.argv[1])
from pilot.multijob.node.files import perform, run_steps
from pilot.multijob.node.gate import Start, gate_steps
directory, rounds = sys.argv[2], int(sys.argv[3])
os.read(0, 1)
for number in range(1, rounds + 1):
    start = Start("7.t", "h", os.getpid(), "%d-%d" % (os.getpid(), number), "u")
    outcome = run_steps(gate_steps(directory, number, start, "link", 0.0), perform)
    print(json.dumps([number, outcome.launch, outcome.reason]))
"""


def test_one_of_30_processes_owns_each_round(bundle):
    rounds, count = 8, 30
    argv = [sys.executable, "-I", "-S", "-c", RACE, os.getcwd(), str(bundle.dir), str(rounds)]
    reader, writer = os.pipe()
    racers = [subprocess.Popen(argv, stdin=reader, stdout=subprocess.PIPE, text=True) for _ in range(count)]
    os.close(reader)
    os.write(writer, b"g" * count)
    os.close(writer)
    answers = [json.loads(line) for racer in racers for line in racer.communicate(timeout=60)[0].splitlines()]
    assert len(answers) == rounds * count
    winners = [number for number, launch, _ in answers if launch]
    assert sorted(winners) == list(range(1, rounds + 1))
    assert len(names(bundle, "again.")) == rounds * (count - 1)
    assert len(names(bundle, "claim.")) == rounds, "no private file is left"


@pytest.mark.parametrize("fault", ["read-only", "no directory"])
def test_gate_that_cannot_write_launches_nothing(bundle, fault):
    directory = "/proc/self" if fault == "read-only" else str(bundle.dir / "nowhere")
    start = Start("7.t", "h", 1, "n", "u")
    outcome = run_steps(gate_steps(directory, 1, start, "link", 0.0), perform)
    assert outcome.launch is False
    assert "not claimed for sure" in outcome.reason


def test_usage_error_names_the_option(bundle):
    done = subprocess.run(
        [sys.executable, str(bundle.agent_file), "gate", "--bundle"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "argument --bundle: expected one argument" in done.stderr
    assert "usage:" in done.stderr
