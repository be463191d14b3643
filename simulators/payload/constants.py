"""The true constants of the pretended spectrometer, a pure function of (seed, run, plane).

The generator of raw files bends its hits with them, the calibration data set carries them; nothing else knows them.

Runs differ so that wrong constants cannot pass for right ones: in units of the plane's typical resolution, the
offsets of run r are `LEVEL_STEP * level(r)` times a sign pattern over the planes that no straight track can follow.
Sixteen levels, in an order drawn from the seed; so of any sixteen consecutive runs no two share one, and residuals
with another run's constants are off by more than five resolutions in every plane.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from simulators.payload.detector import station_and_view, typical_sigma_mm
from simulators.payload.raw import Plane

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LEVELS = 16
LEVEL_STEP = 10.0
OFFSET_JITTER = 0.4
NOISE_RUNS = 4
HOT_OCCUPANCY_PPM = 20_000
T0_NS = 400.0
T0_SPREAD_NS = 3.0


@dataclass(frozen=True, slots=True)
class PlaneConstants:
    """Constants of one plane for one run. Arrays have one number per strip.

    Place across the plane, with s the strip coordinate: offset_mm + (1 + scale) (s - strips/2) pitch + strip_um/1000.
    Time: counts * bin_ns - t0_ns - strip_ps/1000. Strips above HOT_OCCUPANCY_PPM are noise and not used.
    """

    offset_mm: float
    scale: float
    strip_um: NDArray[np.int64]
    t0_ns: float
    bin_ns: float
    strip_ps: NDArray[np.int64]
    sigma_mm: float
    occupancy_ppm: NDArray[np.int64]


def true_constants(seed: int, run: int, plane: Plane) -> PlaneConstants:
    """Constants of a plane in a run. `noise` (resolution, occupancies) changes every NOISE_RUNS runs, the rest each."""
    noise = _generator(seed, plane.name, "noise", run // NOISE_RUNS)
    sigma_mm = round(typical_sigma_mm(plane) * noise.uniform(0.9, 1.1), 5)
    occupancy = noise.integers(10, 900, plane.strips)
    hot = noise.choice(plane.strips, size=max(1, plane.strips // 256), replace=False)
    occupancy[hot] = noise.integers(2 * HOT_OCCUPANCY_PPM, 5 * HOT_OCCUPANCY_PPM, len(hot))
    align = _generator(seed, plane.name, "align", run)
    shift = LEVEL_STEP * _level(seed, run) * _sign(plane) + align.uniform(-OFFSET_JITTER, OFFSET_JITTER)
    scale = round(align.uniform(-2e-4, 2e-4), 7)
    strip_um = align.normal(0.0, 150.0 * sigma_mm, plane.strips).round().astype("i8")
    timing = _generator(seed, plane.name, "timing", run)
    return PlaneConstants(
        offset_mm=round(shift * typical_sigma_mm(plane), 5),
        scale=scale,
        strip_um=strip_um,
        t0_ns=round(T0_NS + timing.uniform(-T0_SPREAD_NS, T0_SPREAD_NS), 3),
        bin_ns=round(timing.uniform(0.4975, 0.5025), 5),
        strip_ps=timing.normal(0.0, 300.0, plane.strips).round().astype("i8"),
        sigma_mm=sigma_mm,
        occupancy_ppm=occupancy,
    )


def _generator(seed: int, *words: object) -> np.random.Generator:
    import numpy as np

    return np.random.default_rng([seed, *(zlib.crc32(str(word).encode()) for word in words)])


def _level(seed: int, run: int) -> float:
    order = _generator(seed, "levels").permutation(LEVELS)
    return float(order[run % LEVELS]) - (LEVELS - 1) / 2


def _sign(plane: Plane) -> int:
    """+ - - + along the stations of each view: without mean and without slope, as far as ten stations allow."""
    station, view = station_and_view(plane)
    pattern = (1, -1, -1, 1)
    return pattern[(station + view) % 4]
