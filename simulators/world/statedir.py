"""The state directory of the virtual world: durable records by epoch, and the lease."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pilot.ports import Appended


@dataclass(slots=True)
class Journal:
    """Durable records of one state directory, one list for each epoch; also the lease's epochs.

    `older[epoch]`: how many records of every older epoch it had read when it began to write. As `pilot.journal`:
    what an older daemon commits after that never counts.
    """

    epochs: dict[int, list[Mapping[str, Any]]] = field(default_factory=dict)
    older: dict[int, dict[int, int]] = field(default_factory=dict)

    def counts(self) -> dict[int, int]:
        """How many records of each epoch count now."""
        if not self.older:
            return {}
        newest = max(self.older)
        return {**self.older[newest], newest: len(self.epochs[newest])}

    def load(self) -> list[Mapping[str, Any]]:
        """All records that count, older epochs first."""
        return [
            record for epoch, count in sorted(self.counts().items()) for record in self.epochs[epoch][:count]
        ]


@dataclass(frozen=True, slots=True)
class EpochStore:
    """`ports.Store` of one run: its records become durable at once; the lease is read after that."""

    journal: Journal
    epoch: int
    older: dict[int, int]

    def load(self) -> Sequence[Mapping[str, Any]]:
        """All records."""
        return self.journal.load()

    def append(self, commit: int, records: Sequence[Mapping[str, Any]]) -> Appended:
        """Durable, then read the lease."""
        self.journal.older.setdefault(self.epoch, self.older)
        self.journal.epochs[self.epoch].extend(records)
        return Appended(commit, max(self.journal.epochs))
