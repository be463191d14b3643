"""The reconstruction of one raw file: raw events, calibrations of its run, tracks, three products, one end marker."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from simulators.payload.exits import Exit, PayloadError
from simulators.payload.placement import new_file
from simulators.payload.raw import RawEvents, RawFileError, read_events


def run_reconstruction(arguments: argparse.Namespace, environment: Mapping[str, str]) -> None:
    """Reconstruct `arguments.raw` into mDST, histograms and event dump. Raises PayloadError; no default constants."""
    from simulators.payload.calibration_source import fetch_constants
    from simulators.payload.fit import fit_tracks
    from simulators.payload.histograms import fill_histograms, write_histograms
    from simulators.payload.mdst import columns_of, write_mdst

    events = _read(arguments.raw)
    header = events.header
    run = header.run if arguments.calibrations_of_run is None else arguments.calibrations_of_run
    constants, fetched = fetch_constants(header.planes, run, environment)
    print(f"run {header.run} chunk {header.chunk}: {fetched} calibrations of run {run}")
    print(f"{header.events} events had been read")
    tracks = fit_tracks(events, constants)
    with new_file(Path(arguments.mdst)) as temp:
        write_mdst(temp, columns_of(header, tracks))
    with new_file(Path(arguments.hist)) as temp:
        write_histograms(temp, fill_histograms(header, tracks))
    with new_file(Path(arguments.dump)) as temp:
        temp.write_bytes(_dump(events, tracks))
    print(f"{header.events} events had been written to miniDST")
    print("End of Job")


def _read(path: str) -> RawEvents:
    try:
        return read_events(path)
    except RawFileError as error:
        raise PayloadError(Exit.RAW_DAMAGED, str(error)) from error
    except OSError as error:
        raise PayloadError(Exit.INPUT_MISSING, f"{path}: {error.strerror}") from error


def _dump(events: RawEvents, tracks: Any) -> bytes:
    """Events with at least three tracks, with their parameters."""
    from simulators.payload.dump import render_dump

    return render_dump(events.header.run, events.header.chunk, _selected(tracks))


def _selected(tracks: Any) -> Iterator[tuple[int, list[tuple[float, ...]]]]:
    from simulators.payload.dump import TRACKS_MIN

    found: dict[int, list[tuple[float, ...]]] = {}
    columns = zip(
        tracks.event, tracks.x, tracks.y, tracks.tx, tracks.ty, tracks.time, tracks.chi2, strict=True
    )
    for event, *values in columns:
        found.setdefault(int(event), []).append(tuple(float(value) for value in values))
    return ((event, rows) for event, rows in sorted(found.items()) if len(rows) >= TRACKS_MIN)
