"""One reconstruction job: a raw file in, mDST, histograms and event dump out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from simulators.payload import dump, histograms, mdst, raw
from simulators.payload.calibration_source import fetch_constants
from simulators.payload.exits import Exit, PayloadError
from simulators.payload.fit import Tracks, fit_tracks
from simulators.payload.placement import new_file

END_MARKER = "End of Job"


@dataclass(frozen=True, slots=True)
class Reconstruction:
    """What to do. `calibrations_of_run` None: those of the raw file's own run, the only right ones."""

    raw_file: Path
    mdst_file: Path
    hist_file: Path
    dump_file: Path
    calibrations_of_run: int | None = None


def reconstruct(job: Reconstruction, environment: Mapping[str, str]) -> None:
    """Carry out a job, reporting on stdout; the last line is the end marker. Raises PayloadError.

    The outputs become visible one after the other, each complete; none does when anything before it failed.
    """
    events = _read(job.raw_file)
    header = events.header
    print(f"{job.raw_file}: run {header.run}, chunk {header.chunk}, {len(header.planes)} planes")
    print(f"{header.events} events had been read")
    run = header.run if job.calibrations_of_run is None else job.calibrations_of_run
    constants, fetched = fetch_constants(header.planes, run, environment)
    print(f"{fetched} calibrations of run {run} had been fetched")
    tracks = fit_tracks(events, constants)
    print(f"{len(tracks.event)} tracks had been fitted")
    columns = mdst.columns_of(header, tracks)
    with new_file(job.mdst_file) as temp:
        mdst.write_mdst(temp, columns)
    with new_file(job.hist_file) as temp:
        histograms.write_histograms(temp, histograms.fill_histograms(header, tracks))
    selected = list(_selected(header, tracks))
    with new_file(job.dump_file) as temp:
        temp.write_bytes(dump.render_dump(header.run, header.chunk, selected))
    print(f"{len(selected)} events had been written to the event dump")
    print(f"{len(columns['event'])} events had been written to miniDST")
    print(END_MARKER)


def _read(path: Path) -> raw.RawEvents:
    try:
        return raw.read_events(path)
    except raw.RawFileError as error:
        raise PayloadError(Exit.RAW_DAMAGED, str(error)) from error
    except OSError as error:
        raise PayloadError(Exit.INPUT_MISSING, f"cannot read {path}: {error.strerror or error}") from error


def _selected(header: raw.RawHeader, tracks: Tracks) -> Iterator[tuple[int, list[tuple[float, ...]]]]:
    """Events with at least TRACKS_MIN tracks, and what the dump says about each track."""
    import numpy as np

    counts = np.bincount(tracks.event, minlength=header.events)
    rows = np.stack([tracks.x, tracks.y, tracks.tx, tracks.ty, tracks.time, tracks.chi2], axis=1)
    for event in np.flatnonzero(counts >= dump.TRACKS_MIN).tolist():
        yield event, [tuple(row) for row in rows[tracks.event == event].tolist()]
