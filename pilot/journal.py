"""The daemon's journal: one directory per epoch, segments of JSON lines with a crc, one fsync per commit.

A line is `<crc32, 8 hex digits> <JSON>\\n`; the first line of a segment is its header {"journal": VERSION,
"epoch", "segment"}. A torn tail of an epoch's last segment is the lost unsynced tail of a crash. Damage anywhere
else is reported, never skipped. Facts: reference measurements in docs/facts/journal.md.
"""

from __future__ import annotations

import json
import os
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pilot.files import sync_directory
from pilot.lease import highest_epoch
from pilot.ports import Appended, Failure, Unavailable

VERSION = 1
SEGMENT_MAX_BYTES = 64 * 1024 * 1024
_EPOCH = re.compile(r"journal\.(\d{1,9})")


class JournalError(Exception):
    """The journal cannot be read as it stands; the text names file and line and says what to do."""


def render_record(record: Mapping[str, Any]) -> bytes:
    """One line of a segment."""
    body = json.dumps(record, separators=(",", ":"), ensure_ascii=True).encode()
    return b"%08x %s\n" % (zlib.crc32(body), body)


def parse_record(line: bytes) -> dict[str, Any] | None:
    """The record of a complete line (without its line feed), None if it is damaged."""
    try:
        if line[8:9] != b" " or int(line[:8], 16) != zlib.crc32(line[9:]):
            return None
        value = json.loads(line[9:])
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _segments(directory: Path) -> list[Path]:
    return sorted(path for path in directory.iterdir() if path.name.startswith("segment."))


def read_segment(path: Path, *, last: bool) -> Iterator[dict[str, Any]]:
    """Records of one segment after its header. `last`: an incomplete or damaged tail is a crash's lost tail.

    Raises JournalError for damage that complete records follow, and for a newer version.
    """
    content = path.read_bytes()
    lines = content.split(b"\n")
    tail = lines.pop()
    records = [parse_record(line) for line in lines]
    whole = len(records)
    while whole and records[whole - 1] is None:
        whole -= 1
    if not last and (tail or whole < len(records)):
        raise JournalError(f"{path}: line {whole + 1} is damaged and newer segments exist")
    for number, record in enumerate(records[:whole], 1):
        if record is None:
            raise JournalError(f"{path}: line {number} is damaged (crc) and whole records follow it")
        if number > 1:
            yield record
        elif record.get("journal") != VERSION:
            found = record.get("journal")
            raise JournalError(
                f"{path}: journal version {found!r}, this program reads {VERSION}: use the program that wrote it, "
                "let it drain, then start with an empty state directory"
            )


@dataclass(slots=True)
class FileStore:
    """Implements `ports.Store` on a state directory for the lease of `epoch`."""

    state_dir: Path
    epoch: int
    segment_max_bytes: int = SEGMENT_MAX_BYTES
    _fd: int | None = field(default=None, init=False)
    _segment: int = field(default=0, init=False)
    _size: int = field(default=0, init=False)

    def load(self) -> Sequence[Mapping[str, Any]]:
        """Every record of every epoch, oldest first. Raises JournalError and OSError."""
        epochs = sorted(
            int(match.group(1)) for name in os.listdir(self.state_dir) if (match := _EPOCH.fullmatch(name))
        )
        records: list[Mapping[str, Any]] = []
        for epoch in epochs:
            segments = _segments(self.state_dir / f"journal.{epoch}")
            for path in segments:
                records.extend(read_segment(path, last=path == segments[-1]))
        return records

    def append(self, commit: int, records: Sequence[Mapping[str, Any]]) -> Appended | Failure:
        """Write and fsync the records in one go; then read which epoch is in charge."""
        content = b"".join(render_record(record) for record in records)
        try:
            self._open_segment(len(content))
            assert self._fd is not None
            view = memoryview(content)
            while view:
                view = view[os.write(self._fd, view) :]
            os.fdatasync(self._fd)
            self._size += len(content)
            return Appended(commit, highest_epoch(self.state_dir))
        except OSError as error:
            self._abandon()
            return Unavailable(f"journal: {error.strerror or error}")

    def close(self) -> None:
        """Close the open segment."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _open_segment(self, coming: int) -> None:
        if self._fd is not None and self._size + coming <= self.segment_max_bytes:
            return
        self.close()
        directory = self.state_dir / f"journal.{self.epoch}"
        directory.mkdir(exist_ok=True)
        path = directory / f"segment.{self._segment + 1:06d}"
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)
        self._segment += 1
        header = render_record({"journal": VERSION, "epoch": self.epoch, "segment": self._segment})
        os.write(self._fd, header)
        self._size = len(header)
        sync_directory(directory)
        sync_directory(self.state_dir)

    def _abandon(self) -> None:
        """After a failed write nothing half-written may count later: cut back, else never write behind it."""
        if self._fd is None:
            return
        try:
            os.ftruncate(self._fd, self._size)
            os.fsync(self._fd)
        except OSError:
            pass
        finally:
            self.close()
