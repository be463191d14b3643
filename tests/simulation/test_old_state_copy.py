"""The state directory is put back as it was hours ago while the daemon is down: nothing is lost, nothing runs twice."""

from __future__ import annotations

from simulators.world.faults.processes import old_state_copy
from simulators.world.fuzz import run_seed

# Copies that are older than bundles in place, and one that is older than the retention of some.
SEEDS = (11, 28, 30)


def test_an_old_copy_of_the_state_directory_runs_nothing_twice() -> None:
    for seed in SEEDS:
        result = run_seed(seed, (old_state_copy,))
        assert result.faults["old-state-copy"]
        assert result.coverage.events["BundleAdopted"]
        found = [f"seed {seed}: {item.checker}: {item.story}" for item in result.violations]
        assert not found, "\n".join(found)
