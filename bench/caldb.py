"""Figures of the calibration server of a node: snapshots of `pilot caldb build`, served below a real agent."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import fetch
from bench.bundle import LIMIT_S, Bundle, run_command
from bench.calibrations import FIRST_RUN, PROBE, write_dump
from bench.measurement import CannotMeasure, Measurement, Pair, Sample, Take
from bench.node import node_memory
from pilot.caldb.snapshot import manifest_caldb, read_snapshot

CLIENTS_AT_ONCE = 32
# The shortest walltime that the standard configuration asks for, on a node of 32 cores.
SHORTEST_CORE_S = 32 * 600.0
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
ASK_AGAIN_S = 0.01


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a manifest says about a snapshot, and the file with what its payloads must be."""

    caldb: Mapping[str, Any]
    expected: Path


def build(work: Path, **size: int) -> Snapshot:
    """Made as an operator makes it."""
    dump, expected = write_dump(work, **size)
    tar = work / "calib.tar"
    words = [sys.executable, "-m", "pilot", "caldb", "build", str(dump), str(tar)]
    run_command([*words, "--identity", "bench", "--probe", PROBE])
    dump.unlink()
    return Snapshot(manifest_caldb(read_snapshot(tar)), expected)


def await_true(question: Callable[[], bool], agent: subprocess.Popen[bytes]) -> None:
    """Ask until it is true; raises CannotMeasure when the agent has ended before."""
    while not question():
        if agent.poll() is not None:
            raise CannotMeasure("the agent ended too early")
        time.sleep(ASK_AGAIN_S)


def serve(root: Path, snapshot: Snapshot, client: str) -> dict[str, float]:
    """One agent with 32 clients that are let go together, each with another run; figures of its server."""
    with node_memory() as local:
        bundle = Bundle(root, local, slots=CLIENTS_AT_ONCE + 1)
        bundle.caldb = snapshot.caldb
        go, stay = root / "go", root / "stay"
        for fifo in (go, stay):
            os.mkfifo(fifo)
        for number in range(CLIENTS_AT_ONCE):
            words = [client, FIRST_RUN + number, snapshot.expected, root / f"ready.{number}", go]
            bundle.job(
                [sys.executable, fetch.__file__, *map(str, words), str(root / f"result.{number}")],
                kind="calib",
                run=FIRST_RUN + number,
            )
        bundle.job(["sh", "-c", f"cat {stay}; echo End of Job"], kind="calib")
        bundle.write()
        agent = subprocess.Popen(bundle.command("agent"), stdout=subprocess.DEVNULL)
        try:
            await_true(lambda: len(list(root.glob("ready.*"))) == CLIENTS_AT_ONCE, agent)
            server = int(bundle.of_kind("caldb_ready", at_work=True)[0]["pid"])
            let_go_s = time.monotonic()
            go.open("wb").close()
            await_true(lambda: len(bundle.of_kind("job_ended", at_work=True)) == CLIENTS_AT_ONCE, agent)
            pss_mib, cpu_s = _pss_mib(server), _cpu_s(server) + _cpu_s(_parent(server))
            stay.open("wb").close()
            agent.wait(LIMIT_S)
        finally:
            agent.terminate()
            agent.wait(LIMIT_S)
        if list(local.iterdir()):
            raise CannotMeasure("the agent left files behind")
    told = [json.loads((root / f"result.{number}").read_text()) for number in range(CLIENTS_AT_ONCE)]
    failures = sorted({item["failure"] for item in told} - {""})
    if failures:
        print(f"{client}: {failures[0]}", file=sys.stderr)
    return {
        "ready_s": _t_s(bundle, "caldb_ready") - _t_s(bundle, "agent_started"),
        "fetch_s": max(item["done_s"] for item in told) - let_go_s,
        "errors": sum(item["wrong"] for item in told),
        "pss_mib": pss_mib,
        "cpu_s": cpu_s,
        "stop_s": _t_s(bundle, "agent_ended") - _t_s(bundle, "job_ended"),
    }


def _t_s(bundle: Bundle, kind: str) -> float:
    """When the last line of this kind was written, on the agent's clock."""
    return max(float(line["t_s"]) for line in bundle.of_kind(kind))


def _pss_mib(pid: int) -> float:
    [line] = [x for x in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines() if x.startswith("Pss:")]
    return int(line.split()[1]) / 1024


