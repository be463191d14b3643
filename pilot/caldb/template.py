"""The data directory that a MariaDB snapshot holds: made from nothing but the server and an SQL dump (edge node)."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tarfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from pilot.caldb import plan as plans
from pilot.caldb.accounts import check_accounts
from pilot.caldb.dump import split_statements
from pilot.caldb.plan import Address
from pilot.caldb.query import Connection, QueryFailed
from pilot.caldb.server import die_with_keeper, find_server, find_share, give_to, user_for

# Reading and writing in large pieces, as on the node.
COPY_BYTES = 4 * 1024 * 1024
# A server with an empty data directory is ready in 0.1 s; a loaded machine takes longer.
START_S = 60.0

# System tables that a read-only server of one account does without: without them its log has two warnings at the
# start (time zones, gtid_slave_pos) and no error.
_UNUSED_TABLES = (
    "column_stats event general_log gtid_slave_pos help_category help_keyword help_relation help_topic index_stats "
    "slow_log table_stats time_zone time_zone_leap_second time_zone_name time_zone_transition time_zone_transition_type"
).split()

# Where MariaDB keeps accounts and what they may do.
_ACCOUNT_TABLES = "global_priv db tables_priv columns_priv procs_priv proxies_priv roles_mapping".split()

_SYSTEM_DATABASES = ("mysql", "information_schema", "performance_schema", "sys")


class BadSnapshot(Exception):
    """The snapshot cannot be built or trusted; the text names file, found and expected."""


def make_mariadb(
    source: Path, out: Path, work: Path, probe_sql: str, server: str | None, own_server: bool
) -> tuple[str, str | None]:
    """Writes the tar, with the server in it if `own_server`; returns its version and the probe's answer."""
    executable = find_server(server)
    _bootstrap(executable, work)
    with _private_server([executable], work, ()) as connection:
        version = connection.rows("SELECT VERSION()")[0][0] or ""
        connection.rows(f"CREATE DATABASE {plans.DATABASE}")
        connection.rows("SET SESSION sql_mode = ''")
        connection.rows(f"USE {plans.DATABASE}")
        with source.open("rb") as file:
            for statement in split_statements(file):
                try:
                    connection.send_query(statement.text)
                except QueryFailed as error:
                    raise BadSnapshot(f"{source}: line {statement.line}: {error}") from error
        connection.rows(f"USE {plans.DATABASE}")
        reason = _why_out_of_reach(connection)
        if reason is not None:
            raise BadSnapshot(f"{source}: {reason}")
        rows = connection.rows(probe_sql)
        _one_account(connection)
    data = work / "dd"
    members = [(path.relative_to(data), path) for path in data.rglob("*")]
    _pack([*(server_members(executable) if own_server else ()), *members], out)
    return version, rows[0][0] if rows else None


def _why_out_of_reach(connection: Connection) -> str | None:
    """Why the one account of a snapshot could not read what was loaded, None if it can."""
    found = [row[0] for row in connection.rows("SELECT DISTINCT table_schema FROM information_schema.tables")]
    other = [name for name in found if name not in (plans.DATABASE, *_SYSTEM_DATABASES)]
    if other:
        return (
            f"it makes tables in a database of its own, {other[0]}: expected none in it "
            "(no CREATE DATABASE, no USE: mysqldump without --databases)"
        )
    if plans.DATABASE not in found:
        return "it makes no table"
    views = connection.rows(
        "SELECT table_name, definer FROM information_schema.views "
        "WHERE table_schema = DATABASE() AND security_type = 'DEFINER'"
    )
    if views:
        return (
            f"view {views[0][0]} has the rights of {views[0][1]}, an account that no snapshot has: "
            "leave it out, or make it with SQL SECURITY INVOKER"
        )
    return None


def _bootstrap(executable: str, work: Path) -> None:
    """System tables without any account, by the server's own script. mariadb-install-db would need a client package."""
    share = find_share(executable)
    if share is None:
        raise BadSnapshot(f"no mysql_system_tables.sql beside {executable}")
    script = b"CREATE DATABASE mysql;\nUSE mysql;\n" + Path(share, "mysql_system_tables.sql").read_bytes()
    (work / "dd").mkdir(mode=0o700)
    user = user_for(str(work))
    give_to(user, str(work))
    argv = [
        *_private_argv([executable], work, user),
        "--bootstrap",
        "--enforce-storage-engine=",
        "--silent-startup",
    ]
    done = subprocess.run(
        argv,
        input=script,
        capture_output=True,
        timeout=START_S,
        check=False,
        env={"PATH": os.defpath, "LANG": "C"},
        preexec_fn=die_with_keeper,
    )
    if done.returncode != 0:
        words = (done.stderr[-500:] + server_log(work)[-500:].encode()).decode("utf-8", "replace")
        raise BadSnapshot(f"system tables: {executable} ended with {done.returncode}: {words}")


def _private_argv(server: Sequence[str], work: Path, user: str | None) -> list[str]:
    return [
        *server,
        "--no-defaults",
        f"--datadir={work}/dd",
        f"--tmpdir={work}",
        f"--log-error={work}/mariadbd.log",
        *((f"--user={user}",) if user is not None else ()),
        "--skip-innodb",
        "--default-storage-engine=MyISAM",
        "--aria-log-file-size=8M",
        "--log-warnings=0",
    ]


