"""Who owns a round: the decision on simulated files."""

from __future__ import annotations

import json

import pytest
from simfiles import SimFiles

from pilot.multijob.node.files import CountLinks, Exists, Link, Pause, Put, PutNew, Read, SyncDirectory
from pilot.multijob.node.gate import LOOKS, Start, gate_steps, render_claim


def start(nonce="n1"):
    return Start("7.t", "host", 1, nonce, "utc")


def gate(sim, number=1, nonce="n1", fencing="link"):
    return sim.run(gate_steps("d", number, start(nonce), fencing, 30.0))


def test_free_round_is_won_and_said_durably():
    sim = SimFiles()
    assert gate(sim).launch
    assert json.loads(sim.text("d/claim.1"))["nonce"] == "n1"
    assert sorted(sim.inodes) == ["d/claim.1", "d/launched.1"]


def test_taken_round_is_lost_and_said():
    sim = SimFiles()
    gate(sim, nonce="n1")
    assert not gate(sim, nonce="n2").launch
    assert json.loads(sim.text("d/claim.1"))["nonce"] == "n1"
    assert "d/again.1.n2" in sim.inodes


def test_lost_reply_of_the_link_is_won():
    sim = SimFiles()

    def lose(operation):
        if isinstance(operation, Link):
            raise FileExistsError("the reply was lost, the client asked again")

    sim.after = lose
    assert gate(sim).launch


def test_own_nonce_is_won_where_the_link_count_is_seen_late():
    sim = SimFiles()

    def lose(operation):
        if isinstance(operation, Link):
            sim.inodes["d/claim.1"] = [sim.text("d/claim.1.n1"), 1]
            sim.inodes["d/claim.1.n1"] = [sim.text("d/claim.1.n1"), 1]
            raise FileExistsError("asked again")

    sim.after = lose
    assert gate(sim).launch


def test_success_without_a_link_is_not_believed():
    sim = SimFiles()
    sim.put("d/claim.1", render_claim(1, start("other")))
    sim._Link = lambda operation: None
    assert not gate(sim).launch


def test_unreadable_claim_is_looked_at_again_and_may_become_ours_or_not():
    sim = SimFiles()
    sim.put("d/claim.1", "")
    assert not gate(sim).launch
    assert sum(isinstance(operation, Pause) for operation in sim.log) == LOOKS - 1

    sim = SimFiles()
    sim.put("d/claim.1", "")

    def appears(operation):
        if isinstance(operation, Pause):
            sim.put("d/claim.1", render_claim(1, start("other")))

    sim.after = appears
    assert "belongs to gate 7.t" in gate(sim).reason
    assert sim.slept_s < 5


@pytest.mark.parametrize("kind", [PutNew, Link, CountLinks, SyncDirectory, Put])
def test_any_other_error_launches_nothing(kind):
    sim = SimFiles()

    def fail(operation):
        if isinstance(operation, kind):
            raise OSError(5, "Input/output error")

    sim.before = fail
    assert not gate(sim).launch


@pytest.mark.parametrize(
    ("door", "launch"), [('{"round": 1}', True), ('{"round": 2}', False), ("torn", False)]
)
def test_door(door, launch):
    sim = SimFiles()
    sim.put("d/door", door)
    assert gate(sim).launch is launch
    assert ("d/turned-away.1" in sim.inodes) is not launch


def test_door_that_cannot_be_looked_at_stays_shut():
    sim = SimFiles()

    def fail(operation):
        if isinstance(operation, (Exists, Read)):
            raise OSError(5, "Input/output error")

    sim.before = fail
    assert not gate(sim).launch


def test_launched_is_durable_before_the_answer():
    sim = SimFiles()
    gate(sim)
    assert isinstance(sim.log[-1], Put)
    assert sim.log[-1].path == "d/launched.1"


class TestWeakFencing:
    def test_alone_wins_after_waiting(self):
        sim = SimFiles()
        assert gate(sim, fencing="weak").launch
        assert sim.slept_s == 30.0
        assert "d/claim.1" not in sim.inodes

    def test_door_is_no_part_of_it(self):
        sim = SimFiles()
        sim.put("d/door", '{"round": 2}')
        assert gate(sim, fencing="weak").launch

    @pytest.mark.parametrize("other", ["n2", "pilot"])
    def test_another_mark_loses(self, other):
        sim = SimFiles()
        sim.after = (
            lambda operation: sim.put(f"d/mark.1.{other}", "x") if isinstance(operation, Pause) else None
        )
        assert not gate(sim, fencing="weak").launch

    def test_mark_of_another_round_does_not_count(self):
        sim = SimFiles()
        sim.put("d/mark.2.n2", "x")
        sim.put("d/mark.10.n2", "x")
        assert gate(sim, fencing="weak").launch
