"""Figures of the daemon on a full machine: `pilot run` with stand-in servers and commands that are slow on order."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from bench import fullsite, standins
from bench.measurement import CannotMeasure, Measurement, Sample, Take
from pilot.control import ControlError, ask_daemon

JOBS = int(os.environ.get("BENCH_PILOT_JOBS", "150000"))
LISTING_EVERY_S = 10.0
# Three times eight hours before the jobs that run.
TURNS = 3
READY_S, PLAIN_S, SLOW_S = 600.0, 60.0, 120.0
# Orders of the slow phase, in seconds: qsub, qstat hangs, HTTP; and the journal's fsync.
SLOW = {"qsub_s": 5, "qstat_s": 600, "http_s": 60, "fsync_s": 30}
_FSYNC = """
import os, time
_sync, _order = os.fdatasync, os.environ["BENCH_ORDERS"] + "/fsync_s"
def slow(fd):
    try:
        time.sleep(float(open(_order).read() or 0))
    except (OSError, ValueError):
        pass
    _sync(fd)
os.fdatasync = slow
"""


def config(directory: Path, port: str, bundles: int) -> dict[str, Any]:
    """The daemon's configuration."""
    walltime = {"min_s": 600, "max_s": 86400, "startup_s": 60.0, "per_event_s": 1.0, "margin_s": 600.0}
    commands = {"submit": f"{directory}/qsub", "list": f"{directory}/qstat", "cancel": f"{directory}/qdel"}
    return {
        "site": "full",
        "state_dir": f"{directory}/state",
        "shared_dir": f"{directory}/shared",
        "output_root": f"{directory}/out",
        "log_file": f"{directory}/pilot.log",
        "batch": {"server": fullsite.SERVER, "commands": commands, "listing_every_s": LISTING_EVERY_S},
        "node": {"python": sys.executable, "local_dir": "/dev/shm", "environment": {"PATH": "/usr/bin:/bin"}},
        "caldb": None,
        "servers": [{"name": fullsite.PANDA_SERVER, "url": f"http://127.0.0.1:{port}", "dialect": "v1"}],
        "queues": [
            {
                "name": fullsite.QUEUE,
                "server": fullsite.PANDA_SERVER,
                "panda_queue": fullsite.PANDA_QUEUE,
                "batch_queue": "normal",
                "wanted": bundles + 1,
                "nodes": fullsite.NODES,
                "slots": fullsite.SLOTS,
                "walltime": walltime,
            }
        ],
    }


