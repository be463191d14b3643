"""Which jobs of a replayed journal the server has told nothing of yet: nine bytes each, there may be 150,000. Pure."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from pilot.ports import JobKey


@dataclass(slots=True)
class Untold:
    """A set of PandaIDs, most of which are known from the beginning."""

    _keys: array[int] = field(default_factory=lambda: array("q"))
    _gone: bytearray = field(default_factory=bytearray)
    _left: int = 0
    _later: set[JobKey] = field(default_factory=set)

    @classmethod
    def of(cls, jobs: Collection[JobKey]) -> Untold:
        """All of these."""
        return cls(array("q", sorted(jobs)), bytearray(len(jobs)), len(jobs))

    def _at(self, key: JobKey) -> int | None:
        at = bisect_left(self._keys, key) if self._left else 0
        return at if self._left and at < len(self._keys) and self._keys[at] == key else None

    def __contains__(self, key: JobKey) -> bool:
        at = self._at(key)
        return (at is not None and not self._gone[at]) or key in self._later

    def __bool__(self) -> bool:
        return bool(self._left or self._later)

    def update(self, jobs: Iterable[JobKey]) -> None:
        """Add these."""
        self._later.update(jobs)

    def discard(self, key: JobKey) -> None:
        """Take one out, if it is in."""
        self._later.discard(key)
        at = self._at(key)
        if at is not None and not self._gone[at]:
            self._gone[at] = True
            self._left -= 1
