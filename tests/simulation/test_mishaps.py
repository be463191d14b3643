"""A site that breaks in one way: the protocol stays clean, the fault really happened, everything ends."""

from __future__ import annotations

import pytest

from simulators.world.checkers import violations
from simulators.world.mishaps import MISHAPS

SEEDS = range(3)


@pytest.mark.parametrize("name", MISHAPS)
def test_no_checker_finds_a_violation(name: str) -> None:
    scenario, kind = MISHAPS[name]
    for seed in SEEDS:
        world = scenario(seed)
        found = [f"seed {seed}: {item.checker}: {item.story}" for item in violations(world)]
        assert not found, "\n".join(found)
        assert world.counted[kind], f"seed {seed}: {kind} changed nothing"
