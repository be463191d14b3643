"""One errand for an input: what arrives is what was declared and what is there, or nothing arrives."""

from __future__ import annotations

import os
import zlib
from functools import partial

import pytest
from simfiles import SimFiles

from pilot.multijob.node.files import CopyNew, Pause, perform, run_steps
from pilot.multijob.node.provision import (
    Drop,
    Fetch,
    Look,
    Outcome,
    RunCommand,
    command_words,
    errand_steps,
)

CONTENT = b"raw data"
SUM = f"{zlib.adler32(CONTENT):08x}"


def carry_out(request, run=None):
    """On real files; pauses are none, a command is `run`."""

    def one(operation):
        if isinstance(operation, Pause):
            return None
        if isinstance(operation, RunCommand):
            return run(operation)
        return perform(operation)

    return run_steps(errand_steps(request), one)


def fetch(tmp_path, **changes):
    source = tmp_path / "a.raw"
    source.write_bytes(CONTENT)
    request = Fetch(str(source), str(tmp_path / "input.1"), len(CONTENT), None, None, (), 3, 60.0)
    return request._replace(**changes)


def names(tmp_path):
    return sorted(path.name for path in tmp_path.iterdir())


def test_a_file_is_copied_and_nothing_else_stays(tmp_path):
    assert carry_out(fetch(tmp_path, size=8, adler32=SUM)) == Outcome(8)
    assert (tmp_path / "input.1").read_bytes() == CONTENT
    assert names(tmp_path) == ["a.raw", "input.1"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"size": 9}, "bytes: found 8, expected 9"),
        ({"seen": 7}, "bytes: found 8, expected 7"),
        ({"adler32": "00000001"}, f"adler32: found {SUM}, expected 00000001"),
    ],
)
@pytest.mark.parametrize("command", [(), ("get", "{source}", "{target}")])
def test_what_is_not_as_declared_or_seen_never_arrives(tmp_path, changes, words, command):
    def run(order):
        perform(CopyNew(order.argv[1], order.argv[2]))

    outcome = carry_out(fetch(tmp_path, command=command, **changes), run)
    assert words in outcome.trouble
    assert not outcome.absent, "the file is there"
    assert names(tmp_path) == ["a.raw"]


def test_a_command_gets_its_paths_as_words_and_is_tried_again(tmp_path):
    orders = []

    def run(order):
        orders.append(order)
        if len(orders) < 3:
            (tmp_path / "input.1.part").write_bytes(b"half")
            raise OSError(5, "ended with exit code 1")
        (tmp_path / "input.1.part").write_bytes(CONTENT)

    request = fetch(tmp_path, command=("get", "-f", "root://h/{source}", "{target}"), adler32=SUM)
    assert carry_out(request, run) == Outcome(8)
    argv = ("get", "-f", f"root://h/{tmp_path}/a.raw", f"{tmp_path}/input.1.part")
    assert orders == [RunCommand(argv, 60.0)] * 3
    assert names(tmp_path) == ["a.raw", "input.1"]


@pytest.mark.parametrize("tries", [1, 2, 5])
def test_a_command_that_always_fails_is_given_up_and_says_why(tmp_path, tries):
    count = []

    def run(order):
        count.append(order)
        raise OSError(5, "xrdcp ended with exit code 51: no route")

    outcome = carry_out(fetch(tmp_path, command=("xrdcp", "{source}", "{target}"), tries=tries), run)
    assert outcome.trouble == f"{tmp_path}/a.raw: xrdcp ended with exit code 51: no route"
    assert not outcome.absent
    assert len(count) == tries


def test_a_command_that_brings_nothing_has_not_succeeded(tmp_path):
    request = fetch(tmp_path, command=("true", "{source}", "{target}"), seen=None)
    assert carry_out(request, lambda order: None).trouble
    assert carry_out(request, lambda order: (tmp_path / "input.1.part").write_bytes(b"")).trouble
    assert names(tmp_path) == ["a.raw"]


def test_a_path_that_looks_like_a_placeholder_stays_what_it_is():
    words = command_words(("get", "{source}:{target}"), "/raw/{target} $(x) ;", "/own/{source}")
    assert words == ("get", "/raw/{target} $(x) ;:/own/{source}")


def test_a_copy_that_takes_too_long_is_ended(tmp_path):
    outcome = carry_out(fetch(tmp_path, try_s=-1.0))
    assert "not read in" in outcome.trouble
    assert names(tmp_path) == ["a.raw"]


def make(kind, path):
    if kind == "directory":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "empty":
        path.touch()
    elif kind == "loop":
        path.symlink_to(path)


@pytest.mark.parametrize("kind", ["missing", "directory", "pipe", "empty", "loop"])
def test_an_input_that_is_no_file_with_content_is_absent(tmp_path, kind):
    make(kind, tmp_path / "x")
    outcome = carry_out(Look(str(tmp_path / "x"), None, 4))
    assert outcome.absent
    assert outcome.trouble.startswith(str(tmp_path / "x"))


def test_a_look_says_the_size_and_compares_it_with_the_declared_one(tmp_path):
    (tmp_path / "x").write_bytes(CONTENT)
    assert carry_out(Look(str(tmp_path / "x"), 8, 4)) == Outcome(8)
    outcome = carry_out(Look(str(tmp_path / "x"), 9, 4))
    assert "expected 9" in outcome.trouble
    assert not outcome.absent


def test_a_look_that_fails_is_made_again_and_an_error_that_says_nothing_is_no_absence():
    sim = SimFiles(**{"/raw/a": "x"})
    failures = [OSError(5, "I/O error"), FileNotFoundError(2, "not seen yet", "/raw/a")]

    def answer(operation):
        if isinstance(operation, Pause):
            return sim.perform(operation)
        if failures:
            raise failures.pop(0)
        return 1

    assert run_steps(errand_steps(Look("/raw/a", None, 4)), answer) == Outcome(1)
    assert sim.slept_s == 2.5
    failures[:] = [OSError(5, "I/O error")] * 9
    outcome = run_steps(errand_steps(Look("/raw/a", None, 4)), answer)
    assert (outcome.trouble, outcome.absent) == ("/raw/a: I/O error", False)


def test_whatever_fails_even_a_pause_an_errand_ends_with_an_outcome():
    def broken(operation):
        raise OSError(5, "I/O error")

    outcome = run_steps(errand_steps(Look("/raw/a", None, 4)), broken)
    assert (outcome.trouble, outcome.absent) == ("/raw/a: I/O error", False)


def test_a_local_disk_without_room_is_no_absent_input(tmp_path):
    def full(operation):
        if isinstance(operation, CopyNew):
            raise OSError(28, "No space left on device", operation.target)
        return None if isinstance(operation, Pause) else perform(operation)

    outcome = run_steps(errand_steps(fetch(tmp_path)), full)
    assert "No space left" in outcome.trouble
    assert not outcome.absent
    (tmp_path / "gone").mkdir()
    gone = fetch(tmp_path, target=str(tmp_path / "gone" / "x" / "input.1"))
    lost = partial(_no_target, gone)
    assert not run_steps(errand_steps(gone), lost).absent


def _no_target(request, operation):
    if isinstance(operation, CopyNew):
        raise FileNotFoundError(2, "No such file or directory", request.target + ".part")
    return None if isinstance(operation, Pause) else perform(operation)


def test_a_dropped_file_is_gone_and_one_that_is_not_there_is_too(tmp_path):
    (tmp_path / "x").touch()
    assert carry_out(Drop(str(tmp_path / "x"))) == Outcome()
    assert carry_out(Drop(str(tmp_path / "x"))) == Outcome()
    assert names(tmp_path) == []
