"""Figures of the real daemon over the wire: `simsite load` measures it from outside and checks what came of it."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from bench.measurement import CannotMeasure, Measurement, Sample, Take

SMALL, LARGE = 2000, 20000
LIMIT_S = {SMALL: 300, LARGE: 1800}


def _load(work: Path, jobs: int, *more: str) -> tuple[dict[str, Any], float]:
    """The report of one load run, and how long the command took."""
    out = work / "load"
    argv = [sys.executable, "-m", "simulators.cli", "load", "--jobs", str(jobs), "--out", str(out), *more]
    begun = time.monotonic()
    done = subprocess.run(
        [*argv, "--limit", str(LIMIT_S[jobs])], capture_output=True, text=True, timeout=LIMIT_S[jobs] + 120
    )
    spent = time.monotonic() - begun
    try:
        report: dict[str, Any] = json.loads((out / "load.json").read_text())
    except OSError as error:
        raise CannotMeasure(f"simsite load wrote no report: {done.stderr[-300:]}") from error
    shutil.rmtree(out)
    return report, spent


def _small(report: Mapping[str, Any], spent: float) -> dict[str, Sample]:
    if report["lost"] or report["doubled"] or report["stale"]:
        raise CannotMeasure(
            f"not clean: {report['lost']} lost, {report['doubled']} doubled, {report['stale']} stale"
        )
    return {"scale.2k_s": spent}


def _large(report: Mapping[str, Any], spent: float) -> dict[str, Sample]:
    kept = ("cpu_s", "rss_mib", "requests", "commands", "lost", "doubled", "stale")
    return {f"scale.20k_{name}": float(report[name]) for name in kept}


def _measure(
    jobs: int, judge: Callable[[Mapping[str, Any], float], dict[str, Sample]], *more: str
) -> Callable[[Path], AbstractContextManager[Take]]:
    @contextlib.contextmanager
    def prepare(work: Path) -> Iterator[Take]:
        yield lambda run: judge(*_load(work, jobs, *more))

    return prepare


MEASUREMENTS = (
    Measurement(
        ("scale.2k_s",),
        f"simsite load --jobs {SMALL} --seconds 2, 5 % of the calls failing; the whole command, only if clean",
        _measure(SMALL, _small, "--seconds", "2"),
    ),
    Measurement(
        tuple(
            f"scale.20k_{name}"
            for name in ("cpu_s", "rss_mib", "requests", "commands", "lost", "doubled", "stale")
        ),
        f"simsite load --jobs {LARGE}, 5 % of the calls failing: the daemon from outside, the checker's findings",
        _measure(LARGE, _large),
    ),
)
