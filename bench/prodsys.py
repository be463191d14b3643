"""Figures of prodsys: its own commands and services on SQLite and on a MariaDB of the measurement's own."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import yaml

from bench.measurement import CannotMeasure, Measurement, Sample, Take
from simulators.demo.database import start_mariadb
from simulators.demo.layout import Layout
from simulators.demo.parts import Parts

JOBS, CHUNKS_OF_A_RUN = 50_000, 1000
LIMIT_S = 1800.0


@contextlib.contextmanager
def _database(work: Path, engine: str) -> Iterator[Mapping[str, Any]]:
    """prodsys' `database` section: a file, or a server that ends with the measurement."""
    if engine == "sqlite":
        yield {"engine": "sqlite", "path": str(work / "prodsys.sqlite")}
        return
    work.chmod(0o711)  # the server's account reaches its own directory
    parts = Parts(work / "parts.json", work, [], dict(os.environ))
    try:
        yield start_mariadb(parts, cast(Layout, SimpleNamespace(short=work, state=work)))
    finally:
        parts.end_all()


def _configure(work: Path, database: Mapping[str, Any], url: str = "http://127.0.0.1:9") -> dict[str, str]:
    """Writes the configuration and makes the tables; returns the environment of prodsys."""
    panda = {"url": url, "status_every_s": 0, "active_max": 1_000_000, "waiting_min": 1_000_000}
    commands = {
        "reconstruct": "reco --raw {raw} --mdst {mdst} --hist {hist} --dump {dump}",
        **{f"merge {name}": "merge --inputs-from {inputs} --out {out}" for name in ("mdst", "hist", "dump")},
    }
    files = {"root": str(work / "out")}
    site = {"name": "S", "panda_queue": "LONG", "merge_queue": "SHORT", "files": files, "commands": commands}
    config = {"state_dir": str(work), "database": dict(database), "panda": panda, "sites": [site]}
    (work / "prodsys.yaml").write_text(yaml.safe_dump(config))
    environment = {**os.environ, "PRODSYS_CONFIG": str(work / "prodsys.yaml")}
    _prodsys(environment, "migrate", "-v", "0")
    return environment


def _prodsys(environment: Mapping[str, str], *words: str) -> float:
    """One command; how long it took."""
    begun_s = time.monotonic()
    argv = [sys.executable, "-m", "prodsys_core", *words]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    if done.returncode:
        raise CannotMeasure(f"prodsys {' '.join(words)}: {done.stderr.strip()[-300:]}")
    return time.monotonic() - begun_s


def write_task(work: Path, name: str, jobs: int, chunks: int = CHUNKS_OF_A_RUN) -> Path:
    """Task file and catalogue of so many raw files in runs of `chunks`."""
    lines = [
        f"{280000 + number // chunks} cdr{11001 + number % chunks}-{280000 + number // chunks}.raw {9000 + number}"
        for number in range(jobs)
    ]
    catalogue = work / f"{name}.txt"
    catalogue.write_text("\n".join(lines) + "\n")
    task = {
        "name": name, "type": "mass production", "site": "S", "production": name, "path": "p/", "soft": name,
        "files_source": "runs list", "runs": sorted({int(line.split()[0]) for line in lines}),
        "catalogue": str(catalogue), "files_home": "/raw/", "files_home_prefix": f"{work}/out/",
    }  # fmt: skip
    path = work / f"{name}.yaml"
    path.write_text(yaml.safe_dump(task))
    return path


def _generate(engine: str) -> Callable[[Path], AbstractContextManager[Take]]:
    @contextlib.contextmanager
    def prepare(work: Path) -> Iterator[Take]:
        with _database(work, engine) as database:
            environment = _configure(work, database)

            def take(run: int) -> Mapping[str, Sample]:
                _prodsys(environment, "task", "create", str(write_task(work, f"t{run}", JOBS)))
                _prodsys(environment, "task", "set", f"t{run}", "ready")
                return {f"prodsys.generate_50k_s_{engine}": _prodsys(environment, "tick", "--once")}

            yield take

    return prepare


def _services(engine: str, what: str) -> Callable[[Path], AbstractContextManager[Take]]:
    """A child process that has Django and prints one JSON object for every line it is given."""

    @contextlib.contextmanager
    def prepare(work: Path) -> Iterator[Take]:
        with _database(work, engine) as database:
            environment = _configure(work, database)
            argv = [sys.executable, "-m", "bench.prodsys_services", what, engine, str(work)]
            child = subprocess.Popen(
                argv, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            assert child.stdin is not None
            assert child.stdout is not None

            def take(run: int) -> Mapping[str, Sample]:
                print(run, file=child.stdin, flush=True)
                line = child.stdout.readline() if child.stdout else ""
                if not line:
                    raise CannotMeasure(f"{what} ended with {child.wait(60)}")
                return cast(Mapping[str, Sample], json.loads(line))

            try:
                yield take
            finally:
                child.stdin.close()
                child.wait(60)

    return prepare


MEASUREMENTS = (
    *(
        Measurement(
            (f"prodsys.generate_50k_s_{engine}",),
            "prodsys tick --once with one task of 50,000 files in `ready`, each run another task in the same tables",
            _generate(engine),
        )
        for engine in ("sqlite", "mariadb")
    ),
    *(
        Measurement(
            (f"prodsys.status_150k_s_{engine}",),
            "services.following.jobs_follow over 150,000 jobs that the simulated server (a process of its own, asked "
            "over HTTP) has finished since the last look; then all are set back",
            _services(engine, "status"),
        )
        for engine in ("sqlite", "mariadb")
    ),
    Measurement(
        ("prodsys.queries_per_1000", "prodsys.merge_latency_ticks", "prodsys.plan_1100_s"),
        "ticks over a run of 1,100 chunks: statements per 1,000 jobs of steps_stage, steps_send, batches_settle and "
        "jobs_follow, once when PanDA runs them and once when they are finished (the worst of 1,100 and 4,400 jobs), "
        "ticks from the last chunk's end in PanDA to the call that submits its merges, seconds of "
        "services.runs.runs_merge",
        _services("sqlite", "run"),
    ),
)
