"""Makes raw events from true tracks: what the pretended spectrometer would have read out. Deterministic by seed.

An event has one to three straight tracks from the target region, at least TRACK_SPACING_NS apart in time, and a few
noise hits. Each track leaves a hit in a plane with the plane's efficiency; place and time are smeared with the
resolution and bent with the run's true constants into strips and counts.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simulators.payload import raw
from simulators.payload.constants import HOT_OCCUPANCY_PPM, PlaneConstants, true_constants
from simulators.payload.detector import FIRST_CHUNK, direction, tracking_planes
from simulators.payload.placement import new_file

if TYPE_CHECKING:
    import numpy as np

EFFICIENCY = 0.96
TIME_RESOLUTION_NS = 1.5
TRACK_SPACING_NS = 75.0
TRACK_TIME_SLOTS = 5
TRACK_TIME_JITTER_NS = 5.0
GATE_NS = 200.0
VERTEX_MM = 15.0
SLOPE = 0.008
NOISE_HITS_MEAN = 1.0
TRACKS = (0.72, 0.21, 0.07)


@dataclass(frozen=True, slots=True)
class Chunk:
    """What is asked for one raw file. `quiet`: no event has three tracks, so that its event dump is empty."""

    run: int
    chunk: int
    events: int
    quiet: bool = False


def plan_chunks(
    first_run: int, runs: int, chunks: int, min_events: int, max_events: int, zero_event_files: int, seed: int
) -> tuple[Chunk, ...]:
    """Raw files of a data set: runs x chunks with events, one of them quiet, plus the zero-event files.

    Zero-event files take the chunk numbers after the others of a run, runs in turn. In order of run and chunk.
    """
    import numpy as np

    random = np.random.default_rng([seed, zlib.crc32(b"plan")])
    counts = random.integers(min_events, max_events + 1, (runs, chunks))
    quiet = int(random.integers(runs * chunks))
    planned = [
        Chunk(first_run + r, FIRST_CHUNK + c, int(counts[r, c]), quiet=r * chunks + c == quiet)
        for r in range(runs)
        for c in range(chunks)
    ]
    first = int(random.integers(runs))
    for index in range(zero_event_files):
        planned.append(Chunk(first_run + (first + index) % runs, FIRST_CHUNK + chunks + index // runs, 0))
    return tuple(sorted(planned, key=lambda one: (one.run, one.chunk)))


def render_chunk(chunk: Chunk, seed: int) -> bytes:
    """Content of the raw file of a chunk."""
    import numpy as np

    planes = tracking_planes()
    constants = {plane.name: true_constants(seed, chunk.run, plane) for plane in planes}
    chunk_seed = int(np.random.SeedSequence([seed, chunk.run, chunk.chunk]).generate_state(1, np.uint64)[0])
    random = np.random.default_rng(chunk_seed)
    tracks = _tracks(random, chunk)
    event_parts, hit_parts = [], []
    for number, plane in enumerate(planes):
        for event, strip, time_ns in (
            _track_hits(random, tracks, plane, constants[plane.name]),
            _noise_hits(random, chunk.events, plane, constants[plane.name]),
        ):
            event_parts.append(event)
            hit_parts.append(_digits(number, strip, time_ns, constants[plane.name]))
    event = np.concatenate(event_parts)
    hits = np.concatenate(hit_parts)[np.argsort(event, kind="stable")]
    hit_counts = np.bincount(event, minlength=chunk.events)
    return raw.render_raw(chunk.run, chunk.chunk, chunk_seed, planes, hit_counts, hits)


def write_raw_files(directory: Path, catalogue: Path, chunks: tuple[Chunk, ...], seed: int) -> int:
    """Write the files, then the catalogue (`RRRRRR cdrCCCCC-RRRRRR.raw NNNN`, one line a file). Returns bytes written.

    A file is complete when it is visible; the catalogue names complete files only.
    """
    size = 0
    for chunk in chunks:
        content = render_chunk(chunk, seed)
        with new_file(directory / raw.file_name(chunk.run, chunk.chunk)) as temp:
            temp.write_bytes(content)
        size += len(content)
    lines = [f"{c.run:06d} {raw.file_name(c.run, c.chunk)} {c.events}\n" for c in chunks]
    with new_file(catalogue) as temp:
        temp.write_text("".join(lines))
    return size


def _tracks(random: np.random.Generator, chunk: Chunk) -> Mapping[str, Any]:
    """Columns of all true tracks of the chunk: event, x and y at z = 0 (mm), slopes, time (ns)."""
    import numpy as np

    weights = np.array(TRACKS[:2] if chunk.quiet else TRACKS)
    per_event = random.choice(len(weights), size=chunk.events, p=weights / weights.sum()) + 1
    event = np.repeat(np.arange(chunk.events), per_event)
    slots = np.argsort(random.random((chunk.events, TRACK_TIME_SLOTS)), axis=1) - (TRACK_TIME_SLOTS - 1) / 2
    rank = np.arange(len(event)) - np.repeat(np.cumsum(per_event) - per_event, per_event)
    jitter = random.uniform(-TRACK_TIME_JITTER_NS, TRACK_TIME_JITTER_NS, len(event))
    return {
        "event": event,
        "x": random.normal(0, VERTEX_MM, len(event)),
        "y": random.normal(0, VERTEX_MM, len(event)),
        "tx": random.normal(0, SLOPE, len(event)),
        "ty": random.normal(0, SLOPE, len(event)),
        "time": slots[event, rank] * TRACK_SPACING_NS + jitter,
    }


def _track_hits(
    random: np.random.Generator, tracks: Mapping[str, Any], plane: raw.Plane, constants: PlaneConstants
) -> tuple[Any, Any, Any]:
    cos, sin, z_mm = direction(plane)
    place = (tracks["x"] + tracks["tx"] * z_mm) * cos + (tracks["y"] + tracks["ty"] * z_mm) * sin
    place = place + random.normal(0, constants.sigma_mm, len(place))
    time_ns = tracks["time"] + random.normal(0, TIME_RESOLUTION_NS, len(place))
    step = (1 + constants.scale) * plane.pitch_nm / 1e6
    strip = (place - constants.offset_mm) / step + plane.strips / 2
    # the strip's own shift belongs to the strip that is hit, so the hit is found first and then moved
    nearest = strip.clip(0, plane.strips - 1).astype("i8")
    strip = strip - constants.strip_um[nearest] / 1e3 / step
    seen = (strip >= 0) & (strip < plane.strips) & (random.random(len(strip)) < EFFICIENCY)
    return tracks["event"][seen], strip[seen], time_ns[seen]


def _noise_hits(
    random: np.random.Generator, events: int, plane: raw.Plane, constants: PlaneConstants
) -> tuple[Any, Any, Any]:
    """Noise all over the plane, and hot strips firing with their occupancy."""
    import numpy as np

    n_noise = random.poisson(NOISE_HITS_MEAN * events / len(tracking_planes()))
    hot = np.flatnonzero(constants.occupancy_ppm > HOT_OCCUPANCY_PPM)
    fired = random.random((events, len(hot))) < constants.occupancy_ppm[hot] / 1e6
    hot_event, hot_index = np.nonzero(fired)
    event = np.concatenate((random.integers(0, max(events, 1), n_noise), hot_event))
    strip = np.concatenate((random.uniform(0, plane.strips, n_noise), hot[hot_index] + 0.5))
    return event, strip, random.uniform(-GATE_NS, GATE_NS, len(event))


def _digits(number: int, strip: Any, time_ns: Any, constants: PlaneConstants) -> Any:
    import numpy as np

    hits = np.empty(len(strip), dtype=raw.HIT_DTYPE)
    hits["plane"] = number
    hits["channel"] = (strip * raw.CHANNELS_PER_STRIP).astype("u2")
    late_ns = constants.t0_ns + constants.strip_ps[strip.astype("i8")] / 1e3
    hits["time"] = ((time_ns + late_ns) / constants.bin_ns).round().clip(0, 0xFFFF)
    return hits
