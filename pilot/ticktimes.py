"""How long ticks take: counted in milliseconds since the start, for `status`. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

# Longer ones are counted as this.
LONGEST_MS = 10_000


@dataclass(slots=True)
class TickTimes:
    """`counts[n]`: ticks of more than n - 1 and at most n milliseconds."""

    counts: list[int] = field(default_factory=lambda: [0] * (LONGEST_MS + 1))
    ticks: int = 0
    longest_ms: float = 0.0

    def add(self, took_s: float) -> None:
        """One more tick."""
        took_ms = max(0.0, 1000.0 * took_s)
        self.counts[min(LONGEST_MS, -int(-took_ms // 1))] += 1
        self.ticks += 1
        self.longest_ms = max(self.longest_ms, took_ms)

    def share_ms(self, share: float) -> int:
        """So many milliseconds, rounded up, or less took this share of all ticks; 0 before the first."""
        wanted, seen = share * self.ticks, 0
        for length_ms, count in enumerate(self.counts):
            seen += count
            if seen >= wanted:
                return length_ms
        return LONGEST_MS

    def shown(self) -> Mapping[str, float]:
        """For `status`."""
        return {
            "ticks": self.ticks,
            "p50_ms": self.share_ms(0.5),
            "p999_ms": self.share_ms(0.999),
            "longest_ms": round(self.longest_ms, 1),
        }
