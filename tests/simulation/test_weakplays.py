"""Weak fencing in the virtual world: link(2) takes a name that another host has made, and no checker finds anything."""

from __future__ import annotations

import pytest

from simulators.world.checkers import violations
from simulators.world.weakplays import WEAK_PLAYS, both_lose, marked_then_crash, weakly

SEEDS = range(2)


@pytest.mark.parametrize("name", WEAK_PLAYS)
def test_no_checker_finds_a_violation(name: str) -> None:
    for seed in SEEDS:
        world = WEAK_PLAYS[name](seed)
        found = [f"seed {seed}: {item.checker}: {item.story}" for item in violations(world)]
        assert not found, "\n".join(found)
        assert not [path for path in world.shared.bindings if "/claim." in path]


def test_where_both_lose_nobody_goes_on_and_all_jobs_run_in_the_next_bundle() -> None:
    world = weakly(both_lose, 1)
    first = world.truth.gates[0].bundle_id
    assert [gate.launch for gate in world.truth.gates if gate.bundle_id == first] == [False, False]
    assert {run.bundle_id for run in world.truth.payloads} and first not in {
        run.bundle_id for run in world.truth.payloads
    }
    assert len(world.truth.payloads) == 4


def test_a_mark_of_an_earlier_run_ends_the_wait_and_no_gate_goes_on() -> None:
    world = weakly(marked_then_crash, 1)
    assert len(world.truth.payloads) == 4
    assert not any(
        gate.launch for gate in world.truth.gates if gate.round == 1 and gate is world.truth.gates[0]
    )
