"""The calibration snapshot: built once on the edge node from an SQL dump, checked before it is trusted.

A snapshot is one uncompressed tar of a MariaDB data directory (one account, SELECT only, no root), or one SQLite
file, with a description beside it: `<snapshot>.json`. Facts and figures: docs/facts/caldb.md.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import select
import shutil
import sqlite3
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pilot.caldb import plan as plans
from pilot.caldb.dump import BadDump, render_sqlite, split_statements
from pilot.caldb.plan import KeeperPlan
from pilot.caldb.query import QueryFailed
from pilot.caldb.server import Server
from pilot.caldb.template import START_S, BadSnapshot, check_template_accounts, make_mariadb, server_log
from pilot.caldb.unpack import KeeperFailed, copy_snapshot, probe_file, unpack_snapshot

SCHEMA = 1
BACKENDS = ("mariadb", "sqlite")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Description of a snapshot. `run_range`: first and last run that it covers, None if it covers all.

    `probe`: {"sql", "expect"}, a query that only a right snapshot answers so. `source`: name of the dump's file.
    `copies`: so many files with the same content, for the nodes in turn (`plan.copy_path`). `own_server`: the server
    and its libraries travel inside.
    """

    path: str
    sha256: str
    size: int
    identity: str
    backend: str
    probe: Mapping[str, str]
    run_range: tuple[int, int] | None
    source: str
    built_utc: str
    server_version: str
    copies: int = 1
    own_server: bool = False


def build_snapshot(
    source_sql: Path | str,
    out: Path | str,
    *,
    identity: str,
    probe_sql: str,
    probe_expect: str | None = None,
    run_range: tuple[int, int] | None = None,
    backend: str = "mariadb",
    server: str | None = None,
    source_name: str | None = None,
    copies: int = 1,
    own_server: bool = False,
) -> Snapshot:
    """Build `out` and `<out>.json` from an SQL dump; raises BadSnapshot. Neither file may be there before.

    `probe_expect` None: what the probe answers now is what it is expected to answer later. `source_name`: in the
    description instead of the name of the dump. `copies`, `own_server`: as in `Snapshot`.
    """
    source, out = Path(source_sql), Path(out)
    if not identity.strip() or not identity.isprintable():
        raise BadSnapshot("identity: expected a name on one line")
    if run_range is not None and not 0 <= run_range[0] <= run_range[1]:
        raise BadSnapshot(f"runs: expected a first and a last one, found {run_range[0]} and {run_range[1]}")
    if copies < 1 or (own_server and backend != "mariadb"):
        raise BadSnapshot("expected at least 1 copy, and a server inside a mariadb snapshot only")
    if backend not in BACKENDS:
        raise BadSnapshot(f"backend: expected one of {', '.join(BACKENDS)}, found {backend!r}")
    places = [Path(plans.copy_path(str(out), number)) for number in range(copies)]
    for path in (*places, description_path(out)):
        if path.exists():
            raise BadSnapshot(f"{path}: exists already; bundles may use it, take a new name")
    temp = out.with_name(f".{out.name}.{secrets.token_hex(6)}.tmp")
    try:
        with _work_directory() as work:
            if backend == "mariadb":
                version, answer = make_mariadb(source, temp, work, probe_sql, server, own_server)
            else:
                version, answer = _make_sqlite(source, temp, work, probe_sql)
            reason = plans.check_probe(answer, probe_expect if probe_expect is not None else answer or "")
            if reason is not None:
                raise BadSnapshot(f"{source}: {reason}")
        snapshot = Snapshot(
            path=str(out),
            sha256=_sha256(temp),
            size=temp.stat().st_size,
            identity=identity,
            backend=backend,
            probe={"sql": probe_sql, "expect": str(answer)},
            run_range=run_range,
            source=source_name or source.name,
            built_utc=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            server_version=version,
            copies=copies,
            own_server=own_server,
        )
        _publish(temp, out, snapshot)
    except (OSError, KeeperFailed, QueryFailed, BadDump, subprocess.TimeoutExpired) as error:
        raise BadSnapshot(f"{source}: {error}") from error
    finally:
        temp.unlink(missing_ok=True)
    return snapshot


