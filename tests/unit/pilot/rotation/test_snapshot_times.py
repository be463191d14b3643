"""When a snapshot of the journal is asked for, and what a failed one costs."""

from __future__ import annotations

from pilot.multijob.actions import AppendEvents, TakeSnapshot
from pilot.multijob.memory import Memory
from pilot.multijob.snapshot import decide_snapshot, note_journal, note_journal_failure
from pilot.ports import Appended, Done, Unavailable


def asked(memory: Memory, now_s: float = 0.0) -> list[int]:
    return [action.segment for action in decide_snapshot(memory, now_s)]


def test_each_sealed_segment_leads_to_one_snapshot() -> None:
    memory = Memory(3, 0.0)
    note_journal(memory, AppendEvents(1, ()), Appended(1, 3, 0))
    assert asked(memory) == []
    note_journal(memory, AppendEvents(2, ()), Appended(2, 3, 2))
    assert asked(memory) == [2]
    memory.in_flight[("snapshot",)] = 0.0
    assert asked(memory) == []
    del memory.in_flight[("snapshot",)]
    note_journal(memory, TakeSnapshot(3, 2), Done())
    assert asked(memory) == []


def test_what_an_epoch_began_with_is_folded_after_its_first_record() -> None:
    memory = Memory(3, 0.0, folded=-1)
    assert asked(memory) == []
    note_journal(memory, AppendEvents(1, ()), Appended(1, 3, 0))
    assert asked(memory) == [0]


def test_failed_snapshot_is_an_alarm_until_one_succeeds() -> None:
    memory = Memory(3, 0.0)
    note_journal(memory, AppendEvents(1, ()), Appended(1, 3, 1))
    note_journal_failure(memory, TakeSnapshot(3, 1), Unavailable("No space left on device"), 5.0)
    memory.failed(("snapshot",), 5.0, 30.0, 600.0, "No space left on device")
    assert memory.alarms["journal-snapshot-failed"].reason == "No space left on device"
    assert asked(memory, 6.0) == [] and asked(memory, 36.0) == [1]
    note_journal(memory, TakeSnapshot(3, 1), Done())
    assert "journal-snapshot-failed" not in memory.alarms
