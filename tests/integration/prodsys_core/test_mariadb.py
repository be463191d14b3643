"""The same services on a real MariaDB: this file starts a server of its own and runs the suite beside it again."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import mysql.connector
import pytest

SERVER = shutil.which("mariadbd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
SCRIPTS = Path("/usr/share/mysql")
pytestmark = [
    pytest.mark.skipif(SERVER is None, reason="mariadbd is not installed"),
    pytest.mark.skipif("PRODSYS_TEST_DATABASE" in os.environ, reason="already inside the second run"),
]
START_S = 60


def bootstrap(folder):
    (folder / "db").mkdir()
    scripts = ("mysql_system_tables.sql", "mysql_system_tables_data.sql")
    text = "create database mysql;\nuse mysql;\n" + "\n".join(
        (SCRIPTS / name).read_text() for name in scripts
    )
    subprocess.run(
        [SERVER, "--no-defaults", "--bootstrap", f"--datadir={folder}/db", *user()],
        input=text,
        text=True,
        check=True,
        capture_output=True,
    )


def user():
    return ["--user=root"] if os.getuid() == 0 else []


def connect(socket, process):
    end = time.monotonic() + START_S
    while True:
        try:
            return mysql.connector.connect(unix_socket=str(socket), user="root", use_pure=True)
        except mysql.connector.Error:
            if process.poll() is not None or time.monotonic() > end:
                raise
            time.sleep(0.05)


@pytest.fixture
def mariadb(tmp_path):
    """Configuration of an empty database on a server that ends with the test."""
    bootstrap(tmp_path)
    socket = tmp_path / "s"
    arguments = [f"--datadir={tmp_path}/db", f"--socket={socket}", "--skip-networking", *user()]
    arguments += [
        f"--pid-file={tmp_path}/pid",
        "--innodb-flush-log-at-trx-commit=0",
        f"--log-error={tmp_path}/log",
    ]
    process = subprocess.Popen([SERVER, "--no-defaults", *arguments])
    try:
        connection = connect(socket, process)
        cursor = connection.cursor()
        cursor.execute("create database prodsys character set utf8mb4 collate utf8mb4_bin")
        cursor.execute("create user prodsys@localhost identified by 'secret'")
        cursor.execute("grant all on prodsys.* to prodsys@localhost")
        connection.close()
        password = tmp_path / "password"
        password.touch(mode=0o600)
        password.write_text("secret\n")
        yield {"engine": "mariadb", "socket": str(socket), "password_file": str(password)}
    finally:
        process.terminate()
        process.wait(START_S)


SERVICES = "sending following runs actions lease two_writers statements rows"


@pytest.mark.parametrize(
    "names",
    [SERVICES, *(pytest.param(name, marks=pytest.mark.long) for name in ("poisoned_rows", "poisoned_runs"))],
    ids=["services", "poisoned rows", "poisoned runs"],
)
def test_services_on_mariadb(mariadb, names):
    folder = Path(__file__).parent
    result = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-x",
            "-p",
            "no:xdist",
            *(str(folder / f"test_{name}.py") for name in names.split()),
        ],
        env=os.environ | {"PRODSYS_TEST_DATABASE": json.dumps(mariadb)},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-2000:]
