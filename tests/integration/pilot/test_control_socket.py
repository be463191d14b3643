"""The control socket: a real unix socket, status without the loop, clear errors."""

from __future__ import annotations

import json
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from pilot.control import NAME, ControlError, ControlSocket, ask_daemon


@pytest.fixture
def served(tmp_path: Path) -> Iterator[ControlSocket]:
    control = ControlSocket(tmp_path)
    yield control
    control.close()


def test_status_is_the_last_published_document_and_needs_no_loop(
    served: ControlSocket, tmp_path: Path
) -> None:
    served.publish({"epoch": 1})
    served.publish({"epoch": 2, "text": "line\nbreak é"})
    assert ask_daemon(tmp_path, "status") == {"epoch": 2, "text": "line\nbreak é"}


def test_only_the_owner_may_ask(served: ControlSocket, tmp_path: Path) -> None:
    assert stat.S_IMODE(os.stat(tmp_path / NAME).st_mode) == 0o600


def test_the_path_of_the_state_directory_may_be_longer_than_a_sockets_name(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    control = ControlSocket(deep)
    control.publish({"deep": True})
    assert ask_daemon(deep, "status") == {"deep": True}
    control.close()
    assert not (deep / NAME).exists()


@pytest.mark.parametrize(
    "line", [b"\n", b"{\n", b"[]\n", b"7\n", b'{"verb": "rm"}\n', b"\xff\xfe\n", b"x" * 70000 + b"\n"]
)
def test_a_request_that_makes_no_sense_gets_an_error_and_harms_nobody(
    served: ControlSocket, tmp_path: Path, line: bytes
) -> None:
    served.publish({"epoch": 1})
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(f"/proc/self/fd/{fd}/{NAME}")
        connection.sendall(line)
        with connection.makefile("rb") as source:
            assert "error" in json.loads(source.readline())
    os.close(fd)
    assert ask_daemon(tmp_path, "status") == {"epoch": 1}


def test_a_silent_client_does_not_hold_up_the_others(served: ControlSocket, tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    with socket.socket(socket.AF_UNIX) as silent:
        silent.connect(f"/proc/self/fd/{fd}/{NAME}")
        assert ask_daemon(tmp_path, "status") == {}
    os.close(fd)


def test_no_daemon_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ControlError, match="no daemon runs on"):
        ask_daemon(tmp_path, "status")
    with pytest.raises(ControlError, match="no daemon runs on"):
        ask_daemon(tmp_path / "nowhere", "status")


def listen(state_dir: Path, backlog: int | None) -> socket.socket:
    """A socket in place of a daemon's; backlog None: nobody listens, as after a kill -9."""
    fd = os.open(state_dir, os.O_RDONLY | os.O_DIRECTORY)
    stand_in = socket.socket(socket.AF_UNIX)
    stand_in.bind(f"/proc/self/fd/{fd}/{NAME}")
    os.close(fd)
    if backlog is not None:
        stand_in.listen(backlog)
    return stand_in


def test_the_socket_of_a_killed_daemon_is_nobody_and_the_next_daemon_replaces_it(tmp_path: Path) -> None:
    listen(tmp_path, None).close()
    with pytest.raises(ControlError, match="nobody answers"):
        ask_daemon(tmp_path, "status")
    control = ControlSocket(tmp_path)
    assert ask_daemon(tmp_path, "status") == {}
    control.close()


def test_a_daemon_that_never_answers_ends_by_time_out(tmp_path: Path) -> None:
    with listen(tmp_path, 1), pytest.raises(ControlError, match="gave no answer"):
        ask_daemon(tmp_path, "status", timeout_s=0.1)


def test_an_overtaken_daemon_leaves_the_socket_of_the_newer_one(tmp_path: Path) -> None:
    older = ControlSocket(tmp_path)
    newer = ControlSocket(tmp_path)
    newer.publish({"epoch": 2})
    older.close()
    assert ask_daemon(tmp_path, "status") == {"epoch": 2}
    newer.close()
