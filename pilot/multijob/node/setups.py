"""Set-up scripts of a node's jobs: which one is to be run now, and what each has made. Pure.

A script runs once for all jobs of the node's list that name it, one script at a time: several would load the same
software from the same filesystem at once.
"""

from __future__ import annotations

from typing import Dict, Iterable, Mapping, NamedTuple, Optional, Tuple

# What a shell sets by itself; a payload has its own.
OF_THE_SHELL = frozenset(("_", "PWD", "OLDPWD", "SHLVL"))


class Made(NamedTuple):
    """What a script did to the environment that it was given."""

    changed: Tuple[Tuple[str, str], ...] = ()
    removed: Tuple[str, ...] = ()


class Setup(NamedTuple):
    """A script. `state`: "wanted", "running" (until `due_s`), "ready", or "failed" with `reason`."""

    state: str = "wanted"
    reason: str = ""
    due_s: Optional[float] = None


def scripts_of(scripts: Iterable[Optional[str]]) -> Mapping[str, Setup]:
    """All scripts that jobs name, in the order of the list."""
    return {script: Setup() for script in dict.fromkeys(scripts) if script is not None}


def overdue(setups: Mapping[str, Setup], now_s: float) -> Optional[str]:
    """The script that has run for too long."""
    for script, setup in setups.items():
        if setup.state == "running" and setup.due_s is not None and now_s >= setup.due_s:
            return script
    return None


def next_wanted(setups: Mapping[str, Setup]) -> Optional[str]:
    """The script to run now, None while one runs or when all have run."""
    if any(setup.state == "running" for setup in setups.values()):
        return None
    return next((script for script, setup in setups.items() if setup.state == "wanted"), None)


def difference(before: Mapping[str, str], after: Mapping[str, str]) -> Made:
    """What a script changed and removed, without what its shell did."""
    changed = {
        name: value for name, value in after.items() if before.get(name) != value and name not in OF_THE_SHELL
    }
    removed = [name for name in before if name not in after and name not in OF_THE_SHELL]
    return Made(tuple(changed.items()), tuple(removed))


def applied(before: Mapping[str, str], made: Made) -> Dict[str, str]:
    """An environment with what a script made of it."""
    return {
        **{name: value for name, value in before.items() if name not in made.removed},
        **dict(made.changed),
    }
