"""The daemon's journal: one directory per epoch, segments of JSON lines with a crc, one fsync per commit.

A record is a line `<crc32, 8 hex digits> <JSON>`; a commit ends with the line `<crc32>=<commit>`, so that it counts
as a whole or not at all. The first line of a segment is its header {"journal": VERSION, "epoch", "segment",
"previous_bytes", "older"}: so many bytes of the segment before count, what a failed append left behind them does
not. `older` says how much of every older epoch this one had read when it began, {epoch: [segment, bytes]}: what an
older daemon, stopped or slow, commits after that never counts, for its actions were never released.
A segment gets its name when its header is durable. What stands behind the last whole commit of an epoch is the
unsynced tail of a crash. Damage anywhere else is reported, never passed over.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pilot.files import sync_directory, write_all
from pilot.lease import highest_epoch
from pilot.ports import Appended, Failure, Unavailable

LOG = logging.getLogger("pilot")
VERSION = 3
# Large enough for hours of a full machine, small enough to be read whole into memory at a start.
SEGMENT_MAX_BYTES = 64 * 1024 * 1024
_EPOCH = re.compile(r"journal\.(\d{1,9})")
_SEGMENT = re.compile(r"segment\.(\d{6,9})")


# A header names every older epoch: room for 10,000 restarts between two clean-ups.
HEADER_MAX_BYTES = 1024 * 1024
# How far an epoch was read: number of its newest segment, bytes of that.
Reach = tuple[int, int]


class JournalError(Exception):
    """The journal cannot be read as it stands; the text names file and line and says what to do."""


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


@dataclass(frozen=True, slots=True)
class _Lines:
    """A segment taken apart: per line its record, True for the end of a commit, None for damage."""

    path: Path
    raw: list[bytes]
    parsed: list[dict[str, Any] | bool | None]

    @property
    def header(self) -> Mapping[str, Any]:
        """The first line; empty if it is damaged or missing."""
        first = self.parsed[0] if self.parsed else None
        return first if isinstance(first, dict) and "journal" in first else {}

    def last_end(self, before: int) -> int:
        """Index of the last end of a commit before line index `before`; 0, the header, for none."""
        return next(
            (at for at in range(min(before, len(self.parsed)) - 1, 0, -1) if self.parsed[at] is True), 0
        )


def read_segment(path: Path, *, last: bool, counts_bytes: int | None = None) -> Iterator[dict[str, Any]]:
    """Records of one segment after its header.

    `last`: what stands behind the last whole commit is a crash's tail. `counts_bytes`: what the header of the next
    segment says about this one. Raises JournalError for damage and for a newer version.
    """
    content = path.read_bytes()
    if counts_bytes is not None and len(content) < counts_bytes:
        raise JournalError(
            f"{path}: {len(content)} bytes, {counts_bytes} were written and newer segments exist"
        )
    content = content[:counts_bytes]
    *raw, tail = content.split(b"\n")
    lines = _Lines(path, raw, [True if is_end(line) else parse_record(line) for line in raw])
    whole = _whole(lines, last=last)
    if not last and (tail or whole < len(raw)):
        raise JournalError(f"{path}: line {whole + 1} is damaged and newer segments exist")
    if whole < len(raw) or tail:
        LOG.warning("%s: lines from %d on were never committed: left out", path, whole + 1)
    if whole:
        _check_version(path, lines.header)
    for parsed in lines.parsed[1:whole]:
        if isinstance(parsed, dict):
            yield parsed


def _whole(lines: _Lines, *, last: bool) -> int:
    """Number of lines up to the last commit that counts. Raises JournalError."""
    if not lines.header:
        if any(parsed is not None for parsed in lines.parsed):
            raise JournalError(f"{lines.path}: line 1 is damaged (crc) and whole records follow it")
        return 0
    end = lines.last_end(len(lines.parsed))
    bad = next((at for at in range(end) if lines.parsed[at] is None), None)
    if bad is None:
        return end + 1
    # Only bytes that a crash did not bring to the disk explain a whole end behind damage: in the last commit alone.
    before = lines.last_end(bad)
    lost_page = b"\0" in lines.raw[bad] and lines.last_end(end) == before
    if last and lost_page:
        return before + 1
    raise JournalError(f"{lines.path}: line {bad + 1} is damaged (crc) and whole records follow it")


def _check_version(path: Path, header: Mapping[str, Any]) -> None:
    if header.get("journal") != VERSION:
        raise JournalError(
            f"{path}: journal version {header.get('journal')!r}, this program reads {VERSION}: use the program that "
            "wrote it, let it drain, then start with an empty state directory"
        )


def read_epoch(directory: Path, until: Reach | None = None) -> Iterator[dict[str, Any]]:
    """Records of all segments of one epoch, oldest first; `until`: what counts. Raises JournalError and OSError."""
    found = sorted(int(m.group(1)) for name in os.listdir(directory) if (m := _SEGMENT.fullmatch(name)))
    for number, there in enumerate(found, 1):
        if number != there:
            raise JournalError(f"{_segment(directory, number)} is missing and newer segments exist")
    for number in found:
        if until is not None and number >= until[0]:
            if number == until[0]:
                yield from read_segment(_segment(directory, number), last=True, counts_bytes=until[1])
            return
        path = _segment(directory, number)
        if number == found[-1]:
            yield from read_segment(path, last=True)
        else:
            counts_bytes = _previous_bytes(_segment(directory, number + 1))
            yield from read_segment(path, last=False, counts_bytes=counts_bytes)


def _segment(directory: Path, number: int) -> Path:
    return directory / f"segment.{number:06d}"


def _reach(directory: Path) -> Reach:
    """How far an epoch goes now: its newest segment and the bytes of whole commits in it; (0, 0) for none."""
    numbers = [int(m.group(1)) for name in os.listdir(directory) if (m := _SEGMENT.fullmatch(name))]
    if not numbers:
        return 0, 0
    path = _segment(directory, max(numbers))
    *raw, _ = path.read_bytes().split(b"\n")
    lines = _Lines(path, raw, [True if is_end(line) else parse_record(line) for line in raw])
    return max(numbers), sum(len(line) + 1 for line in raw[: _whole(lines, last=True)])


def _header(path: Path) -> Mapping[str, Any]:
    with open(path, "rb") as source:
        header = parse_record(source.readline(HEADER_MAX_BYTES).rstrip(b"\n")) or {}
    if "journal" not in header:
        raise JournalError(f"{path}: line 1 is damaged (crc): it says how much of what is older counts")
    _check_version(path, header)
    return header


def _previous_bytes(path: Path) -> int:
    found = _header(path).get("previous_bytes")
    if type(found) is not int:
        raise JournalError(f"{path}: line 1: previous_bytes: expected an integer, found {found!r:.40}")
    return found


@dataclass(slots=True)
class FileStore:
    """Implements `ports.Store` on a state directory for the lease of `epoch`."""

    state_dir: Path
    epoch: int
    segment_max_bytes: int = SEGMENT_MAX_BYTES
    _fd: int | None = field(default=None, init=False)
    _segment: int = field(default=0, init=False)
    # bytes that count: of the newest segment, of its header alone, and of the segment before it
    _size: int = field(default=0, init=False)
    _header_bytes: int = field(default=0, init=False)
    _previous_bytes: int = field(default=0, init=False)
    # None: not read yet
    _older: dict[int, Reach] | None = field(default=None, init=False)

    def load(self) -> Sequence[Mapping[str, Any]]:
        """Every record that counts, oldest epoch first; what comes to an older epoch after this never will.

        Raises JournalError and OSError.
        """
        counts = self._counts()
        records: list[Mapping[str, Any]] = []
        for epoch in sorted(counts):
            records.extend(read_epoch(self._directory(epoch), counts[epoch]))
        return records

    def _counts(self) -> dict[int, Reach]:
        """How much of every epoch counts now; what is older than this one is kept for its header."""
        epochs = self._epochs()
        begun = [epoch for epoch in epochs if _segment(self._directory(epoch), 1).exists()]
        counts: dict[int, Reach] = {}
        if begun:
            # The newest one that began says what of all older ones counts: it read them through the one before it.
            newest = begun[-1]
            older = _header(_segment(self._directory(newest), 1)).get("older", {})
            counts = {int(epoch): (number, size) for epoch, (number, size) in older.items()}
            counts[newest] = _reach(self._directory(newest))
        self._older = {epoch: reach for epoch, reach in counts.items() if epoch < self.epoch}
        return counts

    def _epochs(self) -> list[int]:
        names = os.listdir(self.state_dir)
        return sorted(int(match.group(1)) for name in names if (match := _EPOCH.fullmatch(name)))

    def append(self, commit: int, records: Sequence[Mapping[str, Any]]) -> Appended | Failure:
        """Write and fsync the records in one go; then read which epoch is in charge.

        `Unavailable`: none of them counts, and the same records may be appended again.
        """
        content = b"".join(render_record(record) for record in records) + render_end(commit)
        try:
            fd = self._open_segment(len(content))
            write_all(fd, content)
            os.fdatasync(fd)
            appended = Appended(commit, highest_epoch(self.state_dir))
        except OSError as error:
            self._cut_back()
            return Unavailable(f"journal: {error.strerror or error}")
        self._size += len(content)
        return appended

    def close(self) -> None:
        """Close the open segment."""
        if self._fd is not None:
            fd, self._fd = self._fd, None
            os.close(fd)

    def _directory(self, epoch: int) -> Path:
        return self.state_dir / f"journal.{epoch}"

    def _open_segment(self, coming_bytes: int) -> int:
        if self._fd is not None and self._size + coming_bytes <= self.segment_max_bytes:
            return self._fd
        self.close()
        directory = self._directory(self.epoch)
        if not directory.exists():
            directory.mkdir()
            sync_directory(self.state_dir)
        number = self._segment + 1
        if self._older is None:
            self._counts()
        older = (self._older or {}).items() if number == 1 else ()
        header = render_record(
            {
                "journal": VERSION,
                "epoch": self.epoch,
                "segment": number,
                "previous_bytes": self._size,
                "older": {str(epoch): reach for epoch, reach in older},
            }
        )
        private = directory / f".segment.{number:06d}"
        fd = os.open(private, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o644)
        try:
            write_all(fd, header)
            os.fsync(fd)
            os.rename(private, _segment(directory, number))
            sync_directory(directory)
        except OSError:
            os.close(fd)
            raise
        self._fd, self._segment, self._previous_bytes = fd, number, self._size
        self._size = self._header_bytes = len(header)
        return fd

    def _cut_back(self) -> None:
        """After a failed append its bytes must never count: cut off, and the next segment's header says so too.

        Nothing more is written to this file: after a failed fsync nobody knows what of it is on the disk.
        """
        if self._fd is None:
            return
        try:
            os.ftruncate(self._fd, self._size)
            os.fsync(self._fd)
        except OSError as error:
            LOG.warning("journal: segment %d is not cut back: %s", self._segment, error)
        with contextlib.suppress(OSError):
            self.close()
        if self._size == self._header_bytes:
            # No commit in it: its name is used again, or a full disk would gather segments.
            self._segment, self._size = self._segment - 1, self._previous_bytes
