"""A running MySQL or MariaDB as the source of a snapshot: its tables, or the rows asked for, as a dump.

Read through mysql-connector-python with an option file (`[client]` host, user, password...), so that no secret stands
on a command line. Only SELECT and SHOW are sent.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import mysql.connector

from pilot.caldb.template import BadSnapshot

# Type numbers of the text protocol whose values are numbers as they stand (MariaDB knowledge base, "Result set").
_NUMBERS = frozenset({0, 1, 2, 3, 4, 5, 8, 9, 13, 246})
_BINARY_CHARSET = 63
# Rows of one INSERT: the server takes statements of a few MB at a time.
INSERT_BYTES = 1024 * 1024
CONNECT_S = 30
# An answer stops for longer only when the server or the network is gone.
READ_S = 600


def check_option_file(path: Path) -> None:
    """Raises BadSnapshot for a file that others may read: it holds a password."""
    try:
        found = path.stat()
    except OSError as error:
        raise BadSnapshot(f"{path}: {error.strerror}") from error
    if stat.S_IMODE(found.st_mode) & 0o077 or found.st_uid != os.getuid():
        raise BadSnapshot(f"{path}: holds a password: expected a file of your own with mode 0600")


def dump_server(options: Path, database: str, where: Mapping[str, str], out: Path) -> str:
    """Write tables of `database` as a dump to the new file `out`; returns where they came from. Raises BadSnapshot.

    `where`: condition by table; a table that it does not name is taken whole. One consistent view, where the tables
    have transactions.
    """
    check_option_file(options)
    try:
        connection = mysql.connector.connect(
            option_files=str(options), database=database, use_pure=True, connection_timeout=CONNECT_S
        )
    except (mysql.connector.Error, OSError, ValueError) as error:
        raise BadSnapshot(f"{options}: {error}") from error
    try:
        cursor = connection.cursor(raw=True, buffered=False)
        _ask(cursor, "SET NAMES utf8mb4")
        _ask(cursor, f"SET SESSION net_write_timeout = {READ_S}")
        _ask(cursor, "START TRANSACTION WITH CONSISTENT SNAPSHOT")
        tables = [_text(row[0]) for row in _ask(cursor, "SHOW FULL TABLES WHERE Table_type = 'BASE TABLE'")]
        unknown = sorted(set(where) - set(tables))
        if unknown or not tables:
            raise BadSnapshot(
                f"{database}: no table {', '.join(unknown)}" if unknown else f"{database}: no table"
            )
        with out.open("xb") as file:
            for table in tables:
                [row] = _ask(cursor, f"SHOW CREATE TABLE {_name(table)}")
                file.write(bytes(row[1]).replace(b"\n", b" ") + b";\n")
                condition = f" WHERE {where[table]}" if table in where else ""
                cursor.execute(f"SELECT * FROM {_name(table)}{condition}")  # noqa: S608 (the operator's own words)
                for statement in _inserts(table, cursor.description or (), cursor):
                    file.write(statement)
        return f"{database} at {connection.server_host}"
    except (mysql.connector.Error, OSError) as error:
        raise BadSnapshot(f"{database}: {error}") from error
    finally:
        connection.close()


def _ask(cursor: Any, sql: str) -> list[Sequence[Any]]:
    cursor.execute(sql)
    return cursor.fetchall() if cursor.description else []


def _inserts(table: str, columns: Sequence[Sequence[Any]], rows: Any) -> Iterator[bytes]:
    head = b"INSERT INTO " + _name(table).encode() + b" VALUES "
    kinds = [(column[1] in _NUMBERS, column[8] == _BINARY_CHARSET) for column in columns]
    parts: list[bytes] = []
    size = 0
    for row in rows:
        values = [render_value(value, *kind) for value, kind in zip(row, kinds, strict=True)]
        parts.append(b"(" + b",".join(values) + b")")
        size += len(parts[-1])
        if size >= INSERT_BYTES:
            yield head + b",".join(parts) + b";\n"
            parts, size = [], 0
    if parts:
        yield head + b",".join(parts) + b";\n"


def render_value(value: bytes | bytearray | None, number: bool, binary: bool) -> bytes:
    """One value as a literal of a dump; text stays on its line, whatever is in it."""
    if value is None:
        return b"NULL"
    found = bytes(value)
    if number:
        return found
    if binary:
        return b"0x" + found.hex().encode() if found else b"''"
    for plain, escaped in (
        (b"\\", b"\\\\"),
        (b"'", b"\\'"),
        (b"\n", b"\\n"),
        (b"\r", b"\\r"),
        (b"\0", b"\\0"),
    ):
        found = found.replace(plain, escaped)
    return b"'" + found + b"'"


def _name(table: str) -> str:
    return "`" + table.replace("`", "``") + "`"


def _text(value: Any) -> str:
    return bytes(value).decode("utf-8", "replace")
