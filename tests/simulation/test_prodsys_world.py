"""prodsys' decisions in the virtual world, judged by what the PanDA servers know."""

from __future__ import annotations

import pytest

from simulators.world.fuzz import at_rest, heal
from simulators.world.prodsys import PRODSYS_SCENARIOS, prodsys_violations
from simulators.world.seeds import CALM_S, make_seeded


@pytest.mark.parametrize("name", PRODSYS_SCENARIOS)
def test_no_checker_finds_a_violation(name: str) -> None:
    for seed in range(3):
        production = PRODSYS_SCENARIOS[name](seed)
        found = [f"seed {seed}: {item.checker}: {item.story}" for item in prodsys_violations(production)]
        assert not found, "\n".join(found)
        sent = [step for step in production.steps.values() if any(a.panda_id for a in step.attempts)]
        assert len(sent) == len(production.steps)


def test_every_step_of_a_day_without_faults_is_accepted_once_and_merged_after_its_last_chunk() -> None:
    seeded = make_seeded(1, kinds=[])
    seeded.world.start_daemon()
    seeded.world.run(CALM_S)
    # Caps on node-hours of a day are lifted then.
    heal(seeded)
    seeded.world.run_until(lambda: at_rest(seeded), 12 * 3600.0)
    found = [f"{item.checker}: {item.story}" for item in prodsys_violations(seeded.production)]
    assert not found, "\n".join(found)
    assert all(step.accepted is not None for step in seeded.production.steps.values())
