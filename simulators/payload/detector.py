"""The pretended spectrometer: names and nominal places of its planes, its calibration keys, and when a run was taken.

218 planes with COMPASS-like names and 363 calibration keys, the figures of the data set that the sizes and times of
`docs/facts/payload.md` were measured with. 40 planes measure tracks; each needs three constants of its run, so a
reconstruction job asks for 120 keys.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

from simulators.payload.raw import Plane

CTYPES = ("align", "timing", "noise")

RUN_ZERO = 274000
RUN_ZERO_S = 1_472_688_000  # 2016-09-01T00:00:00Z
RUN_SPACING_S = 8 * 3600

FIRST_RUN = 274495
FIRST_CHUNK = 11001

# angle of the measured coordinate against x; U and V resolve which x belongs to which y
VIEWS_MRAD = {"X": 0, "U": 785, "V": -785, "Y": 1571}


@dataclass(frozen=True, slots=True)
class Family:
    """Planes of one kind: one per station and view. `sigma_mm` is the typical resolution (tracking families)."""

    prefix: str
    stations: int
    views: str
    strips: int = 0
    pitch_mm: float = 0.0
    first_z_mm: float = 0.0
    station_step_mm: float = 0.0
    sigma_mm: float = 0.0


TRACKING = (
    Family("MM", 3, "XUVY", 1024, 0.5, 1500.0, 700.0, 0.08),
    Family("DC", 3, "XUVY", 512, 1.6, 4000.0, 1000.0, 0.25),
    Family("GM", 4, "XUVY", 768, 0.8, 8000.0, 3000.0, 0.09),
)
OTHERS = (
    Family("SI", 5, "XUVY"),
    Family("FI", 10, "XUY"),
    Family("ST", 6, "XUVY"),
    Family("PA", 6, "XUVY"),
    Family("PB", 6, "XUV"),
    Family("RI", 16, "P"),
    Family("HC", 12, "P"),
    Family("EC", 12, "P"),
    Family("HH", 10, "P"),
    Family("MW", 12, "P"),
)
VIEW_STEP_MM = 20.0
OTHERS_WITH_THREE_TYPES = 20
OTHERS_WITH_TWO_TYPES = 25


def _names(family: Family) -> list[str]:
    return [
        f"{family.prefix}{s:02d}{view}1__" for s in range(1, family.stations + 1) for view in family.views
    ]


@cache
def tracking_planes() -> tuple[Plane, ...]:
    """The planes of the raw files, in order of the hit's plane number (upstream first)."""
    planes = []
    for family in TRACKING:
        places = [(station, view) for station in range(family.stations) for view in range(len(family.views))]
        for name, (station, view) in zip(_names(family), places, strict=True):
            z_mm = family.first_z_mm + station * family.station_step_mm + view * VIEW_STEP_MM
            angle = VIEWS_MRAD[family.views[view]]
            planes.append(Plane(name, family.strips, angle, round(z_mm * 1e3), round(family.pitch_mm * 1e6)))
    return tuple(planes)


def typical_sigma_mm(plane: Plane) -> float:
    """Resolution that planes of this family have on the average."""
    return next(family.sigma_mm for family in TRACKING if plane.name.startswith(family.prefix))


@cache
def station_and_view(plane: Plane) -> tuple[int, int]:
    """Number of the station among all tracking stations (0...) and of the view in it (0...)."""
    index = [p.name for p in tracking_planes()].index(plane.name)
    return divmod(index, len(VIEWS_MRAD))


def job_keys() -> tuple[tuple[str, str], ...]:
    """(detector, calibration type) that every reconstruction job fetches."""
    return tuple((plane.name, ctype) for plane in tracking_planes() for ctype in CTYPES)


def other_keys() -> tuple[tuple[str, str], ...]:
    """Keys of the data set that a tracking job does not ask for."""
    names = [name for family in OTHERS for name in _names(family)]
    two_from = OTHERS_WITH_THREE_TYPES
    one_from = two_from + OTHERS_WITH_TWO_TYPES
    keys = []
    for index, name in enumerate(names):
        n_types = 3 if index < two_from else 2 if index < one_from else 1
        keys += [(name, ctype) for ctype in CTYPES[:n_types]]
    return tuple(keys)


def run_time_s(run: int) -> int:
    """Start of a run in seconds of Unix time: runs follow each other every RUN_SPACING_S. Calibrations go by it."""
    return RUN_ZERO_S + (run - RUN_ZERO) * RUN_SPACING_S


def direction(plane: Plane) -> tuple[float, float, float]:
    """(cos, sin, z_mm) of a plane: it measures x cos + y sin at z."""
    angle = plane.angle_mrad / 1e3
    return math.cos(angle), math.sin(angle), plane.z_um / 1e3
