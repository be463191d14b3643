"""Reading node journals: bytes -> valid lines. Pure (docs/architecture/files.md section 3)."""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass

from pilot.ports import Damage, JournalLine


@dataclass(frozen=True, slots=True)
class Lines:
    """Valid lines of a piece of a journal, what could not be read in its middle, and what stands behind the last."""

    lines: tuple[JournalLine, ...]
    damaged: tuple[Damage, ...]
    tail: Damage | None = None


def parse_lines(file: str, offset: int, content: bytes) -> Lines:
    """Valid lines of `content`, which stands at `offset` of `file`.

    What follows the last line feed is a line being written: not looked at. A damaged line is reported and passed
    over only if a whole line stands behind it; else it is in `tail`: it may still be on its way (torn, not visible).
    """
    lines: list[JournalLine] = []
    pending: list[int] = []
    damaged: list[Damage] = []
    position = offset
    for raw in content.split(b"\n")[:-1]:
        start, position = position, position + len(raw) + 1
        line = _parse(file, position, raw)
        if line is None:
            pending.append(start)
            continue
        damaged.extend(Damage(file, at, "damaged line") for at in pending)
        pending.clear()
        lines.append(line)
    behind = lines[-1].end if lines else offset
    left = offset + len(content) - behind
    tail = Damage(file, behind, f"{left} bytes are no line") if left else None
    return Lines(tuple(lines), tuple(damaged), tail)


def _parse(file: str, end: int, raw: bytes) -> JournalLine | None:
    if raw[:9] != b"%08x " % zlib.crc32(raw[9:]):
        return None
    try:
        body = json.loads(raw[9:])
    except (ValueError, RecursionError):
        return None
    if not isinstance(body, dict) or type(body.get("n")) is not int or not isinstance(body.get("kind"), str):
        return None
    return JournalLine(file, end, body["n"], body["kind"], body)
