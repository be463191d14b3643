"""Edge and node meet only in files: what one writes the other reads, with no file made by hand."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from pilot.multijob import actions as a
from pilot.multijob.agentfile import build_agent_file
from pilot.multijob.evidence import FileEvidence
from pilot.multijob.node.files import perform, run_steps
from pilot.multijob.node.gate import Start, gate_steps
from pilot.multijob.node.manifest import parse_manifest
from pilot.ports import BundleFiles, BundleId

TESTS = Path(__file__).parents[3]
sys.path[:0] = [str(TESTS / "unit/pilot"), str(TESTS / "integration/pilot/multijob/node")]
from nodekit import Bundle, await_true  # noqa: E402 (found by the line above)
from rig import Rig, Site, make_job  # noqa: E402

TAG = BundleId("bcontract")


@pytest.fixture
def evidence(tmp_path):
    return FileEvidence(tmp_path, 1, "edge", 1, "edge-nonce", lambda: "t")


def rendered():
    """(manifest, jobs) as the pure core of the edge renders it."""
    jobs = [make_job(number) for number in range(1, 5)]
    rig = Rig()
    done = rig.run(Site(jobs).respond, 30, after_s=30.0)
    return next(action.files for action in done if isinstance(action, a.PrepareBundle)), jobs


def test_manifest_of_the_edge_is_understood_by_the_node():
    files, jobs = rendered()
    manifest = parse_manifest(files.manifest)
    assert manifest.bundle_id == files.bundle_id
    assert set(manifest.malformed.values()) == {()}
    found = [job for node in manifest.jobs.values() for job in node]
    assert {job.panda_id for job in found} <= {job.panda_id for job in jobs}
    assert found
    assert len(manifest.launch) == len(manifest.jobs)


def test_claims_of_both_sides_keep_the_other_out(evidence):
    manifest = json.dumps({"schema": 1})
    evidence.prepare(TAG, lambda: BundleFiles(TAG, manifest, {1: "", 2: ""}))
    directory = str(evidence.directory(TAG))
    start = Start("7.sim", "nid1", 5, "gate-nonce", "u")
    assert run_steps(gate_steps(directory, 1, start, "link", 0.0), perform).launch
    made = evidence.make_claim(TAG, 1)
    assert (made.won, made.claim.who, made.claim.batch_id) == (False, "gate", "7.sim")

    assert evidence.make_claim(TAG, 2).won
    outcome = run_steps(gate_steps(directory, 2, start, "link", 0.0), perform)
    assert not outcome.launch
    assert "belongs to pilot" in outcome.reason

    seen = evidence.read(TAG, {})
    assert (seen.claims[1].nonce, seen.launched) == ("gate-nonce", (1,))


def test_door_of_the_pilot_turns_the_gate_away(evidence):
    evidence.prepare(TAG, lambda: BundleFiles(TAG, json.dumps({"schema": 1}), {1: ""}))
    evidence.set_door(TAG, 2)
    start = Start("7.sim", "nid1", 5, "n", "u")
    assert not run_steps(gate_steps(str(evidence.directory(TAG)), 1, start, "link", 0.0), perform).launch
    assert evidence.read(TAG, {}).turned_away == (1,)


def test_journal_of_an_agent_and_closed_of_the_pilot(evidence, tmp_path):
    """An agent's lines are read by the edge, line by line; the pilot's `closed` and commands are seen by the agent."""
    (tmp_path / "kit").mkdir()
    bundle = Bundle(tmp_path / "kit", build_agent_file(tmp_path), slots=1)
    ended = bundle.job("echo End of Job")
    commanded = bundle.job("exec sleep 67.5")
    runs = tmp_path / "runs"
    bundle.job(f"touch {runs}; exec sleep 67.5")
    bundle.write()
    evidence.prepare(TAG, lambda: BundleFiles(TAG, (bundle.dir / "manifest.json").read_text(), {1: ""}))
    bundle.dir = evidence.directory(TAG)
    agent = bundle.start_agent()
    try:
        await_true(lambda: len(started(evidence)) == 2)
        end = [{"panda_id": commanded, "attempt_nr": 1, "why": "killed"}]
        evidence.write_commands(TAG, json.dumps({"serial": 1, "end": end}))
        # Its payload runs: with `closed` between start line and look there would be no payload to end.
        await_true(runs.exists)
        evidence.close(TAG)
        agent.wait(20)
    finally:
        bundle.end_agents()
    seen = evidence.read(TAG, {})
    assert seen.closed
    assert seen.damaged == ()
    by = {line.body["panda_id"]: line.body["ended_by"] for line in seen.lines if line.kind == "job_ended"}
    assert (by[ended], by[commanded], sorted(map(str, by.values()))) == (
        None,
        "killed",
        ["None", "closed", "killed"],
    )
    assert [line.kind for line in seen.lines][-1] == "agent_ended"


def started(evidence):
    return [line for line in evidence.read(TAG, {}).lines if line.kind == "job_started"]
