"""Payloads and calibration servers that do not do what they should: each job gets the verdict that it deserves."""

from __future__ import annotations

import pytest

from simulators.world.checkers import violations
from simulators.world.plays import PLAYS, codes_of, output_is_there, reasons_of

SEEDS = range(2)


@pytest.mark.parametrize("name", PLAYS)
def test_each_play_gets_its_verdict_and_no_checker_finds_a_violation(name: str) -> None:
    scenario, expected = PLAYS[name]
    for seed in SEEDS:
        world = scenario(seed)
        found = [f"seed {seed}: {item.checker}: {item.story}" for item in violations(world)]
        assert not found, "\n".join(found)
        assert codes_of(world) == expected.codes
        assert not expected.given_back or any(expected.given_back in text for text in reasons_of(world))


def test_an_output_that_is_there_is_never_replaced() -> None:
    for seed in range(2):
        world = output_is_there(seed)
        assert not violations(world)
        assert codes_of(world) == {"stage-out"}
