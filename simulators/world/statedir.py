"""The state directory of the virtual world: durable records by epoch, snapshots, and the lease."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pilot.multijob.fold import fold
from pilot.multijob.statecodec import render_state
from pilot.ports import Appended, Done

# A segment of the world's journals: many of them in a day of a small site.
SEGMENT_RECORDS = 200


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What the state was after so many records of an epoch and of the older ones, as text."""

    epoch: int
    count: int
    older: Mapping[int, int]
    lines: tuple[str, ...]

    def counts_in(self, counts: Mapping[int, int]) -> bool:
        """Whether all records that it stands for count."""
        same = {epoch: count for epoch, count in counts.items() if epoch < self.epoch} == self.older
        return same and counts.get(self.epoch, -1) >= self.count


@dataclass(slots=True)
class Journal:
    """Durable records of one state directory, one list for each epoch; also the lease's epochs.

    `older[epoch]`: how many records of every older epoch it had read when it began to write. As `pilot.journal`:
    what an older daemon commits after that never counts. `sealed[epoch]`: where its segments ended.
    """

    epochs: dict[int, list[Mapping[str, Any]]] = field(default_factory=dict)
    older: dict[int, dict[int, int]] = field(default_factory=dict)
    sealed: dict[int, list[int]] = field(default_factory=dict)
    snapshots: list[Snapshot] = field(default_factory=list)

    def copy(self) -> Journal:
        """As it is now; records and snapshots never change."""
        epochs = {epoch: list(records) for epoch, records in self.epochs.items()}
        sealed = {epoch: list(counts) for epoch, counts in self.sealed.items()}
        return Journal(epochs, dict(self.older), sealed, list(self.snapshots))

    def counts(self) -> dict[int, int]:
        """How many records of each epoch count now."""
        if not self.older:
            return {}
        newest = max(self.older)
        return {**self.older[newest], newest: len(self.epochs[newest])}

    def load(self) -> list[Mapping[str, Any]]:
        """All records that count, older epochs first."""
        return _records(self.epochs, self.counts(), {})

    def load_short(self) -> list[Mapping[str, Any]]:
        """The records of the newest snapshot of what counts, then those that follow it."""
        return self._short(self.counts())

    def take(self, epoch: int, segment: int) -> Done:
        """A snapshot after so many sealed segments of an epoch, made as production's: of the one before it."""
        count = self.sealed[epoch][segment - 1] if segment else 0
        older = self.older[epoch]
        state = fold(self._short({**older, epoch: count}))
        lines = tuple(json.dumps(record) for record in render_state(state))
        self.snapshots = [*self.snapshots[-1:], Snapshot(epoch, count, older, lines)]
        return Done()

    def _short(self, counts: Mapping[int, int]) -> list[Mapping[str, Any]]:
        known = [snapshot for snapshot in self.snapshots if snapshot.counts_in(counts)]
        if not known:
            return _records(self.epochs, counts, {})
        newest = max(known, key=lambda snapshot: (snapshot.epoch, snapshot.count))
        covered = {**newest.older, newest.epoch: newest.count}
        return [*map(json.loads, newest.lines), *_records(self.epochs, counts, covered)]


def _records(
    epochs: Mapping[int, list[Mapping[str, Any]]], counts: Mapping[int, int], covered: Mapping[int, int]
) -> list[Mapping[str, Any]]:
    return [
        record
        for epoch, count in sorted(counts.items())
        for record in epochs[epoch][covered.get(epoch, 0) : count]
    ]


@dataclass(frozen=True, slots=True)
class EpochStore:
    """`ports.Store` of one run: its records become durable at once; the lease is read after that."""

    journal: Journal
    epoch: int
    older: dict[int, int]

    def load(self) -> Sequence[Mapping[str, Any]]:
        """All records."""
        return self.journal.load_short()

    def append(self, commit: int, records: Sequence[Mapping[str, Any]]) -> Appended:
        """Durable, then read the lease."""
        self.journal.older.setdefault(self.epoch, self.older)
        written, sealed = self.journal.epochs[self.epoch], self.journal.sealed.setdefault(self.epoch, [])
        if len(written) >= (sealed[-1] if sealed else 0) + SEGMENT_RECORDS:
            sealed.append(len(written))
        written.extend(records)
        return Appended(commit, max(self.journal.epochs), len(sealed))
