"""Takes the samples of measurements, one measurement after the other, and keeps what it has when one breaks."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from bench.goals import Goal
from bench.measurement import CannotMeasure, Measurement, Sample
from bench.results import Taken

ROOT = Path(__file__).resolve().parents[1]


def measure(
    measurements: Sequence[Measurement],
    goals: Mapping[str, Goal],
    runs: int | None = None,
    tell: Callable[[str], None] = lambda text: print(text, file=sys.stderr, flush=True),
) -> tuple[dict[str, Taken], bool]:
    """(what was taken by figure, whether any measurement broke). `runs` None: as many as the goals want."""
    taken: dict[str, Taken] = {}
    broke = False
    commit = describe_commit()
    for measurement in measurements:
        figures = [name for name in measurement.figures if name in goals]
        if not figures:
            continue
        wanted = runs or max(goals[name].runs for name in figures)
        load, when = round(os.getloadavg()[0], 2), datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        tell(f"{', '.join(figures)}: {wanted} runs, load {load}")
        try:
            samples = _samples(measurement, figures, wanted)
            how = measurement.how
        except Exception as error:  # the top of a measurement: its figures are unmeasured, the others go on
            broke = True
            samples = {name: [] for name in figures}
            kind = "" if isinstance(error, CannotMeasure) else f"{type(error).__name__}: "
            how = f"not measured: {kind}{error}"
            tell(f"  {how}")
        taken.update((name, Taken(found, how, when, load, commit)) for name, found in samples.items())
    return taken, broke


def _samples(measurement: Measurement, figures: Sequence[str], runs: int) -> dict[str, list[Sample]]:
    samples: dict[str, list[Sample]] = {name: [] for name in figures}
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as directory,
        measurement.prepare(Path(directory)) as take,
    ):
        for run in range(runs):
            found = take(run)
            for name in figures:
                samples[name].append(found[name])
    return samples


def describe_commit() -> str:
    """Abbreviated commit of the tree that is measured, `+` behind it if files differ from it; "" outside git."""
    argv = ["git", "-C", str(ROOT), "describe", "--always", "--abbrev=12", "--exclude=*", "--dirty=+"]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
