"""Times at which nothing is started: weekly windows and single ones, all in UTC. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
EXPECTED = (
    "08:00-18:00, Mon-Fri 08:00-18:00, Sat,Sun 22:00-06:00 or 2026-07-01T08:00/2026-07-02T20:00 (all UTC)"
)
_WEEKLY = re.compile(r"(?:([A-Za-z,-]{3,40}) )?(\d\d):(\d\d)-(\d\d):(\d\d)")


@dataclass(frozen=True, slots=True)
class Window:
    """One window. Weekly: it begins on `days` (0 is Monday) at `start_s` of the day and lasts `length_s`.

    Single: `begins` and `ends` are given, and nothing else.
    """

    text: str
    days: frozenset[int] = frozenset()
    start_s: int = 0
    length_s: int = 0
    begins: datetime | None = None
    ends: datetime | None = None


def parse_window(text: str) -> Window:
    """The window of this text; raises ValueError."""
    if "/" in text:
        return _single(text)
    match = _WEEKLY.fullmatch(text)
    if match is None:
        raise ValueError(f"expected {EXPECTED}")
    days = _days(match[1]) if match[1] else frozenset(range(7))
    start_s, end_s = _of_day_s(match[2], match[3], most_h=23), _of_day_s(match[4], match[5], most_h=24)
    if start_s == end_s:
        raise ValueError("expected two different times; a whole day is 00:00-24:00")
    # An end before its start is on the next day.
    return Window(text, days, start_s, (end_s - start_s) % 86400 or 86400)


def _single(text: str) -> Window:
    first, _, last = text.partition("/")
    try:
        begins, ends = (datetime.fromisoformat(part) for part in (first, last))
    except ValueError as error:
        raise ValueError(f"expected {EXPECTED}") from error
    begins, ends = (at if at.tzinfo else at.replace(tzinfo=UTC) for at in (begins, ends))
    if ends <= begins:
        raise ValueError("expected an end after the beginning")
    return Window(text, begins=begins, ends=ends)


def _of_day_s(hours: str, minutes: str, most_h: int) -> int:
    found = int(hours) * 3600 + int(minutes) * 60
    if int(minutes) > 59 or found > most_h * 3600 + (3540 if most_h == 23 else 0):
        raise ValueError(f"expected a time of the day, found {hours}:{minutes}")
    return found


def _days(text: str) -> frozenset[int]:
    days: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.partition("-")
        last = last if dash else first
        if first not in DAYS or last not in DAYS:
            raise ValueError(f"expected days of {', '.join(DAYS)}, found {part!a}")
        start, count = DAYS.index(first), (DAYS.index(last) - DAYS.index(first)) % 7 + 1
        days.update((start + step) % 7 for step in range(count))
    return frozenset(days)


def closing(windows: Sequence[Window], now: datetime) -> tuple[Window, datetime] | None:
    """The window that is on now and ends last, with its end; None if none is on."""
    found = [(end, window) for window in windows if (end := _ends(window, now)) is not None]
    if not found:
        return None
    end, window = max(found, key=lambda item: item[0])
    return window, end


def _ends(window: Window, now: datetime) -> datetime | None:
    if window.begins is not None and window.ends is not None:
        return window.ends if window.begins <= now < window.ends else None
    midnight = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    for day in (midnight, midnight - timedelta(days=1)):
        begins = day + timedelta(seconds=window.start_s)
        ends = begins + timedelta(seconds=window.length_s)
        if day.weekday() in window.days and begins <= now < ends:
            return ends
    return None