@contextlib.contextmanager
def _private_server(server: Sequence[str], work: Path, more: tuple[str, ...]) -> Iterator[Connection]:
    """A server without accounts whose socket stands in a directory of mode 0700; stopped at the end."""
    user = user_for(str(work))
    give_to(user, str(work))
    socket = f"{work}/p.sock"
    argv = [
        *_private_argv(server, work, user),
        f"--socket={socket}",
        f"--pid-file={work}/private.pid",
        "--skip-networking",
        "--skip-grant-tables",
        "--skip-log-bin",
        "--event-scheduler=DISABLED",
        "--local-infile=0",
        f"--secure-file-priv={work}",
        "--max-allowed-packet=1G",
        *more,
    ]
    process = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={"PATH": os.defpath, "LANG": "C"},
        preexec_fn=die_with_keeper,
    )
    try:
        with _connect(process, socket, work) as connection:
            yield connection
        process.send_signal(signal.SIGTERM)
        if process.wait(START_S) != 0:
            raise BadSnapshot(f"the server did not stop in order: {server_log(work)[-500:]}")
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def _connect(process: subprocess.Popen[bytes], socket: str, work: Path) -> Connection:
    end = time.monotonic() + START_S
    while True:
        try:
            return Connection(Address(socket), "loader", timeout_s=3600.0)
        except OSError as error:
            if process.poll() is not None:
                raise BadSnapshot(
                    f"the server ended with {process.returncode}: {server_log(work)[-500:]}"
                ) from error
            if time.monotonic() > end:
                raise BadSnapshot(f"the server was not ready in {START_S:.0f} s") from error
            time.sleep(0.01)


def _one_account(connection: Connection) -> None:
    """Drop what is not needed and make the one account."""
    connection.rows("DROP VIEW IF EXISTS mysql.user")
    for table in _UNUSED_TABLES:
        connection.rows(f"DROP TABLE IF EXISTS mysql.{table}")
    for table in _ACCOUNT_TABLES:
        connection.rows(f"DELETE FROM mysql.{table}")  # noqa: S608 (names from the list above)
    connection.rows("FLUSH PRIVILEGES")
    connection.rows(f"CREATE USER {plans.ACCOUNT}@'%'")
    connection.rows(f"GRANT SELECT ON {plans.DATABASE}.* TO {plans.ACCOUNT}@'%'")
    connection.rows("FLUSH TABLES")


def server_members(executable: str) -> list[tuple[Path, Path]]:
    """(name in the tar, file) of a server that needs nothing of the node: loader, libraries, messages, character sets.

    Raises BadSnapshot. As `ldd` names them; a server in a file of its own has none (docs/facts/caldb.md).
    """
    share = find_share(executable)
    if share is None:
        raise BadSnapshot(f"no messages and character sets beside {executable}")
    told = subprocess.run(["ldd", executable], capture_output=True, text=True, timeout=START_S, check=False)
    loader, libraries = parse_ldd(told.stdout)
    if told.returncode != 0 or loader is None:
        raise BadSnapshot(f"ldd {executable} names no loader: {told.stderr.strip()[:200]}")
    top = Path(plans.OWN_SERVER)
    files = {
        "mariadbd": executable,
        "loader": loader,
        **{f"lib/{name}": path for name, path in libraries.items()},
    }
    for name in ("english/errmsg.sys", "charsets/Index.xml"):
        files[f"share/{name}"] = os.path.join(share, name)
    return [(top / name, Path(path)) for name, path in files.items()]


def parse_ldd(text: str) -> tuple[str | None, dict[str, str]]:
    """(loader, library -> path) of what ldd(1) prints. Raises BadSnapshot for a library that is not found."""
    loader, libraries = None, {}
    for line in text.splitlines():
        words = line.split()
        if "=>" in words:
            if words[2] == "not":
                raise BadSnapshot(f"ldd: {line.strip()[:200]}")
            libraries[words[0]] = words[2]
        elif words and words[0].startswith("/"):
            loader = words[0]
    return loader, libraries


def _order(name: Path) -> tuple[bool, bool, Path]:
    """The server first, if there is one, then the system tables: it starts while the calibrations are on their way."""
    return name.parts[0] == plans.DATABASE, name.parts[0] != plans.OWN_SERVER, name


def _pack(members: Sequence[tuple[Path, Path]], out: Path) -> None:
    """One uncompressed tar, calibrations last, nothing of the building machine in it but a server's own files."""
    with out.open("xb", buffering=COPY_BYTES) as file:
        with tarfile.open(fileobj=file, mode="w|", bufsize=COPY_BYTES, format=tarfile.GNU_FORMAT) as tar:
            for name, path in sorted(members, key=lambda member: _order(member[0])):
                entry = tarfile.TarInfo(str(name))
                if path.is_dir():
                    entry.type, entry.mode = tarfile.DIRTYPE, 0o700
                    tar.addfile(entry)
                elif path.is_file() and path.suffix not in (".pid", ".sock"):
                    entry.size, entry.mode = path.stat().st_size, 0o600
                    if name.parts[0] == plans.OWN_SERVER:
                        entry.mode = 0o700
                    with path.open("rb") as content:
                        tar.addfile(entry, content)
        file.flush()
        os.fsync(file.fileno())


def check_template_accounts(work: Path, server: str | None, own_server: bool = False) -> str | None:
    """Why the accounts of an unpacked snapshot are not the one that there may be, None if they are."""
    words = plans.own_server_words(str(work)) if own_server else (find_server(server),)
    with _private_server(words, work, ("--read-only",)) as connection:
        tables = {
            name: connection.rows(f"SELECT * FROM mysql.{name}")  # noqa: S608 (names from the list above)
            for name in _ACCOUNT_TABLES
        }
        columns = [row[0] for row in connection.rows("SHOW COLUMNS FROM mysql.db")]
    return check_accounts(tables, tuple(str(column) for column in columns))


def server_log(work: Path) -> str:
    try:
        return (work / "mariadbd.log").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