def description_path(snapshot: Path) -> Path:
    """The file that describes a snapshot."""
    return snapshot.with_name(snapshot.name + ".json")


def read_snapshot(path: Path | str) -> Snapshot:
    """The description of a snapshot; raises BadSnapshot."""
    file = description_path(Path(path))
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
        if raw["schema"] != SCHEMA:
            raise BadSnapshot(f"{file}: schema: expected {SCHEMA}, found {raw['schema']!r}")
        if raw["backend"] not in BACKENDS:
            raise BadSnapshot(
                f"{file}: backend: expected one of {', '.join(BACKENDS)}, found {raw['backend']!r}"
            )
        runs = raw["run_range"]
        return Snapshot(
            path=str(path),
            sha256=str(raw["sha256"]),
            size=int(raw["size"]),
            identity=str(raw["identity"]),
            backend=raw["backend"],
            probe={"sql": str(raw["probe"]["sql"]), "expect": str(raw["probe"]["expect"])},
            run_range=(int(runs[0]), int(runs[1])) if runs is not None else None,
            source=str(raw["source"]),
            built_utc=str(raw["built_utc"]),
            server_version=str(raw["server_version"]),
            copies=int(raw.get("copies", 1)),
            own_server=bool(raw.get("own_server", False)),
        )
    except OSError as error:
        raise BadSnapshot(f"{file}: {error.strerror}: expected beside the snapshot") from error
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise BadSnapshot(f"{file}: {error!r}") from error


def check_snapshot(path: Path | str, server: str | None = None) -> Snapshot:
    """Unpack it as a node would, look at its accounts, start it, ask the probe. Raises BadSnapshot with the reason."""
    snapshot = read_snapshot(path)
    try:
        with _work_directory() as work:
            data = work / "dd"
            if snapshot.backend == "sqlite":
                copy = Path(plans.sqlite_path(str(work)))
                _check_sum(snapshot, copy_snapshot(snapshot.path, str(copy)).wait())
                reason = plans.check_probe(
                    probe_file(str(copy), snapshot.probe["sql"]), snapshot.probe["expect"]
                )
            else:
                _check_sum(snapshot, unpack_snapshot(snapshot.path, str(data)).wait())
                reason = check_template_accounts(work, server, snapshot.own_server)
                if reason is None:
                    _check_served(snapshot, work, server)
        for number in range(1, snapshot.copies):
            copy = Path(plans.copy_path(str(path), number))
            if _sha256(copy) != snapshot.sha256:
                raise BadSnapshot(f"{copy}: differs from {path}, whose copy it is")
    except (OSError, KeeperFailed, QueryFailed, subprocess.TimeoutExpired) as error:
        raise BadSnapshot(f"{path}: {error}") from error
    if reason is not None:
        raise BadSnapshot(f"{path}: {reason}")
    return snapshot


def manifest_caldb(snapshot: Snapshot, access: str = "socket", server: str | None = None) -> dict[str, Any]:
    """What a bundle's manifest says about its snapshot (docs/architecture/files.md, section 2)."""
    return {
        "backend": snapshot.backend,
        "snapshot": os.path.abspath(snapshot.path),
        "sha256": snapshot.sha256,
        "size": snapshot.size,
        "identity": snapshot.identity,
        "runs": list(snapshot.run_range) if snapshot.run_range is not None else None,
        "probe": dict(snapshot.probe),
        "access": access,
        "server": server,
        "copies": snapshot.copies,
        "own_server": snapshot.own_server,
    }


# --- a server as on a node -----------------------------------------------------------------------------------


