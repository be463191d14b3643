"""One payload's way to its calibrations: `python fetch.py CLIENT RUN EXPECTED.json READY GO RESULT`, GO being a FIFO.

RESULT says how many of the keys were wrong or missing and when it had them all (CLOCK_MONOTONIC).
"""

from __future__ import annotations

import binascii
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

INTERVAL = (
    "SELECT payload_id FROM calib_iov WHERE detector='{0}' AND ctype='align' AND t_from<={1} AND t_to>{1} "
    "ORDER BY version DESC, t_from DESC LIMIT 1"
)
PAYLOAD = "SELECT data FROM calib_payload WHERE payload_id={0}"
JOINED = (
    "SELECT HEX(data) FROM calib_payload JOIN calib_iov USING (payload_id) WHERE detector='{0}' AND ctype='align' "
    "AND t_from<={1} AND t_to>{1} ORDER BY version DESC, t_from DESC LIMIT 1;\n"
)


def with_connection(connection: Any, names: list[str], run: int) -> Iterator[bytes]:
    """Two queries a key, as the payload's library asks them."""
    cursor = connection.cursor()
    for name in names:
        cursor.execute(INTERVAL.format(name, run))
        [[number]] = cursor.fetchall()
        cursor.execute(PAYLOAD.format(number))
        [[data]] = cursor.fetchall()
        yield bytes(data)
    connection.close()


def mysql_connector() -> Callable[[list[str], int], Iterator[bytes]]:
    """mysql-connector-python, by the option file."""
    import mysql.connector

    def get(names: list[str], run: int) -> Iterator[bytes]:
        files, database = os.environ["CDB_OPTION_FILE"], os.environ["CDB_DATABASE"]
        return with_connection(mysql.connector.connect(option_files=files, database=database), names, run)

    return get


def pymysql() -> Callable[[list[str], int], Iterator[bytes]]:
    """PyMySQL, by the option file."""
    import pymysql as driver

    def get(names: list[str], run: int) -> Iterator[bytes]:
        file, database = os.environ["CDB_OPTION_FILE"], os.environ["CDB_DATABASE"]
        return with_connection(driver.connect(read_default_file=file, database=database), names, run)

    return get


def mariadb() -> Callable[[list[str], int], Iterator[bytes]]:
    """The command line client, by the option file."""

    def get(names: list[str], run: int) -> Iterator[bytes]:
        argv = [
            "mariadb",
            f"--defaults-file={os.environ['CDB_OPTION_FILE']}",
            "--batch",
            "--raw",
            "--skip-column-names",
        ]
        with tempfile.TemporaryFile() as statements:
            statements.write("".join(JOINED.format(name, run) for name in names).encode())
            statements.seek(0)
            done = subprocess.Popen(
                [*argv, os.environ["CDB_DATABASE"]], stdin=statements, stdout=subprocess.PIPE
            )
            assert done.stdout is not None
            with done:
                yield from (binascii.unhexlify(line.rstrip()) for line in done.stdout)
        if done.returncode != 0:
            raise subprocess.CalledProcessError(done.returncode, argv)

    return get


CLIENTS = {"mysql-connector-python": mysql_connector, "PyMySQL": pymysql, "mariadb": mariadb}


def main(client: str, run: int, expected: Path, ready: Path, go: Path, result: Path) -> int:
    """Get ready, wait to be let go, fetch and compare."""
    wanted = json.loads(expected.read_text())[str(run)]
    names = [f"GM{key:03d}X1" for key in range(len(wanted))]
    get = CLIENTS[client]()
    ready.touch()
    go.open("rb").read()
    wrong, failure = len(wanted), ""
    try:
        for content, checksum in zip(get(names, run), wanted, strict=True):
            wrong -= hashlib.sha256(content).hexdigest() == checksum
    except Exception as error:  # whatever the client's library has: it is told as it is
        failure = repr(error)
    result.write_text(json.dumps({"wrong": wrong, "done_s": time.monotonic(), "failure": failure}))
    print("End of Job")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), *map(Path, sys.argv[3:7])))
