"""The daemon's journal: one directory per epoch with segments (pilot.segments), one fsync per commit.

A segment gets its name when its header is durable.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pilot.files import sync_directory, write_all
from pilot.lease import highest_epoch
from pilot.mending import sound_counts
from pilot.ports import Appended, Failure, Unavailable
from pilot.segments import (
    VERSION,
    JournalDamaged,
    Reach,
    reach_of,
    render_end,
    render_record,
    segment_path,
)
from pilot.snapshots import bytes_behind, epoch_directory, newest_snapshot, older_counts, read_counted

LOG = logging.getLogger("pilot")
# What a start reads behind the newest snapshot of the journal.
SEGMENT_MAX_BYTES = 64 * 1024 * 1024
_EPOCH = re.compile(r"journal\.(\d{1,9})")


@dataclass(slots=True)
class FileStore:
    """Implements `ports.Store` on a state directory for the lease of `epoch`."""

    state_dir: Path
    epoch: int
    segment_max_bytes: int = SEGMENT_MAX_BYTES
    # of the snapshots that it may read, None: it reads none
    schema: str | None = None
    # whether `load` goes on with what precedes damage (pilot.mending); then what is damaged, "" for nothing
    mends: bool = False
    damage: str = field(default="", init=False)
    _fd: int | None = field(default=None, init=False)
    _segment: int = field(default=0, init=False)
    # bytes that count: of the newest segment, of its header alone, and of the segment before it
    _size: int = field(default=0, init=False)
    _header_bytes: int = field(default=0, init=False)
    _previous_bytes: int = field(default=0, init=False)
    # what `load` reads behind the snapshot
    load_bytes: int = field(default=0, init=False)
    # None: not read yet
    _older: dict[int, Reach] | None = field(default=None, init=False)

    def load(self) -> Iterator[Mapping[str, Any]]:
        """Every record that counts, oldest epoch first; what comes to an older epoch after this call never will.

        With a `schema`, the records of the newest snapshot stand for those that it covers. They come one by one: all
        together would need ten times the memory of what they tell. Raises JournalError and OSError, now or where it
        meets the damage; a store that mends raises them for another version only.
        """
        counts = self._counts()
        known = newest_snapshot(self.state_dir, counts, self.schema) if counts and self.schema else None
        if self.mends:
            counts, problem = sound_counts(self.state_dir, counts, known)
            self.damage = self.damage or problem
            self._keep_older(counts)
        self.load_bytes = bytes_behind(self.state_dir, counts, known)
        return read_counted(self.state_dir, counts, known)

    def _counts(self) -> dict[int, Reach]:
        """How much of every epoch counts now; what is older than this one is kept for its header."""
        epochs = self._epochs()
        begun = [epoch for epoch in epochs if segment_path(self._directory(epoch), 1).exists()]
        counts: dict[int, Reach] = {}
        for newest in reversed(begun):
            # The newest one that began says what of all older ones counts: it read them through the one before it.
            try:
                counts = older_counts(self.state_dir, newest)
            except JournalDamaged as error:
                if not self.mends:
                    raise
                self.damage = str(error)
                continue
            counts[newest] = reach_of(self._directory(newest), sound=not self.mends)
            break
        self._keep_older(counts)
        return counts

    def _keep_older(self, counts: Mapping[int, Reach]) -> None:
        self._older = {epoch: reach for epoch, reach in counts.items() if epoch < self.epoch}

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
            appended = Appended(commit, highest_epoch(self.state_dir), self._segment - 1)
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
        return epoch_directory(self.state_dir, epoch)

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
            os.rename(private, segment_path(directory, number))
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