@dataclass(slots=True)
class Site:
    """What stands around a daemon, and the daemon once it is started."""

    directory: Path
    jobs: int
    daemon: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """`pilot run`."""
        paths = os.pathsep.join(filter(None, (str(self.directory), os.environ.get("PYTHONPATH"))))
        environment = {**os.environ, "PYTHONPATH": paths, "BENCH_ORDERS": str(self.directory)}
        argv = [sys.executable, "-m", "pilot", "run", "-c", str(self.directory / "pilot.yaml")]
        self.daemon = subprocess.Popen(argv, env=environment, stdout=subprocess.DEVNULL)

    def kill(self) -> None:
        """SIGKILL, and the end of what it had started."""
        if self.daemon is not None:
            self.daemon.kill()
            self.daemon.wait()

    def order(self, orders: Mapping[str, float]) -> None:
        """From now on calls take so long."""
        for name, seconds in orders.items():
            (self.directory / name).write_text(str(seconds))

    def status(self) -> dict[str, Any]:
        """What `pilot status` shows; {} while it does not answer."""
        try:
            return dict(ask_daemon(self.directory / "state", "status"))
        except ControlError:
            return {}

    def listings(self) -> int:
        """Calls of qstat so far."""
        path = self.directory / "listings"
        return len(path.read_text().splitlines()) if path.exists() else 0

    def rss_bytes(self) -> int:
        """Resident memory of the daemon."""
        assert self.daemon is not None
        pages = Path(f"/proc/{self.daemon.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def wait(self, seconds: float, until: Callable[[], bool] = lambda: False, every_s: float = 0.2) -> bool:
        """Wait so long, or until; False at the end of the time. The daemon must live."""
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            if self.daemon is not None and self.daemon.poll() is not None:
                raise CannotMeasure(f"the daemon ended with {self.daemon.returncode}")
            if until():
                return True
            time.sleep(every_s)
        return False


@contextlib.contextmanager
def standing(directory: Path, jobs: int, turns: int = 0) -> Iterator[Site]:
    """A site with so many jobs that run, and a server that serves; no daemon is there yet."""
    (directory / "out").mkdir(parents=True)
    (directory / "sitecustomize.py").write_text(_FSYNC)
    making = [sys.executable, "-m", "bench.fullsite", str(directory), str(jobs), str(turns)]
    subprocess.run(making, check=True, timeout=READY_S)
    standins.write_commands(directory)
    server = subprocess.Popen([sys.executable, "-m", "bench.standins", str(directory)])
    site = Site(directory, jobs)
    try:
        site.wait(READY_S, (directory / "port").exists)
        port = (directory / "port").read_text()
        text = yaml.safe_dump(config(directory, port, -(-jobs // (fullsite.NODES * fullsite.SLOTS))))
        (directory / "pilot.yaml").write_text(text)
        yield site
    finally:
        site.kill()
        server.kill()
        server.wait()
        shutil.rmtree(directory)


@contextlib.contextmanager
def running(directory: Path, jobs: int) -> Iterator[Site]:
    """`pilot run` on a site with so many jobs that run, all of which it has reported."""
    with standing(directory, jobs) as site:
        site.start()
        if not site.wait(READY_S, lambda: bool(site.status()) and standins.taken(directory) >= jobs):
            raise CannotMeasure(f"{standins.taken(directory)} of {jobs} jobs were reported")
        yield site


@contextlib.contextmanager
def _restarts(work: Path) -> Iterator[Take]:
    with standing(work / "day", JOBS, TURNS) as site:
        state = site.directory / "state"
        kept = state.rename(site.directory / "kept")

        def take(run: int) -> Mapping[str, Sample]:
            # What older epochs wrote is only read: the same files serve each run.
            shutil.copytree(kept, state, copy_function=os.link)
            for path in state.rglob("*.*"):
                _forget(path)
            asked, reported = site.listings(), standins.taken(site.directory)
            begun_s = time.monotonic()
            site.start()
            if not site.wait(
                READY_S,
                lambda: site.listings() > asked and standins.taken(site.directory) > reported,
                every_s=0.02,
            ):
                raise CannotMeasure(f"no heartbeat and no listing within {READY_S:.0f} s")
            took_s = time.monotonic() - begun_s
            site.kill()
            shutil.rmtree(state)
            return {"pilot.restart_150k_s": took_s}

        yield take


def _forget(path: Path) -> None:
    """Nothing of a file stays in memory."""
    if path.is_file():
        with open(path, "rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _listings_per_cycle(site: Site) -> float:
    before = site.listings()
    site.wait(PLAIN_S)
    return round((site.listings() - before) * LISTING_EVERY_S / PLAIN_S)


@contextlib.contextmanager
def _full(work: Path) -> Iterator[Take]:
    def take(run: int) -> Mapping[str, Sample]:
        with running(work / "one", min(JOBS, fullsite.NODES * fullsite.SLOTS)) as site:
            one = _listings_per_cycle(site)
        with running(work / "none", 0) as site:
            site.wait(PLAIN_S)
            empty_bytes = site.rss_bytes()
        with running(work / "full", JOBS) as site:
            many = _listings_per_cycle(site)
            grown_bytes = site.rss_bytes() - empty_bytes
            site.order(SLOW)
            site.wait(SLOW_S)
            ticks = site.status()["ticks"]
        return {
            "pilot.tick_p999_ms": float(ticks["p999_ms"]),
            "pilot.bytes_per_job": grown_bytes / JOBS,
            "pilot.listings_per_cycle": float(max(one, many)),
        }

    yield take


MEASUREMENTS = (
    Measurement(
        ("pilot.tick_p999_ms", "pilot.bytes_per_job", "pilot.listings_per_cycle"),
        f"pilot run on a journal with {JOBS} jobs that run: `ticks` of pilot status after {PLAIN_S:.0f} s, and "
        f"{SLOW_S:.0f} s with qsub 5 s, qstat hanging, fsync 30 s, HTTP 60 s; resident memory less that of a daemon "
        f"without jobs; calls of qstat in {PLAIN_S:.0f} s by cycles, with 1 bundle and with all",
        _full,
    ),
    Measurement(
        ("pilot.restart_150k_s",),
        f"pilot run on the journal of a day, {TURNS} times {JOBS} jobs that are reported and as many that run, with "
        "the snapshot that a daemon would have taken, none of it in memory; until the server has taken the first "
        "heartbeat and qstat was called",
        _restarts,
    ),
)
