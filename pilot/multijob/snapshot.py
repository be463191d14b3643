"""The journal: what its answers mean, and when a snapshot is taken: after each sealed segment, and where a start has
read much. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from pilot.multijob.actions import AppendEvents, TakeSnapshot
from pilot.multijob.memory import Memory
from pilot.ports import Appended, Done, Failure


def decide_snapshot(memory: Memory, now_s: float) -> Iterator[TakeSnapshot]:
    """One at a time, of the newest sealed segment; not before a record of this epoch says what of older ones counts."""
    if not memory.durable:
        return
    if memory.sealed > memory.folded and not memory.waiting(("snapshot",), now_s):
        yield TakeSnapshot(memory.epoch, memory.sealed)


def note_journal(memory: Memory, action: AppendEvents | TakeSnapshot, outcome: Appended | Done) -> None:
    """Records are durable, and some segments get no more; or a snapshot is."""
    if isinstance(action, TakeSnapshot):
        memory.folded = max(memory.folded, action.segment)
        memory.clear_alarm("journal-snapshot-failed")
    if not isinstance(outcome, Appended):
        return
    memory.durable = max(memory.durable, outcome.commit)
    memory.sealed = max(memory.sealed, outcome.sealed)
    memory.appending = []
    memory.clear_alarm("journal-not-writable")
    if outcome.highest_epoch > memory.epoch:
        memory.overtaken_by = outcome.highest_epoch


def note_journal_failure(
    memory: Memory, action: AppendEvents | TakeSnapshot, failure: Failure, now_s: float
) -> None:
    """Records that are not durable come first in the next append. Without a snapshot the next start reads more."""
    if isinstance(action, AppendEvents):
        memory.records[:0] = memory.appending
        memory.appending = []
        memory.raise_alarm("journal-not-writable", failure.reason, now_s)
        return
    memory.raise_alarm("journal-snapshot-failed", failure.reason, now_s)
