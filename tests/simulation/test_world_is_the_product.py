"""The virtual world runs production's own modules: what it does not run is an adapter that it replaces, named here."""

from __future__ import annotations

import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pilot
from simulators.world.faults.people import operator_order
from simulators.world.fuzz import run_seed
from simulators.world.plays import caldb_late
from simulators.world.scenarios import cancelled_while_it_starts

PILOT = Path(pilot.__file__).parent
# What stands for it in the world, or why the world has no use for it.
REPLACED = {
    "multijob/agentfile.py": "the agent's code is imported, no file travels",
    "multijob/operations.py": "the operations are values, simulators.world.files carries them out",
    "multijob/node/host.py": "simulators.world.agents",
    "multijob/node/shell.py": "a script of the world is its end",
    "multijob/node/errands.py": "simulators.world.agents",
    "multijob/node/binding.py": "nodes of the world have no cores",
    "multijob/node/cgroups.py": "nodes of the world have no processes but the agents' own",
    "multijob/node/payload.py": "simulators.world.floor.Play",
    "multijob/node/processes.py": "simulators.world.floor.Play",
    "multijob/node/spawn.py": "simulators.world.floor.Play",
    "multijob/node/selfcheck.py": "a node of the world is fit",
    "multijob/node/scan.py": "what a payload printed is drawn",
    "multijob/node/database.py": "simulators.world.floor.KeeperPlay",
    "multijob/node/launch.py": "simulators.world.nodes launches",
    "multijob/node/wake.py": "the virtual clock ends waits",
    "multijob/node/warden.py": "simulators.world.agents",
    "rotation/checks.py": "pilot check looks at a real site",
    "rotation/surroundings.py": "as above",
    "rotation/probe.py": "as above",
    "rotation/loginnode.py": "as above",
    "multijob/node/probe.py": "as above",
    "rotation/allocation.py": "a seed's site has no command that tells it",
    "rotation/reload.py": "a person's, like the next: the configuration of a seed stays",
    "rotation/reloader.py": "reads a configuration, the world has limits",
    "rotation/why.py": "as above",
    "rotation/story.py": "reads a journal for a person",
    "rotation/preview.py": "shows a bundle to a person",
    "rotation/snapshots.py": "simulators.world.statedir takes a snapshot without a process",
}


def executed(*runs: Any) -> set[str]:
    """Files below pilot/ of which some function was called."""
    found: set[str] = set()

    def called(frame: FrameType, event: str, arg: Any) -> None:
        if event == "call":
            found.add(frame.f_code.co_filename)

    before = sys.getprofile()
    sys.setprofile(called)
    try:
        for run in runs:
            run()
    finally:
        sys.setprofile(before)
    return {str(Path(name).relative_to(PILOT)) for name in found if name.startswith(str(PILOT))}


def test_every_module_of_the_product_runs_in_the_world_or_is_replaced_by_name() -> None:
    ran = executed(
        lambda: run_seed(1),
        lambda: run_seed(1, (operator_order,)),
        lambda: caldb_late(1),
        lambda: cancelled_while_it_starts(1),
    )
    there = {
        str(path.relative_to(PILOT))
        for folder in ("multijob", "rotation")
        for path in (PILOT / folder).rglob("*.py")
        if "def " in path.read_text()  # modules of values alone have nothing to run
    }
    assert there - ran == set(REPLACED)
