"""The checker of a load run finds what it is for, and the pretended nodes' files are real ones."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import zlib
from collections import Counter
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from pilot.multijob.node import files
from simulators.cli import main
from simulators.load.checker import NEVER_ANSWERED, Row, Spawned, check, find_ends, work_of
from simulators.load.files import NoFaults, RealFiles
from simulators.load.kills import plan_kills, wrap_commands
from simulators.load.layout import LIVE_MAX, Shape

GOOD = Row(1, "finished", "load.0", 0, 0)
RAN = Spawned(1, True, None)


def found(rows: list[Row], spawned: list[Spawned]) -> tuple[int, int, int]:
    findings = check(["load.0"], rows, spawned)
    return len(findings.lost), len(findings.doubled), len(findings.stale)


def test_a_clean_run_has_no_findings() -> None:
    assert check(["load.0"], [GOOD], [RAN]).clean


def test_an_answer_lost_at_the_fetch_is_made_good_by_the_next_attempt() -> None:
    given_up = Row(2, "failed", "load.0", NEVER_ANSWERED, 0)
    assert check(["load.0"], [given_up, GOOD], [RAN]).clean


def test_work_without_a_finished_attempt_is_lost() -> None:
    assert found([replace(GOOD, status="failed", dispatcher_code=NEVER_ANSWERED)], [])[0] == 1
    assert found([], [])[0] == 1


def test_a_finished_job_without_its_output_is_lost() -> None:
    assert found([replace(GOOD, output=False)], [RAN])[0] == 1


def test_what_ran_or_finished_twice_is_doubled() -> None:
    second = replace(GOOD, panda_id=2)
    assert found([GOOD, second], [RAN])[1] == 1
    assert found([GOOD], [RAN, RAN])[1] >= 1
    assert (
        found(
            [GOOD, replace(second, status="failed", dispatcher_code=NEVER_ANSWERED)],
            [RAN, Spawned(2, True, None)],
        )[1]
        == 1
    )


def test_a_run_that_was_ended_early_and_given_again_is_not_doubled() -> None:
    given_up = Row(2, "failed", "load.0", NEVER_ANSWERED, 0)
    assert found([GOOD, given_up], [RAN, Spawned(2, True, "node died")])[1] == 0


@pytest.mark.parametrize(
    ("rows", "spawned"),
    [
        ([replace(GOOD, status="running")], [RAN]),
        ([GOOD], []),
        ([GOOD, Row(2, "failed", "load.0", 100, 0)], [RAN]),
        ([GOOD, Row(2, "failed", "load.0", 0, 1379)], [RAN]),
        ([GOOD], [RAN, Spawned(7, True, None)]),
    ],
    ids=["still-running", "finished-but-never-ran", "lost-heartbeat", "good-payload-failed", "unknown-job"],
)
def test_what_panda_says_and_the_nodes_do_not_is_stale(rows: list[Row], spawned: list[Spawned]) -> None:
    assert found(rows, spawned)[2] >= 1


def test_attempts_of_one_name_are_one_work() -> None:
    assert {work_of("load.7-1"), work_of("load.7-12")} == {"load.7"}


def test_the_machine_grows_with_the_jobs_up_to_its_limit() -> None:
    assert [Shape(n).live for n in (1, 512, 513, 10**6)] == [1, 1, 2, LIVE_MAX]


def test_pretended_nodes_write_real_files_from_pretended_ones(tmp_path) -> None:
    nodes = RealFiles(lambda client, path: f"{client}:{path}")
    target = str(tmp_path / "a/b/out")
    copied = nodes.perform("n1", files.CopyNew("/local/out", target))
    content = (tmp_path / "a/b/out").read_bytes()
    assert (content, copied.size, copied.adler32) == (b"n1:/local/out", 13, f"{zlib.adler32(content):08x}")
    with pytest.raises(FileExistsError):
        nodes.perform("n2", files.CopyNew("/local/out", target))
    journal = nodes.open_new("n1", str(tmp_path / "journal"))
    nodes.append("n1", journal, journal, "a\n")
    nodes.append("n1", journal, journal, "b\n")
    assert (tmp_path / "journal").read_text() == "a\nb\n"
    nodes.perform("n1", files.Put(str(tmp_path / "door"), "2", str(tmp_path / "door.tmp")))
    nodes.perform("n1", files.Link(target, str(tmp_path / "link")))
    assert ((tmp_path / "door").read_text(), os.stat(target).st_nlink) == ("2", 2)
    assert nodes.perform("n1", files.Pause(3600.0)) is None


def test_pretended_nodes_have_everything_that_agents_of_the_virtual_world_ask_of_their_files() -> None:
    world = Path(__file__).parents[4] / "simulators/world"
    text = "".join((world / name).read_text() for name in ("agents.py", "nodes.py", "floor.py"))
    asked = set(re.findall(r"shared\.(\w+)", text))
    assert asked and asked <= {*dir(RealFiles), *vars(RealFiles(lambda client, path: ""))}
    assert set(re.findall(r"shared\.faults\.(\w+)", text)) <= set(dir(NoFaults))


@pytest.mark.parametrize(
    "words",
    [
        ["--jobs", "0"],
        ["--jobs", "1", "--failing", "1"],
        ["--jobs", "1", "--lost", "1"],
        ["--jobs", "1", "--seconds", "0"],
        ["--jobs", "1", "--nodes", "0"],
        ["--jobs", "1", "--chunk", "401"],
        ["--jobs", "1", "--kills", "-1"],
        ["--jobs", "1", "--live", "13"],
    ],
)
def test_a_load_that_makes_no_sense_is_refused(words: list[str]) -> None:
    assert main(["load", *words]) == 2


def test_a_works_end_is_that_of_its_finished_attempt_with_its_files_checked(tmp_path: Path) -> None:
    content = b"what was written"
    report = {"m.a2.root": {"fsize": len(content), "adler32": f"{zlib.adler32(content):08x}"}}
    (tmp_path / "m.a2.root").write_bytes(content)
    first = {"job_name": "load.0-1", "status": "failed", "attributes": {"pilotErrorCode": 7}, "report": None}
    good = {
        "job_name": "load.0-2",
        "status": "finished",
        "attributes": {"nEvents": 5},
        "report": json.dumps(report),
    }
    placed = {"m.a2.root": tmp_path / "m.a2.root"}
    for order in ([first, good], [good, first]):
        end = find_ends(order, placed)["load.0"]
        assert end == {
            "status": "finished",
            "pilotErrorCode": None,
            "nEvents": 5,
            "files": {"m.root": True},
            "charged": 1,
        }
    (tmp_path / "m.a2.root").write_bytes(b"What was written")
    assert find_ends([good], placed)["load.0"]["files"] == {"m.root": False}
    assert find_ends([good], {})["load.0"]["files"] == {"m.root": False}


def test_of_fifty_kills_thirty_six_come_around_calls_and_commands_at_each_moment_three_times() -> None:
    kinds = Counter(kill.name for kill in plan_kills(50, Random(1)))
    assert kinds.pop("by chance") == 14
    assert set(kinds.values()) == {3} and len(kinds) == 12


@pytest.mark.parametrize(
    ("moment", "worked", "said"), [("before", 0, 0), ("worked", 1, 0), ("answered", 1, 1)]
)
def test_a_command_kills_its_caller_at_the_moment_that_was_asked_for(
    tmp_path: Path, moment: str, worked: int, said: int
) -> None:
    real, wrapped = tmp_path / "real", tmp_path / "wrapped"
    real.mkdir()
    (real / "qsub").write_text('#!/bin/sh\necho worked >>"$(dirname "$0")/log"\necho "7.sim"\n')
    (real / "qsub").chmod(0o755)
    command = f"{wrap_commands(wrapped, str(real))}/qsub"
    call = f"import subprocess; subprocess.run([{command!r}])"
    (wrapped / f"qsub.{moment}").touch()
    caller = subprocess.run([sys.executable, "-c", call], capture_output=True, text=True, check=False)
    assert caller.returncode == -signal.SIGKILL
    assert caller.stdout.count("7.sim") == said
    assert (real / "log").exists() == bool(worked)
    again = subprocess.run([sys.executable, "-c", call], capture_output=True, text=True, check=False)
    assert (again.returncode, again.stdout) == (0, "7.sim\n")
