"""Two runs of real raw files with their calibrations, and the command that jobs run."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from simulators.payload.__main__ import main

ROOT = Path(__file__).resolve().parents[4]
SEED = 11


@dataclass(frozen=True, slots=True)
class Site:
    """What the two writers left. `events`: raw file name -> events, from the catalogue."""

    raw: Path
    database: Path
    events: dict[str, int]

    def environment(self, **more: str) -> dict[str, str]:
        """Environment of a job with a calibration database."""
        return {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "CDB_SQLITE": str(self.database), **more}


@pytest.fixture(scope="session")
def payload_site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    directory = tmp_path_factory.mktemp("payload")
    runs = ["--runs", "2", "--seed", str(SEED)]
    events = ["--chunks", "2", "--min-events", "2400", "--max-events", "2600"]
    catalogue = directory / "catalogue.txt"
    assert (
        main(["write-raw", "--out", str(directory / "raw"), "--catalogue", str(catalogue), *runs, *events])
        == 0
    )
    assert main(["write-calibrations", "--out", str(directory / "calib"), "--size-mb", "6", *runs]) == 0
    lines = [line.split() for line in catalogue.read_text().splitlines()]
    counts = {name: int(count) for _, name, count in lines}
    return Site(directory / "raw", directory / "calib" / "calibrations.sqlite", counts)


@pytest.fixture(scope="session")
def run_payload() -> Callable[..., subprocess.CompletedProcess[str]]:
    def run(directory: Path, environment: dict[str, str], *words: object) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "simulators.payload", *map(str, words)]
        return subprocess.run(
            argv, cwd=directory, env=environment, capture_output=True, text=True, check=False, timeout=60
        )

    return run


@dataclass(frozen=True, slots=True)
class Products:
    """The products of all four chunks, by raw file name."""

    mdst: dict[str, Path]
    hist: dict[str, Path]
    dump: dict[str, Path]


@pytest.fixture(scope="session")
def products(payload_site: Site, tmp_path_factory: pytest.TempPathFactory) -> Products:
    from simulators.payload.reconstruct import Reconstruction, reconstruct

    directory = tmp_path_factory.mktemp("products")
    made = Products({}, {}, {})
    for name, events in payload_site.events.items():
        if events:
            made.mdst[name], made.hist[name], made.dump[name] = (
                directory / f"{name}.{kind}" for kind in ("mdst.root", "hist.root", "dump")
            )
            job = Reconstruction(payload_site.raw / name, made.mdst[name], made.hist[name], made.dump[name])
            reconstruct(job, payload_site.environment())
    return made
