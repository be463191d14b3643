"""Where calibrations come from: no server, no constants, no defaults."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from simulators.payload.calibration_set import MIB, write_calibration_set
from simulators.payload.calibration_source import connection_options, fetch_constants
from simulators.payload.constants import true_constants
from simulators.payload.detector import tracking_planes
from simulators.payload.exits import Exit, PayloadError

RUN = 274495


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("calibrations")
    write_calibration_set(directory, RUN, 2, 5, 6 * MIB)
    return directory / "calibrations.sqlite"


def fetch(environment: dict[str, str], run: int = RUN) -> Exit:
    with pytest.raises(PayloadError) as caught:
        fetch_constants(tracking_planes(), run, environment, pauses_s=())
    expected = {Exit.NO_DATABASE: "can't connect to CDB database", Exit.CALIBRATION_MISSING: "calibration "}
    assert caught.value.message.startswith(expected[caught.value.code])
    return caught.value.code


def test_constants_of_the_run_come_from_the_database(database: Path) -> None:
    constants, fetched = fetch_constants(tracking_planes(), RUN, {"CDB_SQLITE": str(database)}, pauses_s=())
    assert fetched == 120
    for plane in tracking_planes():
        assert constants[plane.name].offset_mm == true_constants(5, RUN, plane).offset_mm


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"CDBSERVER": "localhost"},
        {"CDBSERVER": "0.0.0.0"},
        {"CDBSERVER": "127.0.0.1:x"},
        {"CDB_OPTION_FILE": "/nowhere/options.cnf"},
        {"MYSQL_UNIX_PORT": "/nowhere/s.sock"},
        {"CDBSERVER": "127.0.0.1:9"},
        {"CDB_SQLITE": "/nowhere/calibrations.sqlite"},
    ],
    ids=lambda words: ",".join(f"{name}={value}" for name, value in words.items()) or "nothing",
)
def test_no_database_is_an_error_of_its_own(environment: dict[str, str]) -> None:
    assert fetch(environment) == Exit.NO_DATABASE


def test_file_that_is_no_database_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "x.sqlite"
    path.write_bytes(b"SQLite format 3\0 but not really" * 100)
    assert fetch({"CDB_SQLITE": str(path)}) == Exit.NO_DATABASE


def test_run_outside_the_range_has_no_constants(database: Path) -> None:
    assert fetch({"CDB_SQLITE": str(database)}, run=RUN + 2) == Exit.CALIBRATION_MISSING


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM calib_iov WHERE detector = 'GM04Y1__' AND ctype = 'noise'",
        "DELETE FROM calib_payload WHERE payload_id IN (SELECT payload_id FROM calib_iov WHERE detector = 'GM04Y1__')",
        "UPDATE calib_payload SET data = x'00' WHERE payload_id IN "
        "(SELECT payload_id FROM calib_iov WHERE detector = 'GM04Y1__')",
    ],
)
def test_one_missing_or_unreadable_key_ends_the_job(database: Path, tmp_path: Path, statement: str) -> None:
    path = tmp_path / "x.sqlite"
    path.write_bytes(database.read_bytes())
    with sqlite3.connect(path) as connection:
        connection.execute(statement)
    connection.close()
    assert fetch({"CDB_SQLITE": str(path)}) == Exit.CALIBRATION_MISSING


def test_option_file_goes_first_and_localhost_means_the_socket(tmp_path: Path) -> None:
    option_file = tmp_path / "options.cnf"
    option_file.write_text("[client]\n")
    socket = {"CDBSERVER": "localhost", "MYSQL_UNIX_PORT": "/run/s.sock"}
    both = connection_options(socket | {"CDB_OPTION_FILE": str(option_file)})
    assert both["option_files"] == str(option_file) and "unix_socket" not in both
    assert connection_options(socket)["unix_socket"] == "/run/s.sock"
    tcp = connection_options({"CDBSERVER": "127.0.0.1:3310", "MYSQL_UNIX_PORT": "/run/s.sock"})
    assert (tcp["host"], tcp["port"]) == ("127.0.0.1", 3310) and "unix_socket" not in tcp


def test_lost_connection_is_made_again_and_nothing_fetched_twice(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from simulators.payload import calibration_source

    fetched: list[tuple[str, str]] = []
    fetch_one = calibration_source._fetch_one

    def failing_once(cursor: object, placeholder: str, key: tuple[str, str], run: int) -> bytes:
        fetched.append(key)
        if len(fetched) == 50:
            raise sqlite3.OperationalError("server went away")
        return fetch_one(cursor, placeholder, key, run)

    monkeypatch.setattr(calibration_source, "_fetch_one", failing_once)
    _, count = fetch_constants(tracking_planes(), RUN, {"CDB_SQLITE": str(database)}, pauses_s=(0,))
    assert count == 120
    assert len(fetched) == 121 and len(set(fetched)) == 120
