"""Time for pure models: a heap of timers. Ties are broken by the order of setting, so a run is repeatable."""

from __future__ import annotations

import heapq
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Timers(Generic[Item]):
    """Items due at times (seconds). Nothing is ever cancelled: whoever takes an item looks whether it still holds."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Item]] = []
        self._count = 0

    def set(self, at_s: float, item: Item) -> None:
        """Make `item` due at `at_s`."""
        self._count += 1
        heapq.heappush(self._heap, (at_s, self._count, item))

    def next_at(self) -> float | None:
        """When the next item is due (None: no item)."""
        return self._heap[0][0] if self._heap else None

    def pop_due(self, now_s: float) -> tuple[float, Item] | None:
        """The earliest item due at or before `now_s`, with its own time; None when there is none."""
        if not self._heap or self._heap[0][0] > now_s:
            return None
        at_s, _, item = heapq.heappop(self._heap)
        return at_s, item
