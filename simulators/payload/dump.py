"""Event dumps: full records of the few events that a physicist wants to look at (three tracks and more).

All numbers little-endian. A dump is one segment, a merged dump is one segment after the other, byte by byte:

    record   magic 4s = 'EVNT' | bytes of the body u32 | run u32 | chunk u32 | event u32 | crc32 u32 of the body
             body: tracks x ( x, y, tx, ty, time, chi2 ) f32
    end      magic 4s = 'EVND' | 0 u32 | run u32 | chunk u32 | records u32 | crc32 u32 of the records' crcs, in order

A dump without any event is not an empty file: it holds the 33 bytes of PLACEHOLDER, as on the Grid.
Standard library only.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from pathlib import Path

PLACEHOLDER = b"PanDA message: the file is empty\n"
RECORD = struct.Struct("<4sIIIII")
RECORD_MAGIC = b"EVNT"
END_MAGIC = b"EVND"
CRC = struct.Struct("<I")
TRACK = struct.Struct("<6f")
TRACKS_MIN = 3


class DumpError(Exception):
    """The event dump is truncated, damaged or none. The message has path, place, found and expected."""


def is_placeholder(path: Path | str) -> bool:
    """Whether the file says that no event was selected. Raises OSError when it cannot be read."""
    with open(path, "rb") as stream:
        return stream.read(len(PLACEHOLDER) + 1) == PLACEHOLDER


def event_bytes(path: Path | str) -> int:
    """Bytes that the file adds to a merged dump: its size, 0 for a placeholder. Raises OSError."""
    return 0 if is_placeholder(path) else Path(path).stat().st_size


def render_dump(run: int, chunk: int, events: Iterable[tuple[int, list[tuple[float, ...]]]]) -> bytes:
    """Content of a dump from (event number, tracks of six numbers); the placeholder when there is none."""
    parts = []
    crcs = b""
    for event, tracks in events:
        body = b"".join(TRACK.pack(*track) for track in tracks)
        crc = zlib.crc32(body)
        parts += [RECORD.pack(RECORD_MAGIC, len(body), run, chunk, event, crc), body]
        crcs += CRC.pack(crc)
    if not parts:
        return PLACEHOLDER
    parts.append(RECORD.pack(END_MAGIC, 0, run, chunk, len(parts) // 2, zlib.crc32(crcs)))
    return b"".join(parts)


def count_events(path: Path | str) -> int:
    """Events of a dump, single or merged, every crc checked; 0 for a placeholder.

    Raises DumpError when it is not complete, OSError when it cannot be read.
    """
    if is_placeholder(path):
        return 0
    name = str(path)
    total = in_segment = 0
    crcs = b""
    open_segment = True
    with open(path, "rb") as stream:
        while head := stream.read(RECORD.size):
            if len(head) < RECORD.size:
                raise DumpError(
                    f"{name}: truncated: {len(head)} bytes of a record head, expected {RECORD.size}"
                )
            magic, size, _, _, number, stored = RECORD.unpack(head)
            if magic == RECORD_MAGIC:
                body = stream.read(size)
                if len(body) < size or zlib.crc32(body) != stored:
                    raise DumpError(f"{name}: damaged or truncated record of event {number}")
                crcs += CRC.pack(stored)
                in_segment += 1
                open_segment = True
            elif magic == END_MAGIC:
                if (number, stored) != (in_segment, zlib.crc32(crcs)):
                    raise DumpError(f"{name}: {in_segment} records in a segment, its end says {number}")
                total += in_segment
                in_segment, crcs, open_segment = 0, b"", False
            else:
                raise DumpError(f"{name}: found {magic!r}, expected {RECORD_MAGIC!r} or {END_MAGIC!r}")
    if open_segment:
        raise DumpError(f"{name}: truncated: {in_segment} records after the last end of a segment")
    return total
