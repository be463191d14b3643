"""The count of servers begun for one node reads what each keeper says first."""

import subprocess
import sys

from bench.caldb import _ready

OTHERS = '{"kind": "ready", "shared": true}'
OWN = '{"kind": "ready"}'


def keeper(*lines: str, ends: bool = True) -> "subprocess.Popen[bytes]":
    code = f"import sys, time; print({chr(10).join(lines)!r}, flush=True)" + (
        "" if ends else "; sys.stdin.read()"
    )
    return subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def test_a_keeper_of_anothers_server_is_no_winner_though_it_goes_on() -> None:
    follower = keeper(OTHERS, ends=False)
    assert not _ready(follower)
    follower.communicate()


def test_a_keeper_with_a_server_of_its_own_is_a_winner() -> None:
    assert _ready(keeper('{"kind": "begun"}', OWN))


def test_a_keeper_that_ended_without_a_server_is_no_winner() -> None:
    assert not _ready(keeper('{"kind": "begun"}'))
