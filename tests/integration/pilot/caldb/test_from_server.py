"""A snapshot of a running server: the same rows, or those that were asked for, byte by byte."""

from __future__ import annotations

import select
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from snapkit import DUMP, PROBE, no_server, write_dump

from pilot.caldb import plan as plans
from pilot.caldb.plan import Address, KeeperPlan
from pilot.caldb.query import Connection
from pilot.caldb.server import Server
from pilot.caldb.snapshot import Snapshot, build_snapshot, check_snapshot, read_snapshot
from pilot.caldb.unpack import copy_snapshot, unpack_snapshot
from pilot.cli import main

pytestmark = pytest.mark.skipif(no_server, reason="mariadbd is not installed")

ODD = DUMP + (
    "CREATE TABLE odd (k INT PRIMARY KEY, t TEXT, b BLOB, d DATETIME, f DOUBLE, n DECIMAL(10,3)) "
    "DEFAULT CHARSET=utf8mb4;\n"
    "INSERT INTO odd VALUES (1, 'a\\'b\\\\c;\\nd\\0e\\r-- x', 0x00270a5c0d, '2020-02-03 04:05:06', -1.5e-300, 12.345),"
    "(2, NULL, NULL, NULL, NULL, NULL), (3, 'grün €', '', '1999-12-31', 0, 0);\n"
)
ROWS = "SELECT k, HEX(t), HEX(b), d, f, n FROM odd ORDER BY k"
PAYLOADS = "SELECT payload_id, size, HEX(data) FROM calib_payload ORDER BY payload_id"


class _Patience:
    stopping = False

    def wait(self, timeout_s: float | None, *others: Any) -> list[Any]:
        return select.select(others, (), (), min(timeout_s or 1.0, 0.05))[0]


@pytest.fixture
def serve(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Starts a server on a snapshot, as a node would; gives its address and its option file."""
    servers = []

    def start(snapshot: Snapshot) -> tuple[Address, Path]:
        directory = tmp_path_factory.mktemp("s")
        unpack_snapshot(snapshot.path, f"{directory}/dd").wait()
        probe = snapshot.probe
        words = ("mariadb", snapshot.path, snapshot.sha256, probe["sql"], probe["expect"], "tcp", None)
        servers.append(Server(KeeperPlan(*words, str(directory), 60.0, 0), _Patience()))
        servers[-1].start(new_port=True)
        options = tmp_path_factory.mktemp("o") / "client.cnf"
        options.write_text(plans.option_file(servers[-1].address))
        options.chmod(0o600)
        return servers[-1].address, options

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def source(serve: Any, tmp_path: Path) -> tuple[Address, Path]:
    first = build_snapshot(write_dump(tmp_path, ODD), tmp_path / "first", identity="one", probe_sql=PROBE)
    address, options = serve(first)
    return address, options


def rows_of(address: Address, sql: str) -> Any:
    with Connection(address, plans.ACCOUNT, plans.DATABASE) as connection:
        return connection.rows(sql)


def build(options: Path, out: Path, *more: str) -> int:
    words = ["--from-server", str(options), "--database", "calib", "--identity", "two", "--probe", PROBE]
    return main(["caldb", "build", str(out), *words, *more])


def test_the_copy_of_a_running_server_answers_the_same_bytes(serve: Any, source: Any, tmp_path: Path) -> None:
    address, options = source
    assert build(options, tmp_path / "second") == 0
    copy = check_snapshot(tmp_path / "second")
    assert copy.source == "calib at 127.0.0.1"
    again, _ = serve(copy)
    for sql in (ROWS, PAYLOADS, "SELECT * FROM calib_iov ORDER BY payload_id", "SHOW COLUMNS FROM odd"):
        assert rows_of(again, sql) == rows_of(address, sql)


def test_a_cut_copy_answers_the_same_bytes_for_what_is_left(serve: Any, source: Any, tmp_path: Path) -> None:
    address, options = source
    cut = ["--where", "calib_payload=payload_id >= 2 AND size = 4", "--where", "odd=k=1", "--runs", "1", "9"]
    assert build(options, tmp_path / "cut", *cut) == 0
    copy = read_snapshot(tmp_path / "cut")
    assert copy.run_range == (1, 9)
    again, _ = serve(copy)
    whole = rows_of(address, PAYLOADS)
    assert rows_of(again, PAYLOADS) == tuple(row for row in whole if row[0] == "2")
    assert rows_of(again, ROWS) == rows_of(address, ROWS)[:1]


def test_the_sqlite_copy_has_the_same_rows(source: Any, tmp_path: Path) -> None:
    _, options = source
    assert (
        build(options, tmp_path / "lite", "--backend", "sqlite", "--where", "odd=k > 1", "--runs", "1", "9")
        == 0
    )
    copy_snapshot(str(tmp_path / "lite"), str(tmp_path / "copy"))
    database = sqlite3.connect(tmp_path / "copy")
    assert database.execute("SELECT data FROM calib_payload WHERE payload_id = 2").fetchone() == (
        b"\0\xff'd",
    )
    assert database.execute("SELECT t FROM odd WHERE k = 3").fetchone() == ("grün €",)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda options: options.chmod(0o640), "mode 0600"),
        (lambda options: options.unlink(), "No such file"),
        (
            lambda options: options.write_text("[client]\nhost=127.0.0.1\nport=1\nprotocol=tcp\n"),
            "127.0.0.1:1",
        ),
    ],
)
def test_a_server_that_cannot_be_read_leaves_nothing(
    source: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: Any, words: str
) -> None:
    _, options = source
    change(options)
    assert build(options, tmp_path / "none") == 1
    assert words in capsys.readouterr().err
    assert not list(tmp_path.glob("none*"))


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--where", "nothing=1", "--runs", "1", "9"], "no table nothing"),
        (["--where", "odd"], "TABLE=SQL"),
        (["--where", "odd=(", "--runs", "1", "9"], "1064"),
        (["--where", "odd=k=1"], "--runs FIRST LAST"),
    ],
)
def test_a_wrong_condition_is_named(
    source: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], words: str
) -> None:
    assert build(source[1], tmp_path / "none", *more) == 1
    assert words in capsys.readouterr().err
    assert not list(tmp_path.glob("none*"))
