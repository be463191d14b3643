"""Segments of the journal: JSON lines with a crc, the end of each commit, what of them counts.

A record is a line `<crc32, 8 hex digits> <JSON>`; a commit ends with the line `<crc32>=<commit>`, so that it counts
as a whole or not at all. The first line of a segment is its header {"journal": VERSION, "epoch", "segment",
"previous_bytes", "older"}: so many bytes of the segment before count, what a failed append left behind them does
not. `older` says how much of every older epoch this one had read when it began, {epoch: [segment, bytes]}: what an
older daemon, stopped or slow, commits after that never counts, for its actions were never released.
What stands behind the last whole commit of an epoch is the unsynced tail of a crash. Damage anywhere else is
reported, never passed over. A segment is read line by line, twice: a full machine's would fill the memory.
"""

from __future__ import annotations

import json
import logging
import os
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LOG = logging.getLogger("pilot")
VERSION = 3
_SEGMENT = re.compile(r"segment\.(\d{6,9})")


# A header names every older epoch: room for 10,000 restarts between two clean-ups.
HEADER_MAX_BYTES = 1024 * 1024
# How far an epoch was read: number of its newest segment, bytes of that.
Reach = tuple[int, int]


class JournalError(Exception):
    """The journal cannot be read as it stands; the text names file and line and says what to do."""


class JournalDamaged(JournalError):
    """What was once written whole is not. `sound_bytes`: up to the last whole commit before it, 0: none."""

    def __init__(self, text: str, sound_bytes: int = 0) -> None:
        super().__init__(text)
        self.sound_bytes = sound_bytes


def render_record(record: Mapping[str, Any]) -> bytes:
    """One line of a segment."""
    body = json.dumps(record, separators=(",", ":"), ensure_ascii=True).encode()
    return b"%08x %s\n" % (zlib.crc32(body), body)


def parse_record(line: bytes) -> dict[str, Any] | None:
    """The record of a complete line (without its line feed), None if it is damaged or none."""
    if line[:9] != b"%08x " % zlib.crc32(line[9:]):
        return None
    try:
        value = json.loads(line[9:])
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def render_end(commit: int) -> bytes:
    """The line that ends a commit."""
    body = b"%d" % commit
    return b"%08x=%s\n" % (zlib.crc32(body), body)


def is_end(line: bytes) -> bool:
    """Whether a complete line ends a commit."""
    return line[:9] == b"%08x=" % zlib.crc32(line[9:])


@dataclass(slots=True)
class Scan:
    """What one pass over a segment tells. Lines are counted from 1; 0: none."""

    path: Path
    header: Mapping[str, Any] = field(default_factory=dict)
    size: int = 0
    lines: int = 0
    torn: bool = False
    # whole lines of any kind; line and end of the last commit's end, line of the end before it
    good: int = 0
    end: int = 0
    end_bytes: int = 0
    end_before: int = 0
    # the first damaged line, the last end of a commit before it, and that end's last byte
    bad: int = 0
    bad_has_nul: bool = False
    bad_after: int = 0
    bad_after_bytes: int = 0

    def whole(self, *, last: bool) -> tuple[int, int]:
        """Number of lines, and of bytes, up to the last commit that counts. Raises JournalDamaged."""
        if not self.header:
            if self.good:
                raise JournalDamaged(f"{self.path}: line 1 is damaged (crc) and whole records follow it")
            return 0, 0
        if not self.bad or self.bad > self.end:
            return self.end, self.end_bytes
        # Only bytes that a crash did not bring to the disk explain a whole end behind damage: in the last commit alone.
        if last and self.bad_has_nul and self.end_before == self.bad_after:
            return self.bad_after, self.bad_after_bytes
        text = f"{self.path}: line {self.bad} is damaged (crc) and whole records follow it"
        raise JournalDamaged(text, self.bad_after_bytes)


def scan_segment(path: Path, counts_bytes: int | None = None) -> Scan:
    """One pass over at most so many bytes. Raises OSError."""
    scan = Scan(path)
    for line in _lines(path, counts_bytes):
        scan.size += len(line)
        if not line.endswith(b"\n"):
            scan.torn = True
            break
        scan.lines += 1
        _note(scan, line[:-1])
    return scan


def _note(scan: Scan, line: bytes) -> None:
    if scan.lines == 1:
        header = parse_record(line)
        if header is not None and "journal" in header:
            # The header stands for the end of a commit without records.
            scan.header, scan.end, scan.end_bytes, scan.end_before = header, 1, scan.size, 1
    if is_end(line):
        scan.good += 1
        scan.end_before, scan.end, scan.end_bytes = scan.end, scan.lines, scan.size
    elif line[:9] == b"%08x " % zlib.crc32(line[9:]):
        scan.good += 1
    elif not scan.bad:
        scan.bad, scan.bad_has_nul = scan.lines, b"\0" in line
        scan.bad_after, scan.bad_after_bytes = scan.end, scan.end_bytes


