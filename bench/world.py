"""Figures of the virtual world: 200 seeds by their public command, and how fast production applies what they record."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from bench.measurement import CannotMeasure, Measurement, Sample, Take

SEEDS = "1-200"
_TOLD = re.compile(r"(\d+) ms CPU per 1,000 job lives")
# Records of one seed are kept, then applied in a fresh state as a restart does.
_FOLD = """
import sys, time
from pilot.multijob.apply import replay
from pilot.multijob.codec import decode, encode
from simulators.world.seeds import CALM_S, make_seeded
world = make_seeded(int(sys.argv[1])).world
world.start_daemon()
world.run(CALM_S)
records = [encode(event) for daemon in world.daemons for _, event in daemon.events if daemon.number == 1]
events = [decode(record) for record in records]
begun = time.perf_counter()
replay(events)
print(len(events) / (time.perf_counter() - begun))
"""


@contextlib.contextmanager
def _fuzz(work: Path) -> Iterator[Take]:
    def take(run: int) -> Mapping[str, Sample]:
        begun_s = time.monotonic()
        words = [sys.executable, "-m", "simulators.cli", "fuzz", "--seeds", SEEDS]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        took_s = time.monotonic() - begun_s
        told = _TOLD.search(done.stdout)
        if done.returncode or told is None:
            raise CannotMeasure(f"simsite fuzz --seeds {SEEDS} ended with {done.returncode}")
        return {"world.fuzz200_s": took_s, "world.cpu_s_per_1000_lives": int(told.group(1)) / 1000}

    yield take


@contextlib.contextmanager
def _fold(work: Path) -> Iterator[Take]:
    def take(run: int) -> Mapping[str, Sample]:
        words = [sys.executable, "-c", _FOLD, str(run + 1)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode:
            raise CannotMeasure(f"a seed could not be replayed: {done.stderr[-300:]}")
        return {"world.events_per_s": float(done.stdout)}

    yield take


MEASUREMENTS = (
    Measurement(
        ("world.fuzz200_s", "world.cpu_s_per_1000_lives"),
        f"simsite fuzz --seeds {SEEDS}: elapsed time, and the CPU time that it prints",
        _fuzz,
    ),
    Measurement(
        ("world.events_per_s",),
        "pilot.multijob.apply.replay over the events of the first daemon of seeds 1, 2, ...: events by elapsed time",
        _fold,
    ),
)
