"""Parts of the settings that are made from the configuration."""

import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from prodsys_core.config import MariaDb, Sqlite
from prodsys_core.yamlfile import BadFile


def database_settings(database: Sqlite | MariaDb) -> dict[str, Any]:
    """Django's DATABASES entry."""
    if isinstance(database, Sqlite):
        # IMMEDIATE: a transaction takes the write lock when it begins, so what it reads cannot change under it.
        # synchronous FULL: a committed batch must survive a power cut, or its jobs would be sent twice.
        begin = "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;"
        options = {"transaction_mode": "IMMEDIATE", "timeout": database.busy_s, "init_command": begin}
        return {"ENGINE": "django.db.backends.sqlite3", "NAME": database.path, "OPTIONS": options}
    options = {"isolation_level": "READ COMMITTED", "charset": "utf8mb4", "use_pure": True}
    return {
        "ENGINE": "mysql.connector.django",
        "NAME": database.name,
        "USER": database.user,
        "PASSWORD": read_secret(database.password_file) if database.password_file else "",
        "HOST": database.host,
        "PORT": "" if database.socket else str(database.port),
        "OPTIONS": options | ({"unix_socket": database.socket} if database.socket else {}),
    }


def read_secret(name: str) -> str:
    """Text of a secret's file; refuses one that others may read. Raises BadFile."""
    path = Path(name)
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & 0o077:
            raise BadFile([f"{path}: mode is {mode:04o}, expected 0600: others may read this secret"])
        return path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise BadFile([f"{path}: cannot be read: {error.strerror}"]) from error


def read_or_make_key(state_dir: str) -> str:
    """Django's secret key, made once as a file of mode 0600. Of two first starts one wins, both use its key."""
    path = Path(state_dir) / "secret-key"
    if not path.exists():
        _make_key(path)
    key = read_secret(str(path))
    if len(key) < 50:
        raise BadFile(
            [f"{path}: found {len(key)} characters, expected at least 50; remove it to have a new one made"]
        )
    return key


def _make_key(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile("w", dir=path.parent, prefix="secret-key.") as file:  # of mode 0600
            file.write(secrets.token_urlsafe(48) + "\n")
            file.flush()
            os.fsync(file.fileno())
            with suppress(FileExistsError):
                os.link(file.name, path)
    except OSError as error:
        raise BadFile([f"{path}: cannot be written: {error.strerror}"]) from error
