"""Snapshots of the journal: files `snapshot.<epoch>.<segment>`, the state after that segment of that epoch.

Built like a segment (pilot.segments) with one commit. The header says under "snapshot" which records it stands for:
{"epoch", "segment", "bytes" of that segment, "older" as the epoch's own header has it, "schema"}. The journal is
the truth and stays whole: a snapshot that is damaged, of another schema, or of records that do not count is passed
over, and the start takes longer.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pilot.files import sync_directory, write_all
from pilot.segments import (
    VERSION,
    JournalError,
    Reach,
    previous_bytes,
    read_epoch,
    read_header,
    read_segment,
    render_end,
    render_record,
    scan_segment,
    segment_numbers,
    segment_path,
)

LOG = logging.getLogger("pilot")
# The newest, and the one before it: what a crash of the machine may damage is written last.
KEPT = 2
_NAME = re.compile(r"snapshot\.(\d{1,9})\.(\d{6,9})")
_PRIVATE = re.compile(r"\.snapshot\.\d{1,9}\.\d{6,9}\.\d+")
_WRITE_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Covered:
    """The records that a snapshot stands for: all of `older` epochs, and of `epoch` so many segments."""

    epoch: int
    segment: int
    size: int
    older: Mapping[int, Reach]

    def counts_in(self, counts: Mapping[int, Reach]) -> bool:
        """Whether all of them count, and of older epochs nothing else does."""
        number, size = counts.get(self.epoch, (-1, 0))
        same = {epoch: reach for epoch, reach in counts.items() if epoch < self.epoch} == self.older
        return same and (number > self.segment or (number, size) == (self.segment, self.size))


def epoch_directory(state_dir: Path, epoch: int) -> Path:
    """Where the segments of one epoch are."""
    return state_dir / f"journal.{epoch}"


def older_counts(state_dir: Path, epoch: int) -> dict[int, Reach]:
    """How much of every older epoch this one had read. Raises JournalError and OSError."""
    header = read_header(segment_path(epoch_directory(state_dir, epoch), 1))
    return {int(older): (number, size) for older, (number, size) in header.get("older", {}).items()}


def covered_until(state_dir: Path, epoch: int, segment: int) -> Covered:
    """What a snapshot after a sealed segment stands for; segment 0: what the epoch began with."""
    size = previous_bytes(segment_path(epoch_directory(state_dir, epoch), segment + 1)) if segment else 0
    return Covered(epoch, segment, size, older_counts(state_dir, epoch))


def read_covered(state_dir: Path, covered: Covered, schema: str) -> Iterator[dict[str, Any]]:
    """The records that a snapshot stands for, through an older snapshot where there is one."""
    counts = {**covered.older, covered.epoch: (covered.segment, covered.size)}
    return read_counted(state_dir, counts, newest_snapshot(state_dir, counts, schema))


def read_counted(
    state_dir: Path, counts: Mapping[int, Reach], known: Covered | None
) -> Iterator[dict[str, Any]]:
    """Records of a snapshot, if any, then those that count and follow it. Raises JournalError and OSError."""
    if known is not None:
        yield from read_segment(_path(state_dir, known), last=False)
    for epoch in sorted(counts):
        if known is None or epoch > known.epoch:
            yield from read_epoch(epoch_directory(state_dir, epoch), counts[epoch])
        elif epoch == known.epoch:
            yield from read_epoch(epoch_directory(state_dir, epoch), counts[epoch], known.segment)


def bytes_behind(state_dir: Path, counts: Mapping[int, Reach], known: Covered | None) -> int:
    """Size of the segments that `read_counted` reads after the snapshot. Raises OSError."""
    total = 0
    for epoch, (last, _) in counts.items():
        if known is None or epoch >= known.epoch:
            after = known.segment if known is not None and epoch == known.epoch else 0
            directory = epoch_directory(state_dir, epoch)
            numbers = (number for number in segment_numbers(directory) if after < number <= last)
            total += sum(segment_path(directory, number).stat().st_size for number in numbers)
    return total


def newest_snapshot(state_dir: Path, counts: Mapping[int, Reach], schema: str) -> Covered | None:
    """The newest whole snapshot of records that count, None if there is none."""
    names = [match for name in os.listdir(state_dir) if (match := _NAME.fullmatch(name))]
    for match in sorted(names, key=lambda m: (int(m[1]), int(m[2])), reverse=True):
        try:
            found, problem = _look(state_dir / match[0], schema)
        except (OSError, JournalError) as error:
            found, problem = None, str(error)
        if found is not None and found.counts_in(counts):
            return found
        LOG.warning("%s is passed over: %s", match[0], problem or "not all it stands for counts")
    return None


def _look(path: Path, schema: str) -> tuple[Covered | None, str]:
    """What a file stands for, or why it is not used. Raises JournalError and OSError."""
    scan = scan_segment(path)
    whole, _ = scan.whole(last=False)
    told = scan.header.get("snapshot")
    if whole < 2 or whole < scan.lines or scan.torn or not isinstance(told, dict):
        return None, "it is not whole"
    if scan.header.get("journal") != VERSION or told.get("schema") != schema:
        return None, "another version of the program wrote it"
    older = {int(epoch): (number, size) for epoch, (number, size) in told["older"].items()}
    return Covered(told["epoch"], told["segment"], told["bytes"], older), ""


def write_snapshot(
    state_dir: Path, covered: Covered, schema: str, records: Iterable[Mapping[str, Any]]
) -> None:
    """Durable under its name, or not there; older ones than the newest `KEPT` go. Raises OSError."""
    path = _path(state_dir, covered)
    private = state_dir / f".{path.name}.{os.getpid()}"
    told = {
        "epoch": covered.epoch,
        "segment": covered.segment,
        "bytes": covered.size,
        "older": {str(epoch): reach for epoch, reach in covered.older.items()},
        "schema": schema,
    }
    fd = os.open(private, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        chunk, count = bytearray(render_record({"journal": VERSION, "snapshot": told})), 0
        for record in records:
            chunk += render_record(record)
            count += 1
            if len(chunk) >= _WRITE_BYTES:
                write_all(fd, bytes(chunk))
                chunk.clear()
        write_all(fd, bytes(chunk) + render_end(count))
        os.fsync(fd)
        os.rename(private, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(private)
        raise
    finally:
        os.close(fd)
    sync_directory(state_dir)
    _remove_older(state_dir)


def _remove_older(state_dir: Path) -> None:
    names = os.listdir(state_dir)
    found = sorted((int(m[1]), int(m[2]), m[0]) for name in names if (m := _NAME.fullmatch(name)))
    for name in [*(name for _, _, name in found[:-KEPT]), *filter(_PRIVATE.fullmatch, names)]:
        with contextlib.suppress(OSError):
            os.unlink(state_dir / name)


def _path(state_dir: Path, covered: Covered) -> Path:
    return state_dir / f"snapshot.{covered.epoch}.{covered.segment:06d}"