def _check_served(snapshot: Snapshot, work: Path, server: str | None) -> None:
    plan = KeeperPlan(
        backend=snapshot.backend,
        snapshot=snapshot.path,
        sha256=snapshot.sha256,
        probe_sql=snapshot.probe["sql"],
        probe_expect=snapshot.probe["expect"],
        access="socket",
        server=server,
        directory=str(work),
        ready_s=START_S,
        restarts=0,
        own_server=snapshot.own_server,
    )
    served = Server(plan, _Patience())
    try:
        served.start(new_port=True)
    except KeeperFailed as error:
        raise KeeperFailed(f"{error}; its log: {server_log(work)[-500:]}") from error
    finally:
        served.stop()


class _Patience:
    """Waits in short pieces, so that the end of the server is seen without a signal handler of its own."""

    stopping = False

    def wait(self, timeout_s: float | None, *others: Any) -> list[Any]:
        """Those of `others` that can be read."""
        return select.select(others, (), (), min(timeout_s, 0.05) if timeout_s is not None else 0.05)[0]


# --- SQLite -----------------------------------------------------------------------------------------------------


def _make_sqlite(source: Path, out: Path, work: Path, probe_sql: str) -> tuple[str, str | None]:
    database = sqlite3.connect(work / "new.sqlite", isolation_level=None)
    try:
        with contextlib.closing(database):
            for pragma in ("journal_mode = OFF", "synchronous = OFF"):
                database.execute(f"PRAGMA {pragma}")
            database.execute("BEGIN")
            with source.open("rb") as file:
                for statement in split_statements(file):
                    text = render_sqlite(statement)
                    if text is not None:
                        _execute(database, text, source, statement.line)
            database.execute("COMMIT")
            row = database.execute(probe_sql).fetchone()
    except sqlite3.Error as error:
        raise BadSnapshot(f"{source}: {error}") from error
    shutil.copyfile(work / "new.sqlite", out)
    with out.open("rb") as file:
        os.fsync(file.fileno())
    return f"SQLite {sqlite3.sqlite_version}", None if row is None or row[0] is None else str(row[0])


def _execute(database: sqlite3.Connection, text: str, source: Path, line: int) -> None:
    try:
        database.execute(text)
    except sqlite3.Error as error:
        raise BadSnapshot(f"{source}: line {line}: {error}") from error


# --- files ------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _work_directory() -> Iterator[Path]:
    """A private directory with a short path: a unix socket stands in it."""
    work = Path(tempfile.mkdtemp(prefix="ep-caldb-"))
    try:
        reason = plans.check_socket_path(f"{work}/s.sock")
        if reason is not None:
            raise BadSnapshot(f"TMPDIR: {reason}")
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _check_sum(snapshot: Snapshot, found: str) -> None:
    if found != snapshot.sha256:
        raise BadSnapshot(f"{snapshot.path}: checksum {found}, expected {snapshot.sha256}")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _copy(source: Path, target: Path) -> None:
    half = target.with_name(f".{target.name}.{secrets.token_hex(6)}.tmp")
    try:
        shutil.copyfile(source, half)
        with half.open("rb") as file:
            os.fsync(file.fileno())
        half.chmod(0o444)
        os.link(half, target)
    finally:
        half.unlink(missing_ok=True)


def _publish(temp: Path, out: Path, snapshot: Snapshot) -> None:
    """The snapshot first, its description after it: one without the other is never trusted."""
    body = {"schema": SCHEMA, **{name: value for name, value in asdict(snapshot).items() if name != "path"}}
    description = description_path(out)
    half = description.with_name(f".{description.name}.{secrets.token_hex(6)}.tmp")
    made: list[Path] = []
    try:
        with half.open("x", encoding="utf-8") as file:
            file.write(json.dumps(body, indent=1, sort_keys=True) + "\n")
            file.flush()
            os.fsync(file.fileno())
        temp.chmod(0o444)
        for number in range(1, snapshot.copies):
            copy = Path(plans.copy_path(str(out), number))
            _copy(temp, copy)
            made.append(copy)
        os.link(temp, out)
        made.append(out)
        half.replace(description)
    except BaseException:
        for path in made:
            path.unlink(missing_ok=True)
        raise
    finally:
        half.unlink(missing_ok=True)
    directory = os.open(out.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
