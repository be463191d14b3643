"""Times of no start: what each text means, in UTC."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from pilot.windows import closing, parse_window

# 2026-01-01 is a Thursday.


@pytest.mark.parametrize(
    ("texts", "now", "ends"),
    [
        (["08:00-18:00"], "2026-01-01T07:59:59", None),
        (["08:00-18:00"], "2026-01-01T08:00:00", "2026-01-01T18:00"),
        (["08:00-18:00"], "2026-01-01T18:00:00", None),
        (["00:00-24:00"], "2026-01-01T23:59:59", "2026-01-02T00:00"),
        (["22:00-06:00"], "2026-01-01T23:00:00", "2026-01-02T06:00"),
        (["22:00-06:00"], "2026-01-02T05:59:00", "2026-01-02T06:00"),
        (["Thu 22:00-06:00"], "2026-01-02T05:59:00", "2026-01-02T06:00"),
        (["Fri 22:00-06:00"], "2026-01-02T05:59:00", None),
        (["Mon-Wed 00:00-24:00"], "2026-01-01T12:00:00", None),
        (["Sat-Thu 00:00-24:00"], "2026-01-01T12:00:00", "2026-01-02T00:00"),
        (["Mon,Thu 11:00-13:00"], "2026-01-01T12:00:00", "2026-01-01T13:00"),
        (["11:00-13:00", "12:00-15:00"], "2026-01-01T12:30:00", "2026-01-01T15:00"),
        (["2026-01-01T08:00/2026-01-03T20:00"], "2026-01-02T00:00:00", "2026-01-03T20:00"),
        (["2026-01-01T08:00/2026-01-03T20:00"], "2026-01-03T20:00:00", None),
        (["2026-01-01T08:00+02:00/2026-01-01T09:00+02:00"], "2026-01-01T06:30:00", "2026-01-01T07:00"),
    ],
)
def test_a_window_is_on_from_its_beginning_until_its_end(
    texts: list[str], now: str, ends: str | None
) -> None:
    at = datetime.fromisoformat(now).replace(tzinfo=UTC)
    found = closing([parse_window(text) for text in texts], at)
    assert (None if found is None else found[1].astimezone(UTC).strftime("%Y-%m-%dT%H:%M")) == ends


@pytest.mark.parametrize(
    "text",
    [
        "",
        "8:00-18:00",
        "08:00-25:00",
        "24:00-08:00",
        "08:60-09:00",
        "08:00-08:00",
        "Mo 08:00-18:00",
        "Mon- 08:00-18:00",
        "Mon 08:00",
        "2026-01-01T08:00/",
        "2026-01-02T08:00/2026-01-01T08:00",
        "08:00-18:00\n",
    ],
)
def test_what_is_no_window_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        parse_window(text)
