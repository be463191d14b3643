"""A MariaDB of the demo's own for prodsys (`DB=mariadb`): unprivileged, on a socket in the demo's short directory."""

from __future__ import annotations

import os
import pwd
import secrets
import subprocess
from pathlib import Path
from typing import Any

from pilot.caldb.server import find_server, find_share
from simulators.demo.layout import Layout
from simulators.demo.parts import PartError, Parts

READY_S = 60.0


def start_mariadb(parts: Parts, layout: Layout) -> dict[str, Any]:
    """Make and start the server; returns prodsys' `database` section."""
    server = find_server(None)
    home = layout.short / "db"
    home.mkdir(mode=0o700)
    (home / "d").mkdir()
    user: list[str] = []
    if os.geteuid() == 0:
        account = pwd.getpwnam("nobody")
        user = ["--user=nobody"]
        for path in (home, home / "d"):
            os.chown(path, account.pw_uid, account.pw_gid)
    _bootstrap(server, home, user, parts.environment)
    password = secrets.token_hex(16)
    start = home / "start.sql"
    start.write_text(
        "CREATE DATABASE prodsys CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;\n"
        f"CREATE USER prodsys@localhost IDENTIFIED BY '{password}';\n"
        "GRANT ALL ON prodsys.* TO prodsys@localhost;\n"
    )
    os.chmod(start, 0o600)
    if user:
        os.chown(start, account.pw_uid, account.pw_gid)
    socket = home / "s"
    part = parts.start(
        "mariadb",
        [
            server, "--no-defaults", f"--datadir={home}/d", f"--socket={socket}", f"--pid-file={home}/pid",
            f"--tmpdir={home}", "--skip-networking", "--skip-name-resolve", f"--init-file={start}",
            "--innodb-flush-log-at-trx-commit=1", "--performance-schema=0", *user,
        ],
    )  # fmt: skip
    parts.wait_for(part, lambda: _answers(socket, password), READY_S)
    start.unlink()
    secret = layout.state / "prodsys-db-password"
    fd = os.open(secret, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    os.write(fd, password.encode())
    os.close(fd)
    return {
        "engine": "mariadb",
        "name": "prodsys",
        "user": "prodsys",
        "password_file": str(secret),
        "socket": str(socket),
    }


def _bootstrap(server: str, home: Path, user: list[str], environment: dict[str, str]) -> None:
    """System tables by the server's own scripts; no account but the one that `--init-file` makes later."""
    share = find_share(server) or "/usr/share/mysql"
    scripts = ("mysql_system_tables.sql", "mysql_system_tables_data.sql")
    try:
        text = "".join((Path(share) / name).read_text() for name in scripts)
    except OSError as error:
        raise PartError(f"DB=mariadb: {error.filename}: {error.strerror}") from error
    made = subprocess.run(
        [server, "--no-defaults", "--bootstrap", f"--datadir={home}/d", f"--tmpdir={home}", *user],
        input=f"CREATE DATABASE mysql;\nUSE mysql;\n{text}\nDELETE FROM global_priv;\n",
        capture_output=True,
        text=True,
        env={**environment, "TMPDIR": str(home)},
        check=False,
    )
    if made.returncode != 0:
        raise PartError(f"DB=mariadb: bootstrap: {(made.stderr or made.stdout).strip()[-300:]}")


def _answers(socket: Path, password: str) -> bool:
    """Whether the account works."""
    import mysql.connector

    if not socket.exists():
        return False
    try:
        connection = mysql.connector.connect(
            unix_socket=str(socket), user="prodsys", password=password, database="prodsys", use_pure=True
        )
    except mysql.connector.Error:
        return False
    connection.close()
    return True


def stop_mariadb(parts: Parts) -> None:
    """End the server if it runs; its files go with the short directory."""
    for part in list(parts.running):
        if part.name == "mariadb":
            parts.end(part)
