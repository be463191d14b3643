"""Directed scenarios in the virtual world: the real protocol leaves each of them clean.

tests/mutants/world-checked-*.yaml brings each wrong variant of DESIGN section 3 back into the production code and
names the scenario in which a checker must then report it. Not among them:

* *giving up only with no claim seen* (L): `decide.giving_up` asks the batch system only and never the claims, so no
  patch of production code makes a claim that was seen stop it; a round found claimed by the pilot ends sooner only.
* *rerunnable* and *no mark* bite with weak fencing only, which `ProtocolTimes.weak_fencing` does not carry yet.
* *lease read before the commit* is expressed in `step`: the reading that came with an earlier commit decides. That
  the file is read after the fsync is held by the mutant `lease-read-before-commit` on the real journal.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from simulators.world.checkers import violations
from simulators.world.scenarios import SCENARIOS

SEEDS = range(3)


@pytest.mark.parametrize("name", SCENARIOS)
def test_no_checker_finds_a_violation(name: str) -> None:
    for seed in SEEDS:
        found = [f"seed {seed}: {item.checker}: {item.story}" for item in violations(SCENARIOS[name](seed))]
        assert not found, "\n".join(found)


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
