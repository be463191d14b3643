"""What the site says is left of the allocation: looked at where a command is configured, an alarm in time. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from pilot.multijob.actions import LookAtAllocation
from pilot.multijob.memory import Memory
from pilot.multijob.model import Limits
from pilot.ports import AllocationLeft


def decide_allocation(memory: Memory, now_s: float, limits: Limits) -> Iterator[LookAtAllocation]:
    """Ask again when it is due."""
    every_s = limits.allocation_look_s
    if every_s is None or memory.waiting(("allocation",), now_s):
        return
    if now_s >= memory.allocation_asked_s + every_s:
        memory.allocation_asked_s = now_s
        yield LookAtAllocation()


def note_allocation(memory: Memory, left: AllocationLeft, utc: str, now_s: float, limits: Limits) -> None:
    """Remember what was told; raise or clear the alarm. What is submitted is not held back: the site decides that."""
    memory.allocation = left.node_h, utc
    if left.node_h > limits.allocation_warn_node_h:
        memory.clear_alarm("allocation-low")
        return
    reason = f"{left.node_h:.1f} node-hours are left, the limit is {limits.allocation_warn_node_h:g}"
    memory.raise_alarm("allocation-low", reason, now_s)