def _stat(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _cpu_s(pid: int) -> float:
    return sum(int(field) for field in _stat(pid)[11:13]) / TICKS_PER_S


def _parent(pid: int) -> int:
    return int(_stat(pid)[1])


@contextlib.contextmanager
def _served(work: Path) -> Iterator[Take]:
    snapshot = build(work)
    tar = Path(snapshot.caldb["snapshot"])

    def copy_s() -> float:
        with node_memory() as local:
            begun = time.monotonic()
            run_command(["cp", str(tar), str(local)])
            return time.monotonic() - begun

    def take(run: int) -> dict[str, Sample]:
        copied_s = copy_s()
        found = {client: serve(work / f"{run}.{client}", snapshot, client) for client in fetch.CLIENTS}
        copied_s = (copied_s + copy_s()) / 2
        first = found["mysql-connector-python"]
        for client in fetch.CLIENTS:
            shutil.rmtree(work / f"{run}.{client}")
        return {
            "caldb.ready_warm_s": first["ready_s"],
            "caldb.ready_over_cp": Pair(first["ready_s"], copied_s),
            "caldb.t32_s": max(one["fetch_s"] for one in found.values()),
            "caldb.errors32": sum(one["errors"] for one in found.values()),
            "caldb.pss_mib": max(one["pss_mib"] for one in found.values()),
            "caldb.cpu_share": 100 * max(one["cpu_s"] for one in found.values()) / SHORTEST_CORE_S,
            "caldb.stop_s": max(one["stop_s"] for one in found.values()),
        }

    yield take


@contextlib.contextmanager
def _shared(work: Path) -> Iterator[Take]:
    strace = shutil.which("strace")
    if strace is None:
        raise CannotMeasure("strace is not installed")
    snapshot = build(work, payload_bytes=1000, runs=2)

    def take(run: int) -> dict[str, Sample]:
        with node_memory() as local:
            bundle = Bundle(work / str(run), local)
            bundle.caldb = snapshot.caldb
            bundle.job(["echo", "End of Job"], kind="calib")
            trace = work / f"{run}.trace"
            bundle.run("agent", [strace, "-f", "-s", "300", "-e", "trace=%file", "-o", str(trace)])
            if not bundle.of_kind("caldb_ready"):
                raise CannotMeasure("no calibration server")
        lines = [x for x in trace.read_text(errors="replace").splitlines() if snapshot.caldb["snapshot"] in x]
        calls = [re.sub(r"^\d+ +", "", line).partition("(")[0] for line in lines]
        opens = sum(call in ("open", "openat") for call in calls)
        return {"caldb.shared_opens": opens, "caldb.shared_stats": len(calls) - opens}

    yield take


@contextlib.contextmanager
def _elections(work: Path) -> Iterator[Take]:
    snapshot = build(work, payload_bytes=100, runs=1)

    def take(run: int) -> dict[str, Sample]:
        import fcntl

        with node_memory() as local:
            bundle = Bundle(work / str(run), local)
            bundle.caldb = snapshot.caldb
            bundle.write()
            directory = local / "db"
            directory.mkdir(mode=0o700)
            words = [
                sys.executable,
                "-I",
                "-S",
                str(bundle.agent_file),
                "keeper",
                "--bundle",
                str(bundle.directory),
            ]
            words += ["--directory", str(directory)]
            with (directory / "users.lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_SH)
                keepers = [subprocess.Popen(words, stdout=subprocess.PIPE) for _ in range(CLIENTS_AT_ONCE)]
                losers = [keeper for keeper in keepers if not _ready(keeper)]
                for keeper in losers:
                    keeper.terminate()
                    keeper.wait(LIMIT_S)
            for keeper in keepers:
                keeper.communicate(timeout=LIMIT_S)
            if directory.exists():
                raise CannotMeasure("the keeper left its directory behind")
        shutil.rmtree(work / str(run))
        return {"caldb.elections": len(keepers) - len(losers)}

    yield take


def _ready(keeper: subprocess.Popen[bytes]) -> bool:
    """Whether this keeper has a server of its own; False if it tells of another's, or has ended without one."""
    assert keeper.stdout is not None
    said = (json.loads(line) for line in iter(keeper.stdout.readline, b""))
    first = next((word for word in said if word["kind"] == "ready"), {"shared": True})
    return not first.get("shared", False)


MEASUREMENTS: tuple[Measurement, ...] = (
    Measurement(
        (
            "caldb.ready_warm_s",
            "caldb.ready_over_cp",
            "caldb.t32_s",
            "caldb.errors32",
            "caldb.pss_mib",
            "caldb.cpu_share",
            "caldb.stop_s",
        ),
        "pilot caldb build of 300 MB, agent.pyz agent with 32 clients (two queries for each of 150 keys, 5 MB, "
        "a run of its own each) through mysql-connector-python, PyMySQL, mariadb; ready: from the agent's start line, "
        "baseline: cp of the snapshot; fetch, memory and stop: of the slowest client; "
        f"CPU of server and keeper against {SHORTEST_CORE_S:.0f} core seconds",
        _served,
    ),
    Measurement(
        ("caldb.shared_opens", "caldb.shared_stats"),
        "strace -f -e trace=%file of agent.pyz agent with a job that needs calibrations: calls that name the snapshot",
        _shared,
    ),
    Measurement(
        ("caldb.elections",),
        f"{CLIENTS_AT_ONCE} x agent.pyz keeper at once in one directory: how many have a server",
        _elections,
    ),
)
