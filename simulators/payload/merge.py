"""Merge jobs: the mDSTs, histograms or event dumps of chunks of one run become one file (or pieces of a limited size).

Every input is read whole and checked before an output becomes visible. Inputs are joined in the order of the list.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from simulators.payload import dump, histograms, mdst
from simulators.payload.exits import Exit, PayloadError
from simulators.payload.placement import new_file
from simulators.payload.reconstruct import END_MARKER
from simulators.payload.rootfiles import RootFileError

T = TypeVar("T")

# a piece that came out too large is cut to this part of what would just have fitted
SHRINK = 0.97


@dataclass(frozen=True, slots=True)
class Limits:
    """Largest piece of a merged mDST; both None: one piece, whatever its size."""

    events: int | None = None
    size_bytes: int | None = None


def read_input_list(path: Path) -> list[Path]:
    """Input files, one absolute path a line; blank lines do not count.

    Raises PayloadError: INPUT_MISSING when the list cannot be read, USAGE for an empty one, a path that is not
    absolute or one that is there twice.
    """
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise PayloadError(Exit.INPUT_MISSING, f"cannot read the input list {path}: {error}") from error
    inputs: list[Path] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        entry = Path(line.strip())
        if not entry.is_absolute() or entry in inputs:
            raise PayloadError(Exit.USAGE, f"{path}:{number}: found {line!r}, expected another absolute path")
        inputs.append(entry)
    if not inputs:
        raise PayloadError(Exit.USAGE, f"{path}: no input file named")
    return inputs


def piece_path(out: Path, index: int) -> Path:
    """Name of a piece: the first has no suffix, then `.001`, `.002`..."""
    return out if index == 0 else out.with_name(f"{out.name}.{index:03d}")


def merge_mdst(inputs: list[Path], out: Path, limits: Limits) -> None:
    """Join mDSTs. Events are conserved: each piece is opened and counted before it becomes visible.

    When a later piece fails, those before it stay; without the end marker they are no merged run.
    """
    parts = [_checked(path, mdst.read_mdst) for path in inputs]
    try:
        columns = mdst.join_columns(parts)
    except ValueError as error:
        raise PayloadError(Exit.INPUT_DAMAGED, f"inputs are not alike: {error}") from error
    total = len(columns["event"])
    first = index = 0
    while index == 0 or first < total:
        first = _write_piece(columns, first, piece_path(out, index), limits)
        index += 1
    _report(total)


def _write_piece(columns: mdst.Columns, first: int, target: Path, limits: Limits) -> int:
    """Write the next piece, as many events as the limits allow; returns the first event of the one after it.

    Compression cannot be foretold: a piece that is larger than allowed is written again with fewer events.
    """
    total = len(columns["event"])
    last = total if limits.events is None else min(total, first + limits.events)
    with new_file(target) as temp:
        while True:
            mdst.write_mdst(temp, mdst.slice_columns(columns, first, last))
            size = temp.stat().st_size
            if limits.size_bytes is None or size <= limits.size_bytes:
                break
            if last - first == 1:
                message = f"{target}: {size} bytes with a single event, expected at most {limits.size_bytes}"
                raise PayloadError(Exit.USAGE, message)
            fewer = max(1, min(int((last - first) * limits.size_bytes / size * SHRINK), last - first - 1))
            last = first + fewer
        written = _checked(temp, mdst.count_entries)
        if written != last - first:
            raise PayloadError(
                Exit.OUTPUT_FAILED, f"{target}: {written} events in it, expected {last - first}"
            )
    print(f"{target.name}: {last - first} events, {size} bytes")
    return last


def merge_hist(inputs: list[Path], out: Path) -> None:
    """Sum histograms bin by bin, like with like."""
    parts = [(str(path), _checked(path, histograms.read_histograms)) for path in inputs]
    try:
        total = histograms.sum_histograms(parts)
        events = histograms.count_events(total)
    except RootFileError as error:
        raise PayloadError(Exit.INPUT_DAMAGED, str(error)) from error
    with new_file(out) as temp:
        histograms.write_histograms(temp, total)
    _report(events)


def merge_dump(inputs: list[Path], out: Path) -> None:
    """Concatenate event dumps. Placeholders add nothing; nothing but placeholders gives a placeholder."""
    events = sum(_checked(path, dump.count_events) for path in inputs)
    wanted = [path for path in inputs if not _checked(path, dump.is_placeholder)]
    expected = sum(_checked(path, dump.event_bytes) for path in wanted)
    with new_file(out) as temp:
        with temp.open("wb") as stream:
            for path in wanted:
                with path.open("rb") as source:
                    shutil.copyfileobj(source, stream)
            if not wanted:
                stream.write(dump.PLACEHOLDER)
        written = os.path.getsize(temp)
        if wanted and written != expected:
            raise PayloadError(Exit.OUTPUT_FAILED, f"{out}: {written} bytes written, expected {expected}")
    print(f"{out.name}: {written} bytes from {len(wanted)} of {len(inputs)} dumps")
    _report(events)


def _report(events: int) -> None:
    print(f"Number of events saved to output : {events}")
    print(END_MARKER)


def _checked(path: Path, read: Callable[[Path], T]) -> T:
    """What `read` says of an input, its failures as exit codes."""
    try:
        return read(path)
    except (RootFileError, dump.DumpError) as error:
        raise PayloadError(Exit.INPUT_DAMAGED, str(error)) from error
    except OSError as error:
        raise PayloadError(Exit.INPUT_MISSING, f"cannot read {path}: {error.strerror or error}") from error
