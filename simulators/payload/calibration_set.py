"""The calibration data set: the tables of `docs/facts/payload.md`, filled by seed, as an SQL dump and as SQLite.

    calib_iov      detector, ctype, t_from, t_to (Unix time, from <= t < to), version, ctime, payload_id
    calib_payload  payload_id, size, data

Keys that a reconstruction job asks for have an interval per run (`noise`: per NOISE_RUNS runs), within the run range
only. The other keys have one to eight intervals over PERIOD_DAYS. Each interval has one to four versions; the highest
is right, the lower ones are earlier and wrong.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import sqlite3
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simulators.payload.calibration_text import FIELDS, render_constants, render_payload
from simulators.payload.constants import NOISE_RUNS, PlaneConstants, true_constants
from simulators.payload.detector import CTYPES, other_keys, run_time_s, tracking_planes
from simulators.payload.placement import new_file

if TYPE_CHECKING:
    import numpy as np

DATABASE = "calib"
PERIOD_DAYS = 180
DAY_S = 86_400
VERSION_WEIGHTS = (0.6, 0.25, 0.1, 0.05)
STATEMENT_BYTES = 1_000_000
MIB = 1 << 20
BYTES_PER_VALUE = 4.4
PROBE_SQL = "SELECT SUM(size) FROM calib_payload"

SCHEMA_MARIADB = (
    f"CREATE DATABASE IF NOT EXISTS {DATABASE}",
    f"USE {DATABASE}",
    "CREATE TABLE calib_iov (detector VARCHAR(8) NOT NULL, ctype VARCHAR(12) NOT NULL, t_from BIGINT NOT NULL, "
    "t_to BIGINT NOT NULL, version INT NOT NULL, ctime BIGINT NOT NULL, payload_id INT NOT NULL, "
    "PRIMARY KEY (detector, ctype, t_from, version)) ENGINE=MyISAM DEFAULT CHARSET=latin1",
    "CREATE TABLE calib_payload (payload_id INT NOT NULL PRIMARY KEY, size INT NOT NULL, data MEDIUMBLOB NOT NULL) "
    "ENGINE=MyISAM DEFAULT CHARSET=latin1",
)
SCHEMA_SQLITE = (
    "CREATE TABLE calib_iov (detector TEXT NOT NULL, ctype TEXT NOT NULL, t_from INTEGER NOT NULL, "
    "t_to INTEGER NOT NULL, version INTEGER NOT NULL, ctime INTEGER NOT NULL, payload_id INTEGER NOT NULL, "
    "PRIMARY KEY (detector, ctype, t_from, version)) WITHOUT ROWID",
    "CREATE TABLE calib_payload (payload_id INTEGER PRIMARY KEY, size INTEGER NOT NULL, data BLOB NOT NULL)",
)


class TooSmall(Exception):
    """The wanted size cannot hold the constants that the runs need."""


@dataclass(frozen=True, slots=True)
class Row:
    """One version of one interval of one key, with its payload."""

    detector: str
    ctype: str
    t_from: int
    t_to: int
    version: int
    ctime: int
    payload_id: int
    content: bytes


def make_rows(first_run: int, runs: int, seed: int, size_bytes: int) -> list[Row]:
    """All rows, payloads `size_bytes` together within a few per cent. Raises TooSmall."""
    tracking = list(_tracking_rows(first_run, runs, seed))
    used = sum(len(row.content) for row in tracking)
    if used >= size_bytes:
        raise TooSmall(
            f"{runs} runs need more than {used / MIB:.1f} MiB, {size_bytes / MIB:.1f} MiB were asked for"
        )
    return tracking + list(_other_rows(first_run, seed, size_bytes - used, len(tracking) + 1))


def write_calibration_set(
    directory: Path, first_run: int, runs: int, seed: int, size_bytes: int
) -> dict[str, Any]:
    """Write calibrations.sql, calibrations.sqlite and, last, calibrations.json. Returns the content of the latter."""
    rows = make_rows(first_run, runs, seed, size_bytes)
    sha256 = {}
    for name, write in (("calibrations.sql", _write_sql), ("calibrations.sqlite", _write_sqlite)):
        with new_file(directory / name) as temp:
            write(temp, rows)
            with temp.open("rb") as stream:
                sha256[name] = hashlib.file_digest(stream, "sha256").hexdigest()
    content = {
        "identity": f"calib-{first_run}-{first_run + runs - 1}-s{seed}-{round(size_bytes / MIB)}mib",
        "database": DATABASE,
        "run_range": [first_run, first_run + runs - 1],
        "seed": seed,
        "rows": len(rows),
        "payload_bytes": sum(len(row.content) for row in rows),
        "probe": {"sql": PROBE_SQL, "expect": str(sum(len(row.content) for row in rows))},
        "sha256": sha256,
    }
    with new_file(directory / "calibrations.json") as temp:
        temp.write_text(json.dumps(content, indent=2) + "\n")
    return content


def render_sql(rows: Iterable[Row]) -> Iterator[str]:
    """Statements of the dump, one a line without a line feed inside, each at most about STATEMENT_BYTES."""
    yield from (f"{statement};\n" for statement in SCHEMA_MARIADB)
    for table, values in (
        ("calib_iov", _iov_values),
        ("calib_payload", _payload_values),
    ):
        pending: list[str] = []
        pending_bytes = 0
        for row in rows:
            pending.append(values(row))
            pending_bytes += len(pending[-1])
            if pending_bytes >= STATEMENT_BYTES:
                yield f"INSERT INTO {table} VALUES {','.join(pending)};\n"  # noqa: S608
                pending, pending_bytes = [], 0
        if pending:
            yield f"INSERT INTO {table} VALUES {','.join(pending)};\n"  # noqa: S608


def _iov_values(row: Row) -> str:
    numbers = f"{row.t_from},{row.t_to},{row.version},{row.ctime},{row.payload_id}"
    return f"('{row.detector}','{row.ctype}',{numbers})"


def _payload_values(row: Row) -> str:
    return f"({row.payload_id},{len(row.content)},0x{row.content.hex()})"


def _write_sql(path: Path, rows: list[Row]) -> None:
    with path.open("w", encoding="ascii") as stream:
        stream.writelines(render_sql(rows))


def _write_sqlite(path: Path, rows: list[Row]) -> None:
    connection = sqlite3.connect(path)
    try:
        connection.execute("PRAGMA page_size = 16384")
        connection.execute("PRAGMA journal_mode = OFF")
        for statement in SCHEMA_SQLITE:
            connection.execute(statement)
        connection.executemany(
            "INSERT INTO calib_iov VALUES (?, ?, ?, ?, ?, ?, ?)",
            ((r.detector, r.ctype, r.t_from, r.t_to, r.version, r.ctime, r.payload_id) for r in rows),
        )
        connection.executemany(
            "INSERT INTO calib_payload VALUES (?, ?, ?)",
            ((r.payload_id, len(r.content), r.content) for r in rows),
        )
        connection.commit()
    finally:
        connection.close()


def _tracking_rows(first_run: int, runs: int, seed: int) -> Iterator[Row]:
    import numpy as np

    random = np.random.default_rng([seed, zlib.crc32(b"versions")])
    end = first_run + runs
    payload_id = 0
    for run in range(first_run, end):
        for plane in tracking_planes():
            right = true_constants(seed, run, plane)
            for ctype in CTYPES:
                first, last = _validity(run, ctype, first_run, end)
                if first != run:
                    continue
                versions = _versions(random)
                for version in range(1, versions + 1):
                    payload_id += 1
                    known = right if version == versions else _preliminary(random, right)
                    content = render_constants(plane.name, ctype, version, known)
                    t_from, t_to = run_time_s(first), run_time_s(last)
                    yield Row(
                        plane.name, ctype, t_from, t_to, version, t_to + version * DAY_S, payload_id, content
                    )


def _validity(run: int, ctype: str, first_run: int, end: int) -> tuple[int, int]:
    """First run, and the run after the last, of the interval that a run lies in."""
    if ctype != "noise":
        return run, run + 1
    block = run // NOISE_RUNS * NOISE_RUNS
    return max(block, first_run), min(block + NOISE_RUNS, end)


def _preliminary(random: np.random.Generator, right: PlaneConstants) -> PlaneConstants:
    """Constants of an earlier version: the shape is right, the values are not."""
    return replace(
        right,
        offset_mm=right.offset_mm + random.normal(0, 10 * right.sigma_mm),
        t0_ns=right.t0_ns + random.normal(0, 2.0),
        sigma_mm=right.sigma_mm * 1.5,
    )


def _versions(random: np.random.Generator) -> int:
    return int(random.choice(len(VERSION_WEIGHTS), p=VERSION_WEIGHTS)) + 1


def _other_rows(first_run: int, seed: int, size_bytes: int, first_id: int) -> Iterator[Row]:
    """Rows of the keys that tracking does not ask for, sizes log-normal, `size_bytes` together."""
    import numpy as np

    random = np.random.default_rng([seed, zlib.crc32(b"others")])
    start = run_time_s(first_run) - PERIOD_DAYS * DAY_S // 3
    places: list[tuple[str, str, int, int, int]] = []
    for detector, ctype in other_keys():
        intervals = int(random.triangular(1, 3, 9))
        inner = np.sort(random.choice(PERIOD_DAYS - 1, intervals - 1, replace=False) + 1)
        borders = [start + int(day) * DAY_S for day in (0, *inner, PERIOD_DAYS)]
        for t_from, t_to in itertools.pairwise(borders):
            places += [(detector, ctype, t_from, t_to, version + 1) for version in range(_versions(random))]
    sizes = random.lognormal(0, 0.7, len(places)).clip(0.2, 7)
    # a whole number between -999 and 999 and its blank take about BYTES_PER_VALUE
    counts = np.maximum(1, sizes / sizes.sum() * size_bytes / BYTES_PER_VALUE).astype("i8")
    for offset, ((detector, ctype, t_from, t_to, version), count) in enumerate(
        zip(places, counts, strict=True)
    ):
        numbers = {name: float(random.normal()) for name in FIELDS[ctype][0]}
        values = random.integers(-999, 1000, int(count))
        content = render_payload(detector, ctype, version, numbers, FIELDS[ctype][1], values)
        yield Row(detector, ctype, t_from, t_to, version, t_to + version * DAY_S, first_id + offset, content)
