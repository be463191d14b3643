"""Directed scenarios in the virtual world: the real protocol leaves each of them clean.

tests/mutants/world-checked-*.yaml brings each wrong variant of DESIGN section 3 back into the production code and
names the scenario in which a checker must then report it. Not among them:

* *giving up only with no claim seen* (L) has a test of its own below: a claim of the pilot's earlier run is not
  recognised, and the bundle waits as long as its batch job does.
* *rerunnable* and *no mark* bite with weak fencing only (test_weakplays.py).
* *lease read before the commit* and *qsub first, journal after* are mutants of unit tests: a round that the journal
  does not tell of is recognised by its script, so neither leads to a second submission here any more.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pilot.multijob.model import RoundState
from simulators.world.checkers import violations
from simulators.world.scenarios import SCENARIOS
from simulators.world.staging import heal, make_world, submitted

SEEDS = range(3)


@pytest.mark.parametrize("name", SCENARIOS)
def test_no_checker_finds_a_violation(name: str) -> None:
    for seed in SEEDS:
        found = [f"seed {seed}: {item.checker}: {item.story}" for item in violations(SCENARIOS[name](seed))]
        assert not found, "\n".join(found)


def test_a_pilots_claim_of_an_earlier_run_ends_the_wait() -> None:
    world = make_world(1, run_s=60.0)
    daemon, bundle, _ = submitted(world)
    daemon.evidence.make_claim(bundle.bundle_id, 1)
    world.crash(daemon)
    again = world.start_daemon()
    found = again.state.bundles[bundle.bundle_id]
    assert world.run_until(lambda: found.rounds[1].state is RoundState.VOID, 120.0)
    assert not world.truth.gates
    assert not violations(heal(world))


def test_the_same_seed_gives_the_same_history_and_another_seed_another() -> None:
    hashes = [SCENARIOS["crash_after_qsub"](seed).trace_hash() for seed in (1, 1, 2)]
    assert hashes[0] == hashes[1] != hashes[2]


def test_the_history_depends_on_the_seed_alone(tmp_path: Path) -> None:
    code = "from simulators.world.scenarios import SCENARIOS; print(SCENARIOS['late_closed'](1).trace_hash())"
    root = str(Path(__file__).parents[2])
    found = set()
    for hash_seed, zone, folder in (("1", "UTC", root), ("2", "Asia/Tokyo", str(tmp_path))):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "TZ": zone, "PYTHONPATH": root}
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=environment,
            cwd=folder,
            capture_output=True,
            text=True,
            check=True,
        )
        found.add(done.stdout)
    assert len(found) == 1
