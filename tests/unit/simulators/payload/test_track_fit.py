"""The fit: right constants give centred residuals, any other run's do not, noise does not make tracks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from simulators.payload.constants import LEVELS, true_constants
from simulators.payload.detector import tracking_planes
from simulators.payload.fit import Tracks, fit_tracks
from simulators.payload.generation import Chunk, render_chunk
from simulators.payload.raw import RawEvents, read_events

SEED = 3
RUNS = tuple(range(274495, 274495 + LEVELS))


def events_of(directory: Path, chunk: Chunk) -> RawEvents:
    path = directory / "x.raw"
    path.write_bytes(render_chunk(chunk, SEED))
    return read_events(path)


def fitted(events: RawEvents, run: int) -> Tracks:
    return fit_tracks(events, {plane.name: true_constants(SEED, run, plane) for plane in tracking_planes()})


def by_level() -> list[int]:
    plane = tracking_planes()[0]
    return sorted(RUNS, key=lambda run: true_constants(SEED, run, plane).offset_mm)


@pytest.mark.parametrize("index", range(LEVELS - 1))
def test_neighbouring_levels_are_five_resolutions_apart_in_every_plane(tmp_path: Path, index: int) -> None:
    """The two runs that are hardest to tell apart, for each level."""
    run, other = by_level()[index : index + 2]
    events = events_of(tmp_path, Chunk(run, 11001, 60))
    assert np.abs(np.nanmean(fitted(events, other).pull, axis=0)).min() > 5
    assert np.abs(np.nanmean(fitted(events, run).pull, axis=0)).max() < 1


def test_almost_every_true_track_is_found_and_no_other(tmp_path: Path) -> None:
    tracks = fitted(events_of(tmp_path, Chunk(RUNS[0], 11001, 1000)), RUNS[0])
    per_event = np.bincount(tracks.event, minlength=1000)
    assert per_event.max() <= 3
    assert (per_event >= 1).mean() > 0.99
    assert np.nanstd(tracks.pull) == pytest.approx(1.0, abs=0.08)
    assert (tracks.ndf == (~np.isnan(tracks.pull)).sum(axis=1) - 4).all()


def test_slopes_and_places_are_those_of_the_target_region(tmp_path: Path) -> None:
    tracks = fitted(events_of(tmp_path, Chunk(RUNS[0], 11001, 1000)), RUNS[0])
    for place, slope in ((tracks.x, tracks.tx), (tracks.y, tracks.ty)):
        assert np.std(place) == pytest.approx(15, rel=0.15)
        assert np.std(slope) == pytest.approx(0.008, rel=0.15)


def test_quiet_chunk_has_no_event_with_three_tracks(tmp_path: Path) -> None:
    tracks = fitted(events_of(tmp_path, Chunk(RUNS[0], 11001, 1000, quiet=True)), RUNS[0])
    assert np.bincount(tracks.event).max() == 2


def test_without_events_there_are_no_tracks(tmp_path: Path) -> None:
    tracks = fitted(events_of(tmp_path, Chunk(RUNS[0], 11001, 0)), RUNS[0])
    assert len(tracks.event) == len(tracks.pull) == 0
    assert tracks.pull.shape == (0, 40)
