"""Array requests of -t, times of -a and dependencies of -W depend=: texts to values. Pure."""

from __future__ import annotations

import re
from collections.abc import Container
from datetime import UTC, datetime

ELEMENTS_MAX = 10_000
_PART = re.compile(r"(\d{1,6})(?:-(\d{1,6}))?")
_KINDS = frozenset({"afterok", "afternotok", "afterany"})
_FULL_DATE = 12


def parse_array(text: str) -> tuple[tuple[int, ...], int | None] | None:
    """Indices and limit of `0-4`, `1,3,7-9%2`; None where it is no array."""
    ranges, percent, limit = text.partition("%")
    if percent and not (limit.isdecimal() and int(limit) > 0):
        return None
    indices: list[int] = []
    for part in ranges.split(","):
        found = _PART.fullmatch(part)
        if found is None:
            return None
        first, last = int(found[1]), int(found[2] or found[1])
        if last < first or last - first + len(indices) >= ELEMENTS_MAX:
            return None
        indices += range(first, last + 1)
    return tuple(dict.fromkeys(indices)), int(limit) if percent else None


def parse_start_time(text: str) -> float | None:
    """Epoch seconds of CCYYMMDDhhmm[.SS]; None for anything else."""
    minutes, dot, seconds = text.partition(".")
    if len(minutes) != _FULL_DATE or not minutes.isdecimal() or (dot and not seconds.isdecimal()):
        return None
    try:
        at = datetime.strptime(minutes, "%Y%m%d%H%M").replace(tzinfo=UTC)
    except ValueError:
        return None
    return at.timestamp() + int(seconds or 0)


def parse_depend(
    text: str, server: str, known: Container[str]
) -> tuple[tuple[str, tuple[str, ...]], ...] | None:
    """`afterok:1:2,afterany:3` as kinds with full ids; None for another kind or an id that is not known."""
    found = []
    for word in text.split(","):
        kind, *ids = word.split(":")
        full = tuple(i if "." in i else f"{i}.{server}" for i in ids)
        if kind not in _KINDS or not full or any(i not in known for i in full):
            return None
        found.append((kind, full))
    return tuple(found)


def verdict(kind: str, exit_status: int | None) -> bool:
    """Whether a dependency of this kind is satisfied by a batch job that ended so."""
    match kind:
        case "afterok":
            return exit_status == 0
        case "afternotok":
            return exit_status != 0
    return True
