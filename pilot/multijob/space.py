"""Space and inodes of the three directories: alarms in time, and no new bundle where there is too little. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pilot.multijob.actions import LookAtSpace
from pilot.multijob.memory import Memory
from pilot.multijob.model import Limits
from pilot.ports import SpaceSeen


def decide_space(memory: Memory, now_s: float, limits: Limits) -> Iterator[LookAtSpace]:
    """Look again when it is due."""
    if not limits.directories or memory.waiting(("space",), now_s):
        return
    if now_s >= memory.space_asked_s + limits.space_look_s:
        memory.space_asked_s = now_s
        yield LookAtSpace(dict(limits.directories))


def note_space(memory: Memory, seen: Mapping[str, SpaceSeen], now_s: float, limits: Limits) -> None:
    """Remember what was seen; raise or clear the alarms."""
    memory.space = dict(seen)
    for name in limits.directories:
        reason = low(name, seen.get(name), limits)
        if reason is None:
            memory.clear_alarm(f"space-{name}")
        else:
            memory.raise_alarm(f"space-{name}", f"{limits.directories[name]}: {reason}", now_s)


def low(name: str, seen: SpaceSeen | None, limits: Limits) -> str | None:
    """Why this directory has too little left, None if it has enough or nothing is known."""
    if seen is None:
        return None
    if seen.free_mib < limits.free_min_mib:
        return f"{seen.free_mib} MiB free in {name}, at least {limits.free_min_mib} wanted"
    if seen.free_inodes is not None and seen.free_inodes < limits.free_inodes_min:
        return f"{seen.free_inodes} inodes free in {name}, at least {limits.free_inodes_min} wanted"
    return None


def held_by_space(memory: Memory, limits: Limits) -> str | None:
    """Why no bundle may be made now: what it writes would not fit. None if it may."""
    found = (low(name, memory.space.get(name), limits) for name in limits.directories)
    return next((reason for reason in found if reason is not None), None)