def _lines(path: Path, counts_bytes: int | None) -> Iterator[bytes]:
    """Lines with their line feeds, up to so many bytes."""
    left = counts_bytes
    with open(path, "rb") as source:
        while left is None or left > 0:
            line = source.readline() if left is None else source.readline(left)
            if not line:
                return
            yield line
            if left is not None:
                left -= len(line)


def sound_segment(path: Path, *, last: bool, counts_bytes: int | None = None) -> tuple[Scan, int, int]:
    """One pass over a segment; lines and bytes of it that count. Arguments and errors as those of `read_segment`."""
    scan = scan_segment(path, counts_bytes)
    whole, whole_bytes = scan.whole(last=last)
    if counts_bytes is not None and scan.size < counts_bytes:
        text = f"{path}: {scan.size} bytes, {counts_bytes} were written and newer segments exist"
        raise JournalDamaged(text, whole_bytes)
    if not last and (scan.torn or whole < scan.lines):
        text = f"{path}: line {whole + 1} is damaged and newer segments exist"
        raise JournalDamaged(text, whole_bytes)
    if whole:
        check_version(path, scan.header)
    return scan, whole, whole_bytes


def read_segment(path: Path, *, last: bool, counts_bytes: int | None = None) -> Iterator[dict[str, Any]]:
    """Records of one segment after its header.

    `last`: what stands behind the last whole commit is a crash's tail. `counts_bytes`: what the header of the next
    segment says about this one. Raises JournalDamaged, and JournalError for a newer version.
    """
    scan, whole, whole_bytes = sound_segment(path, last=last, counts_bytes=counts_bytes)
    if whole < scan.lines or scan.torn:
        LOG.warning("%s: lines from %d on were never committed: left out", path, whole + 1)
    for number, line in enumerate(_lines(path, whole_bytes), 1):
        if number > 1 and line[8:9] != b"=":
            yield _record(path, number, line)


def _record(path: Path, number: int, line: bytes) -> dict[str, Any]:
    """The record of a line whose crc is right."""
    try:
        value = json.loads(line[9:])
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise JournalError(f"{path}: line {number} holds no record, though its crc is right")
    return value


def check_version(path: Path, header: Mapping[str, Any]) -> None:
    """Raises JournalError for a journal of another version."""
    if header.get("journal") != VERSION:
        raise JournalError(
            f"{path}: journal version {header.get('journal')!r}, this program reads {VERSION}: use the program that "
            "wrote it, let it drain, then start with an empty state directory"
        )


def segment_path(directory: Path, number: int) -> Path:
    """File of a segment in its epoch's directory."""
    return directory / f"segment.{number:06d}"


def segment_numbers(directory: Path) -> list[int]:
    """Segments that an epoch's directory has, in rising order. Raises OSError."""
    return sorted(int(m.group(1)) for name in os.listdir(directory) if (m := _SEGMENT.fullmatch(name)))


def read_epoch(directory: Path, until: Reach | None = None, after: int = 0) -> Iterator[dict[str, Any]]:
    """Records of the segments of one epoch that follow segment `after`, oldest first; `until`: what counts.

    Raises JournalError and OSError.
    """
    found = [number for number in segment_numbers(directory) if number > after]
    if until is not None:
        found = [number for number in found if number <= until[0]]
    for number, there in enumerate(found, after + 1):
        if number != there:
            raise JournalDamaged(f"{segment_path(directory, number)} is missing and newer segments exist")
    for number in found:
        path = segment_path(directory, number)
        if until is not None and number == until[0]:
            # These bytes ended with a commit when they were counted: what is not whole in them is no crash's tail.
            yield from read_segment(path, last=False, counts_bytes=until[1])
            return
        if number == found[-1]:
            yield from read_segment(path, last=True)
        else:
            counts_bytes = previous_bytes(segment_path(directory, number + 1))
            yield from read_segment(path, last=False, counts_bytes=counts_bytes)


def reach_of(directory: Path, *, sound: bool = True) -> Reach:
    """How far an epoch goes now: its newest segment and the bytes of whole commits in it; (0, 0) for none.

    `sound` false: all its bytes, damaged or not. Raises JournalDamaged and OSError.
    """
    numbers = segment_numbers(directory)
    if not numbers:
        return 0, 0
    path = segment_path(directory, numbers[-1])
    return numbers[-1], scan_segment(path).whole(last=True)[1] if sound else path.stat().st_size


def read_header(path: Path) -> Mapping[str, Any]:
    """The header of a segment. Raises JournalError and OSError."""
    with open(path, "rb") as source:
        header = parse_record(source.readline(HEADER_MAX_BYTES).rstrip(b"\n")) or {}
    if "journal" not in header:
        raise JournalDamaged(f"{path}: line 1 is damaged (crc): it says how much of what is older counts")
    check_version(path, header)
    return header


def previous_bytes(path: Path) -> int:
    """How many bytes of the segment before this one count. Raises JournalError and OSError."""
    found = read_header(path).get("previous_bytes")
    if type(found) is not int:
        raise JournalError(f"{path}: line 1: previous_bytes: expected an integer, found {found!r:.40}")
    return found
