"""The system's clock: the one production source of time."""

from __future__ import annotations

import time
from datetime import UTC, datetime


class SystemClock:
    """Implements `ports.Clock`."""

    def now(self) -> datetime:
        """Aware UTC, for records."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds that never go back, for durations of this run."""
        return time.monotonic()
