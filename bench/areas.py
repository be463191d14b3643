"""The one table of all measurements: a module per area, each with its tuple `MEASUREMENTS`."""

from __future__ import annotations

from bench import caldb, node, pilot, prodsys, scale, sim, world
from bench.measurement import Measurement

AREAS: tuple[tuple[Measurement, ...], ...] = (
    world.MEASUREMENTS,
    pilot.MEASUREMENTS,
    node.MEASUREMENTS,
    caldb.MEASUREMENTS,
    sim.MEASUREMENTS,
    scale.MEASUREMENTS,
    prodsys.MEASUREMENTS,
)


def all_measurements() -> tuple[Measurement, ...]:
    """Every measurement, in the order of the areas."""
    return tuple(measurement for area in AREAS for measurement in area)
