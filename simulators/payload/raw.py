"""Raw files `cdrCCCCC-RRRRRR.raw` (chunk, run): what a detector's read-out left, uncalibrated.

All numbers little-endian. A file is a header, blocks of up to 256 events, and a trailer:

    header   magic 8s = 89 'E' 'P' 'R' 'A' 'W' 0d 0a | version u16 | planes u16 | run u32 | chunk u32
             | events u32 | blocks u32 | seed u64
             planes x ( name 8s | strips u16 | angle_mrad i16 | z_um u32 | pitch_nm u32 )
             crc32 u32 of all of the header before it
    block    magic 4s = 'EPBK' | first event u32 | events u32 | hits u32 | crc32 u32 of the body
             body: events x hits of the event u16, then hits x ( plane u8 | channel u16 | time u16 )
    trailer  magic 4s = 'EPND' | events u32 | hits u64 | crc32 u32 of the crcs of header and blocks, in order

A hit's `channel` is its place across the plane in 1/32 strip, its `time` is in counts of the plane's TDC. What a
strip or a count is worth (offset, scale, time zero, resolution) is not in the file: that is in the calibrations of
the run. `seed` belongs to the chunk and gives nothing away about these.
A zero-event file has no block. `read_header` needs the standard library only; `read_events` needs numpy.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAGIC = b"\x89EPRAW\r\n"
VERSION = 1
BLOCK_MAGIC = b"EPBK"
END_MAGIC = b"EPND"
BLOCK_EVENTS = 256
CHANNELS_PER_STRIP = 32
PLANES_MAX = 256

HEADER = struct.Struct("<8sHHIIIIQ")
PLANE = struct.Struct("<8sHhII")
BLOCK = struct.Struct("<4sIIII")
TRAILER = struct.Struct("<4sIQI")
CRC = struct.Struct("<I")
HIT_DTYPE = [("plane", "u1"), ("channel", "<u2"), ("time", "<u2")]
HIT_BYTES = 5

FILE_NAME = re.compile(r"^cdr(?P<chunk>\d{5})-(?P<run>\d{6})\.raw$")


class RawFileError(Exception):
    """The file is no raw file, or a damaged one. The message has path, place, found and expected."""


@dataclass(frozen=True, slots=True)
class Plane:
    """Nominal geometry of one detector plane. It measures x cos(angle) + y sin(angle), across its strips."""

    name: str
    strips: int
    angle_mrad: int
    z_um: int
    pitch_nm: int


@dataclass(frozen=True, slots=True)
class RawHeader:
    """Header of a raw file; its crc was right. `size` is the number of bytes of the header."""

    run: int
    chunk: int
    events: int
    blocks: int
    seed: int
    planes: tuple[Plane, ...]
    size: int
    crc: int


@dataclass(frozen=True, slots=True)
class RawEvents:
    """All events of a file. `hit_counts` has one number per event, the other arrays one per hit, in event order."""

    header: RawHeader
    hit_counts: NDArray[np.int64]
    plane: NDArray[np.int64]
    channel: NDArray[np.int64]
    time: NDArray[np.int64]


def file_name(run: int, chunk: int) -> str:
    """Name of the raw file of a chunk of a run."""
    return f"cdr{chunk:05d}-{run:06d}.raw"


def read_header(path: Path | str) -> RawHeader:
    """Read and check the header only. Raises RawFileError, or OSError when the file cannot be opened."""
    with open(path, "rb") as stream:
        return _read_header(stream, str(path))


def read_events(path: Path | str) -> RawEvents:
    """Read a whole file, checking every crc and count. Raises RawFileError, or OSError when it cannot be opened."""
    import numpy as np

    name = str(path)
    counts: list[Any] = []
    hits: list[Any] = []
    with open(path, "rb") as stream:
        header = _read_header(stream, name)
        crcs = CRC.pack(header.crc)
        events = 0
        for index in range(header.blocks):
            block_counts, block_hits, crc = _read_block(stream, name, index, events, header)
            counts.append(block_counts)
            hits.append(block_hits)
            crcs += CRC.pack(crc)
            events += len(block_counts)
        all_hits = np.concatenate(hits) if hits else np.empty(0, dtype=HIT_DTYPE)
        _check_trailer(stream, name, header, events, len(all_hits), zlib.crc32(crcs))
    if len(all_hits) and int(all_hits["plane"].max()) >= len(header.planes):
        raise RawFileError(
            f"{name}: hit on plane {int(all_hits['plane'].max())}, header has {len(header.planes)}"
        )
    return RawEvents(
        header=header,
        hit_counts=np.concatenate(counts).astype(np.int64) if counts else np.empty(0, dtype=np.int64),
        plane=all_hits["plane"].astype(np.int64),
        channel=all_hits["channel"].astype(np.int64),
        time=all_hits["time"].astype(np.int64),
    )


def render_raw(
    run: int,
    chunk: int,
    seed: int,
    planes: Sequence[Plane],
    hit_counts: NDArray[np.int64],
    hits: NDArray[Any],
) -> bytes:
    """Content of a raw file. `hits` has HIT_DTYPE and is in event order; `hit_counts` says how many each event has.

    Raises ValueError when the counts do not add up or a number does not fit its field.
    """
    import numpy as np

    if int(hit_counts.sum()) != len(hits) or len(planes) > PLANES_MAX or (hit_counts > 0xFFFF).any():
        raise ValueError(f"{len(hits)} hits, {int(hit_counts.sum())} counted, {len(planes)} planes")
    events = len(hit_counts)
    starts = range(0, events, BLOCK_EVENTS)
    head = HEADER.pack(MAGIC, VERSION, len(planes), run, chunk, events, len(starts), seed)
    head += b"".join(PLANE.pack(p.name.encode(), p.strips, p.angle_mrad, p.z_um, p.pitch_nm) for p in planes)
    crcs = CRC.pack(zlib.crc32(head))
    parts = [head, crcs]
    borders = np.concatenate(([0], np.cumsum(hit_counts)))
    for start in starts:
        stop = min(start + BLOCK_EVENTS, events)
        block_hits = hits[borders[start] : borders[stop]]
        body = hit_counts[start:stop].astype("<u2").tobytes() + block_hits.tobytes()
        crc = zlib.crc32(body)
        parts += [BLOCK.pack(BLOCK_MAGIC, start, stop - start, len(block_hits), crc), body]
        crcs += CRC.pack(crc)
    parts.append(TRAILER.pack(END_MAGIC, events, len(hits), zlib.crc32(crcs)))
    return b"".join(parts)


def _read_header(stream: BinaryIO, name: str) -> RawHeader:
    fixed = stream.read(HEADER.size)
    if fixed[: len(MAGIC)] != MAGIC:
        raise RawFileError(f"{name}: not a raw file: starts with {fixed[:8]!r}, expected {MAGIC!r}")
    if len(fixed) < HEADER.size:
        raise RawFileError(f"{name}: truncated in the header: {len(fixed)} bytes, expected {HEADER.size}")
    _, version, n_planes, run, chunk, events, blocks, seed = HEADER.unpack(fixed)
    if version != VERSION:
        raise RawFileError(f"{name}: raw format version {version}, expected {VERSION}")
    planes_and_crc = _read_exactly(stream, n_planes * PLANE.size + CRC.size, name, "the header")
    crc = zlib.crc32(fixed + planes_and_crc[: -CRC.size])
    (stored,) = CRC.unpack(planes_and_crc[-CRC.size :])
    if crc != stored:
        raise RawFileError(f"{name}: damaged header: crc {crc:08x}, expected {stored:08x}")
    planes = tuple(
        Plane(label.rstrip(b"\0").decode("ascii", "replace"), strips, angle, z, pitch)
        for label, strips, angle, z, pitch in PLANE.iter_unpack(planes_and_crc[: -CRC.size])
    )
    return RawHeader(run, chunk, events, blocks, seed, planes, HEADER.size + len(planes_and_crc), crc)


def _read_block(
    stream: BinaryIO, name: str, index: int, first_expected: int, header: RawHeader
) -> tuple[Any, Any, int]:
    import numpy as np

    where = f"block {index + 1} of {header.blocks}"
    magic, first, events, n_hits, stored = BLOCK.unpack(_read_exactly(stream, BLOCK.size, name, where))
    if magic != BLOCK_MAGIC or first != first_expected or events > BLOCK_EVENTS:
        raise RawFileError(
            f"{name}: damaged {where}: found {magic!r} with {events} events from {first}, "
            f"expected {BLOCK_MAGIC!r} with up to {BLOCK_EVENTS} from {first_expected}"
        )
    body = _read_exactly(stream, events * 2 + n_hits * HIT_BYTES, name, where)
    crc = zlib.crc32(body)
    if crc != stored:
        raise RawFileError(f"{name}: damaged {where}: crc {crc:08x}, expected {stored:08x}")
    counts = np.frombuffer(body, dtype="<u2", count=events)
    if int(counts.sum()) != n_hits:
        raise RawFileError(
            f"{name}: damaged {where}: {int(counts.sum())} hits in its events, expected {n_hits}"
        )
    return counts, np.frombuffer(body, dtype=HIT_DTYPE, count=n_hits, offset=events * 2), crc


def _check_trailer(stream: BinaryIO, name: str, header: RawHeader, events: int, hits: int, crc: int) -> None:
    magic, stored_events, stored_hits, stored_crc = TRAILER.unpack(
        _read_exactly(stream, TRAILER.size, name, "the trailer")
    )
    found = (magic, stored_events, stored_hits, stored_crc, events)
    expected = (END_MAGIC, header.events, hits, crc, header.events)
    if found != expected:
        raise RawFileError(f"{name}: damaged trailer: found {found}, expected {expected}")
    if stream.read(1):
        raise RawFileError(f"{name}: bytes after the trailer")


def _read_exactly(stream: BinaryIO, size: int, name: str, where: str) -> bytes:
    found = stream.read(size)
    if len(found) < size:
        raise RawFileError(f"{name}: truncated in {where}: {len(found)} bytes, expected {size}")
    return found
