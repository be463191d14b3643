"""Cut a sequence; servers and databases take only so much at once."""

from collections.abc import Iterator, Sequence
from typing import TypeVar

Item = TypeVar("Item")

ROWS = 1600
"""Rows in one SQL statement: 20 values of each stay below the 32,766 parameters that SQLite takes since 3.32."""


def in_chunks(items: Sequence[Item], size: int = ROWS) -> Iterator[Sequence[Item]]:
    """Consecutive slices of at most `size` items."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
