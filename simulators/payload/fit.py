"""From raw hits to tracks. Pure: arrays in, arrays out.

Hits are turned into places and times with the constants, hot strips are left out, hits of an event that are close in
time make a track candidate, and a straight line is fitted to each by weighted least squares; hits that do not fit
their track are dropped, the worst first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from simulators.payload.constants import HOT_OCCUPANCY_PPM, PlaneConstants
from simulators.payload.detector import direction
from simulators.payload.raw import CHANNELS_PER_STRIP, Plane, RawEvents

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

# hits of one track are within some resolutions (1.5 ns) of each other; tracks are at least 65 ns apart
TIME_GAP_NS = 12.0
HITS_MIN = 20
# a hit is dropped when it is this far off in resolutions, or in units of the track's own spread if that is wider:
# so a whole plane that is shifted stays visible as such
OUTLIER = 8.0
OUTLIER_ROUNDS = 6
PARAMETERS = 4
# the fit's reference plane in the middle of the spectrometer, and metres along the beam, keep the matrices tame
REFERENCE_Z_MM = 8000.0
MM_PER_M = 1000.0


@dataclass(frozen=True, slots=True)
class Tracks:
    """Fitted tracks, in event order. `pull` (tracks x planes) is residual over resolution, NaN where no hit is used.

    x, y in mm at z = 0; tx, ty slopes; time in ns; `event` counts from 0 in the file.
    """

    event: Ints
    x: Floats
    y: Floats
    tx: Floats
    ty: Floats
    time: Floats
    chi2: Floats
    ndf: Ints
    pull: Floats


def fit_tracks(events: RawEvents, constants: Mapping[str, PlaneConstants]) -> Tracks:
    """Find and fit the tracks of all events with the given constants (by plane name, every plane of the header)."""
    planes = events.header.planes
    sigma = _column(planes, constants, "sigma_mm")
    event, place, time_ns = _candidates(events, constants)
    design = _design(planes)
    used = ~_isnan(place)
    for _ in range(OUTLIER_ROUNDS):
        enough = used.sum(axis=1) >= HITS_MIN
        event, place, time_ns, used = event[enough], place[enough], time_ns[enough], used[enough]
        line = _fit(design, sigma, place, used)
        pull = _pulls(design, sigma, place, used, line)
        worst = _worst(pull)
        if not worst.any():
            break
        used &= ~worst
    return _tracks(event, time_ns, line, pull)


def _isnan(values: Floats) -> NDArray[np.bool_]:
    import numpy as np

    return np.isnan(values)


def _column(planes: Sequence[Plane], constants: Mapping[str, PlaneConstants], name: str) -> Floats:
    import numpy as np

    return np.array([getattr(constants[plane.name], name) for plane in planes], dtype=np.float64)


def _design(planes: Sequence[Plane]) -> Floats:
    """planes x (x, tx, y, ty): what each plane measures of a line, z in metres from the reference plane."""
    import numpy as np

    rows = []
    for plane in planes:
        cos, sin, z_mm = direction(plane)
        z_m = (z_mm - REFERENCE_Z_MM) / MM_PER_M
        rows.append((cos, cos * z_m, sin, sin * z_m))
    return np.array(rows)


def _calibrated(events: RawEvents, constants: Mapping[str, PlaneConstants]) -> tuple[Floats, Floats, Any]:
    """Place (mm) and time (ns) of every hit, and whether its strip is a quiet one of the plane."""
    import numpy as np

    planes = events.header.planes
    strips = np.array([plane.strips for plane in planes])
    first = np.concatenate(([0], np.cumsum(strips)))[:-1]
    strip_um, strip_ps, occupancy = (
        np.concatenate([getattr(constants[plane.name], name) for plane in planes])
        for name in ("strip_um", "strip_ps", "occupancy_ppm")
    )
    pitch = np.array([plane.pitch_nm / 1e6 for plane in planes]) * (1 + _column(planes, constants, "scale"))
    plane = events.plane
    nearest = np.minimum(events.channel // CHANNELS_PER_STRIP, strips[plane] - 1)
    index = first[plane] + nearest
    # half a count: the read-out cuts off
    strip = (events.channel + 0.5) / CHANNELS_PER_STRIP - strips[plane] / 2
    place = _column(planes, constants, "offset_mm")[plane] + strip * pitch[plane] + strip_um[index] / 1e3
    late_ns = _column(planes, constants, "t0_ns")[plane] + strip_ps[index] / 1e3
    time_ns = events.time * _column(planes, constants, "bin_ns")[plane] - late_ns
    return place, time_ns, occupancy[index] <= HOT_OCCUPANCY_PPM


def _candidates(events: RawEvents, constants: Mapping[str, PlaneConstants]) -> tuple[Ints, Floats, Floats]:
    """Track candidates: event of each, places (candidates x planes, NaN without a single hit there), mean time."""
    import numpy as np

    n_planes = len(events.header.planes)
    place, time_ns, quiet = _calibrated(events, constants)
    event: Ints = np.repeat(np.arange(len(events.hit_counts), dtype=np.int64), events.hit_counts)
    order = np.flatnonzero(quiet)
    order = order[np.lexsort((time_ns[order], event[order]))]
    place, time_ns, event, plane = place[order], time_ns[order], event[order], events.plane[order]
    new = np.ones(len(order), dtype=bool)
    new[1:] = (event[1:] != event[:-1]) | (np.diff(time_ns) > TIME_GAP_NS)
    cluster = np.cumsum(new) - 1
    n_clusters = int(new.sum())
    cell = cluster * n_planes + plane
    hits = np.bincount(cell, minlength=n_clusters * n_planes).reshape(n_clusters, n_planes)
    # of no hit at all, bincount makes whole numbers
    places = np.bincount(cell, weights=place, minlength=n_clusters * n_planes).astype(np.float64)
    places = places.reshape(n_clusters, n_planes)
    places[hits != 1] = np.nan
    size = np.bincount(cluster, minlength=n_clusters)
    enough = size >= HITS_MIN
    mean_time = np.bincount(cluster, weights=time_ns, minlength=n_clusters)[enough] / size[enough]
    return event[new][enough].astype(np.int64), places[enough].astype(np.float64), mean_time


def _fit(design: Floats, sigma: Floats, place: Floats, used: NDArray[np.bool_]) -> Floats:
    """Weighted least squares of every candidate at once (normal equations). Candidates x 4 parameters."""
    import numpy as np

    weight = used / sigma**2
    products = (design[:, :, None] * design[:, None, :]).reshape(len(design), -1)
    matrix = (weight @ products).reshape(-1, PARAMETERS, PARAMETERS)
    vector = (weight * np.where(used, place, 0.0)) @ design
    solved: Floats = np.linalg.solve(matrix, vector[:, :, None])[:, :, 0].astype(np.float64)
    return solved


def _pulls(design: Floats, sigma: Floats, place: Floats, used: NDArray[np.bool_], line: Floats) -> Floats:
    import numpy as np

    return np.where(used, (place - line @ design.T) / sigma, np.nan)


def _worst(pull: Floats) -> NDArray[np.bool_]:
    """The worst hit of every candidate, where it is too far off."""
    import numpy as np

    worst = np.zeros(pull.shape, dtype=bool)
    if len(pull):
        size = np.abs(pull)
        limit = OUTLIER * np.maximum(1.0, np.nanmedian(size, axis=1))
        index = np.nanargmax(size, axis=1)
        rows = np.arange(len(pull))
        worst[rows, index] = size[rows, index] > limit
    return worst


def _tracks(event: Ints, time_ns: Floats, line: Floats, pull: Floats) -> Tracks:
    import numpy as np

    x, tx, y, ty = line.T
    back_m = -REFERENCE_Z_MM / MM_PER_M
    return Tracks(
        event=event,
        x=x + tx * back_m,
        y=y + ty * back_m,
        tx=tx / MM_PER_M,
        ty=ty / MM_PER_M,
        time=time_ns,
        chi2=np.nansum(pull**2, axis=1),
        ndf=(~np.isnan(pull)).sum(axis=1) - PARAMETERS,
        pull=pull,
    )
