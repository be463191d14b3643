"""Histogram files: TH1D per plane of the residuals over resolution (`pull_<plane>`), and of the tracks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simulators.payload.raw import RawHeader
from simulators.payload.rootfiles import COMPLETE, RootFileError, check_complete, reading

if TYPE_CHECKING:
    from simulators.payload.fit import Tracks

PULL = "pull_"
N_TRACKS = "n_tracks"
# name -> (bins, low, high). Pulls of another run's constants reach 160; 0.1 wide bins keep a mean of 0.01 visible
PULL_AXIS = (4000, -200.0, 200.0)
TRACK_AXES: dict[str, tuple[int, float, float]] = {
    "chi2_ndf": (200, 0.0, 10.0),
    "slope_x": (200, -0.05, 0.05),
    "slope_y": (200, -0.05, 0.05),
    "time": (200, -250.0, 250.0),
}
N_TRACKS_AXIS = (10, -0.5, 9.5)

# name without cycle -> hist.Hist
Histograms = Mapping[str, Any]


def fill_histograms(header: RawHeader, tracks: Tracks) -> Histograms:
    """All histograms of a chunk."""
    import numpy as np

    values: dict[str, tuple[tuple[int, float, float], Any]] = {
        f"{PULL}{plane.name}": (PULL_AXIS, tracks.pull[:, index][~np.isnan(tracks.pull[:, index])])
        for index, plane in enumerate(header.planes)
    }
    columns = (tracks.chi2 / tracks.ndf, tracks.tx, tracks.ty, tracks.time)
    for (name, axis), column in zip(TRACK_AXES.items(), columns, strict=True):
        values[name] = (axis, column)
    values[N_TRACKS] = (N_TRACKS_AXIS, np.bincount(tracks.event, minlength=header.events))
    return {name: _filled(axis, column) for name, (axis, column) in values.items()}


def write_histograms(path: Path, histograms: Histograms) -> None:
    """Write and close a histogram file at `path` (the caller gives a temp name and renames). Raises OSError."""
    import uproot

    with uproot.recreate(path, compression=uproot.ZLIB(1)) as opened:
        for name, histogram in histograms.items():
            opened[name] = histogram
        opened[COMPLETE] = str(len(histograms))


def read_histograms(path: Path | str) -> Histograms:
    """All histograms of a file. Raises RootFileError when it is not a complete one, OSError when it is not there."""
    with reading(path) as opened:
        classes = {key.partition(";")[0]: name for key, name in opened.classnames(recursive=False).items()}
        others = {key: name for key, name in classes.items() if name != "TH1D" and key != COMPLETE}
        if others:
            raise RootFileError(f"{path}: found {others}, expected TH1D only")
        histograms = {key: opened[key].to_hist() for key in classes if key != COMPLETE}
        check_complete(opened, path, len(histograms))
        return histograms


def sum_histograms(parts: Sequence[tuple[str, Histograms]]) -> Histograms:
    """Bin by bin, flows included, like with like; the strings are names for messages.

    Raises RootFileError when a part lacks a histogram of the first, has another, or one with another axis.
    """
    first_name, first = parts[0]
    total = dict(first)
    for name, part in parts[1:]:
        if part.keys() != total.keys():
            differ = sorted(part.keys() ^ total.keys())[:3]
            raise RootFileError(f"{name}: other histograms than {first_name}: {', '.join(differ)}")
        for key, histogram in part.items():
            if histogram.axes[0] != total[key].axes[0]:
                raise RootFileError(f"{name}: {key} has another axis than in {first_name}")
            total[key] = total[key] + histogram
    return total


def count_events(histograms: Histograms) -> int:
    """Events that went into a set of histograms: entries of `n_tracks`. Raises RootFileError when it is not there."""
    if N_TRACKS not in histograms:
        raise RootFileError(f"no histogram {N_TRACKS}")
    entries: int = round(histograms[N_TRACKS].sum(flow=True))
    return entries


def residual_means(path: Path | str) -> dict[str, float]:
    """Mean normalised residual of each plane with entries, from the bins (flows excluded)."""
    means = {}
    for key, histogram in read_histograms(path).items():
        entries = float(histogram.sum())
        if key.startswith(PULL) and entries:
            means[key.removeprefix(PULL)] = float(
                (histogram.values() * histogram.axes[0].centers).sum() / entries
            )
    return means


def _filled(axis: tuple[int, float, float], values: Any) -> Any:
    import hist

    histogram = hist.Hist(hist.axis.Regular(*axis, name="value"), storage=hist.storage.Double())
    histogram.fill(values)
    return histogram
