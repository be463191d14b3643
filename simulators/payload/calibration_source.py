"""Fetches the calibrations of a run: over the MySQL connection that the node agent names, or from a SQLite file.

Per key two queries, as in `docs/facts/payload.md`: the payload id by detector, type and run time (highest version
first), then the payload. There are no default constants: a key without a row ends the job.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, closing
from typing import Any, Protocol
from urllib.parse import quote

from simulators.payload.calibration_text import CalibrationTextError, parse_payload
from simulators.payload.constants import PlaneConstants
from simulators.payload.detector import CTYPES, run_time_s
from simulators.payload.exits import Exit, PayloadError
from simulators.payload.raw import Plane

DATABASE = "calib"
ACCOUNT = "calib"
CONNECT_TIMEOUT_S = 10
# a node's server that died is back within a second; the pauses between attempts cover that twice
RETRY_PAUSES_S = (0.1, 0.2, 0.4, 0.8, 1.0)
NO_DATABASE = "can't connect to CDB database"

PAYLOAD_ID_SQL = (
    "SELECT payload_id FROM calib_iov WHERE detector = {p} AND ctype = {p} AND t_from <= {p} AND t_to > {p} "
    "ORDER BY version DESC, t_from DESC LIMIT 1"
)
CONTENT_SQL = "SELECT data FROM calib_payload WHERE payload_id = {p}"


class Connection(Protocol):
    """What both database clients have in common (PEP 249)."""

    def cursor(self) -> Any: ...

    def close(self) -> None: ...


def fetch_constants(
    planes: Sequence[Plane],
    run: int,
    environment: Mapping[str, str],
    pauses_s: Sequence[float] = RETRY_PAUSES_S,
) -> tuple[dict[str, PlaneConstants], int]:
    """Constants of each plane (by name) for the time of a run, and how many payloads were fetched.

    A lost connection is made again, after each of `pauses_s` once. Raises PayloadError: NO_DATABASE or
    CALIBRATION_MISSING.
    """
    contents: dict[tuple[str, str], bytes] = {}
    wanted = [(plane.name, ctype) for plane in planes for ctype in CTYPES]
    connect, placeholder, errors = _client(environment)
    for pause_s in (*pauses_s, None):
        try:
            with connect() as connection:
                for key in wanted:
                    if key not in contents:
                        contents[key] = _fetch_one(connection.cursor(), placeholder, key, run)
            break
        except errors as error:
            if pause_s is None:
                raise PayloadError(Exit.NO_DATABASE, f"{NO_DATABASE}: {error}") from error
            time.sleep(pause_s)
    return {plane.name: _parse_plane(plane, contents, run) for plane in planes}, len(contents)


def _fetch_one(cursor: Any, placeholder: str, key: tuple[str, str], run: int) -> bytes:
    time_s = run_time_s(run)
    cursor.execute(PAYLOAD_ID_SQL.format(p=placeholder), (*key, time_s, time_s))
    row = cursor.fetchone()
    if row is not None:
        cursor.execute(CONTENT_SQL.format(p=placeholder), row)
        row = cursor.fetchone()
    if row is None:
        raise PayloadError(Exit.CALIBRATION_MISSING, f"calibration missing for {key[0]}/{key[1]}, run {run}")
    cursor.close()
    return bytes(row[0])


def _parse_plane(plane: Plane, contents: Mapping[tuple[str, str], bytes], run: int) -> PlaneConstants:
    fields: dict[str, Any] = {}
    for ctype in CTYPES:
        try:
            fields |= parse_payload(contents[plane.name, ctype], plane.name, ctype, plane.strips)
        except CalibrationTextError as error:
            message = f"calibration unreadable for {plane.name}/{ctype}, run {run}: {error}"
            raise PayloadError(Exit.CALIBRATION_MISSING, message) from error
    return PlaneConstants(**fields)


def _client(
    environment: Mapping[str, str],
) -> tuple[Callable[[], AbstractContextManager[Connection]], str, tuple[type[Exception], ...]]:
    """How to connect, the client's placeholder, and the errors that mean that the database is not there."""
    if environment.get("CDB_SQLITE"):
        path = environment["CDB_SQLITE"]
        uri = f"file:{quote(os.path.abspath(path))}?mode=ro&immutable=1"
        return lambda: closing(sqlite3.connect(uri, uri=True)), "?", (sqlite3.Error,)
    options = connection_options(environment)
    import mysql.connector
    import mysql.connector.errors

    def connect() -> AbstractContextManager[Connection]:
        return closing(mysql.connector.connect(**options))

    return connect, "%s", (mysql.connector.errors.Error, OSError)


def connection_options(environment: Mapping[str, str]) -> dict[str, Any]:
    """Arguments of the MySQL client, from CDB_OPTION_FILE, else CDBSERVER and MYSQL_UNIX_PORT.

    `localhost` means the socket in MYSQL_UNIX_PORT, as for the C client. Raises PayloadError(NO_DATABASE) when the
    environment names no server.
    """
    options: dict[str, Any] = {
        "database": DATABASE,
        "use_pure": True,
        "connection_timeout": CONNECT_TIMEOUT_S,
        "raw": False,
    }
    server = environment.get("CDBSERVER", "")
    socket_path = environment.get("MYSQL_UNIX_PORT", "")
    if environment.get("CDB_OPTION_FILE"):
        option_file = environment["CDB_OPTION_FILE"]
        if not os.path.isfile(option_file):
            raise PayloadError(Exit.NO_DATABASE, f"{NO_DATABASE}: CDB_OPTION_FILE {option_file} is not there")
        return options | {"option_files": option_file}
    if socket_path and server in ("", "localhost"):
        return options | {"user": ACCOUNT, "unix_socket": socket_path}
    host, _, port = server.partition(":")
    if host and port.isdecimal():
        return options | {"user": ACCOUNT, "host": host, "port": int(port)}
    message = "CDB_OPTION_FILE, MYSQL_UNIX_PORT, CDBSERVER=HOST:PORT and CDB_SQLITE name no server"
    raise PayloadError(Exit.NO_DATABASE, f"{NO_DATABASE}: {message}")
