"""Seeds of the virtual world: anything may fail, then all is healed; no checker finds a violation."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from simulators.cli import main
from simulators.panda.dispatch import HttpReply, HttpRequest
from simulators.world.campaign import Broke, attempt
from simulators.world.checkers import Violation
from simulators.world.faults.calls import journal_full
from simulators.world.faults.fault import Fault, Site
from simulators.world.faults.nodes import node_death_job_stays
from simulators.world.faults.panda import panda_outage, person_ends_a_job, server_restored, submission_goes_on
from simulators.world.faults.people import operator_order
from simulators.world.fuzz import Result, run_seed
from simulators.world.fuzz_cli import wanted_seeds
from simulators.world.panda import Wire
from simulators.world.seeds import make_seeded


@pytest.mark.parametrize("seed", (1, 2, 9))
def test_a_seed_is_clean(seed: int) -> None:
    result = attempt(seed)
    assert isinstance(result, Result), result
    told = [*result.story, *(f"{item.checker}: {item.story}" for item in result.violations)]
    assert not result.violations, "\n".join([*told, f"repeat: simsite fuzz --seeds {seed}"])


def _with_only(kind: Callable[[Site], Fault]) -> list[str]:
    """What checkers report in two seeds in which one fault of this kind changes something."""
    told, fired = [], 0
    for seed in range(1, 20):
        result = run_seed(seed, (kind,))
        if result.faults[kind.__name__.replace("_", "-")]:
            fired += 1
            told += [f"seed {seed}: {item.checker}: {item.story}" for item in result.violations]
        if fired == 2:
            return told
    raise AssertionError(f"{kind.__name__} changed something in {fired} seeds")


@pytest.mark.parametrize(
    "kind",
    [
        panda_outage,
        server_restored,
        operator_order,
        journal_full,
        node_death_job_stays,
        submission_goes_on,
        person_ends_a_job,
    ],
)
def test_one_kind_of_fault_alone_leaves_nothing_wrong(kind: Callable[[Site], Fault]) -> None:
    assert not _with_only(kind)


def test_the_same_seed_gives_the_same_trace_and_another_seed_another() -> None:
    assert run_seed(5).trace_hash == run_seed(5).trace_hash != run_seed(6).trace_hash


def test_a_seed_has_two_queues_200_jobs_3_kinds_of_fault_and_a_crash() -> None:
    for seed in range(1, 50):
        seeded = make_seeded(seed)
        kinds = {fault.kind for fault in seeded.faults}
        assert len(seeded.world.limits.queues) == 2
        assert len(kinds) >= 3
        assert kinds & {"crash", "crash-at-effect"}
    result = run_seed(1)
    assert result.jobs >= 200
    assert result.bundles >= 5
    assert result.virtual_s >= 24 * 3600.0


def test_an_exception_is_a_broken_harness_and_no_violation() -> None:
    def run(seed: int) -> Result:
        raise KeyError("lost")

    broke = attempt(7, run)
    assert isinstance(broke, Broke)
    assert "KeyError" in broke.text


def _fuzz(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "simulators.cli", "fuzz", *words], capture_output=True, text=True, check=False
    )


def test_the_command_tells_totals_and_its_exit_code() -> None:
    done = _fuzz("--seeds", "1-2", "--workers", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 seeds" in done.stdout
    assert "| run_twice | 0 |" in done.stdout
    usage = _fuzz("--seeds", "9-2")
    assert usage.returncode == 2
    assert "expected a number or A-B" in usage.stderr


def test_a_violation_prints_its_story_and_the_command_that_repeats_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from simulators.world import campaign, fuzz_cli

    def run(seeds: list[int], workers: int) -> Iterator[Result]:
        for seed in seeds:
            result = run_seed(seed)
            result.violations = [Violation("run_twice", "job (3, 1) ran 2 times")]
            result.story = make_seeded(seed).story()
            yield result

    monkeypatch.setattr(fuzz_cli, "run_seeds", run)
    assert main(["fuzz", "--seeds", "4", "--workers", "1"]) == fuzz_cli.EXIT_VIOLATION
    text = capsys.readouterr().out
    assert "seed 4: run_twice: job (3, 1) ran 2 times" in text
    assert f"repeat: {campaign.command(4)}" in text
    assert "crash" in text


def test_known_flaws_are_listed_and_a_seed_runs_with_one() -> None:
    listed = _fuzz("--list-mutants")
    assert listed.returncode == 0
    assert "world-checked-success-by-default\t" in listed.stdout
    unknown = _fuzz("--seeds", "1", "--mutant", "../x")
    assert (unknown.returncode, unknown.stdout) == (2, "")
    assert "see simsite fuzz --list-mutants" in unknown.stderr


def test_a_flaw_of_the_protocol_is_found_by_a_seed() -> None:
    done = _fuzz("--seeds", "1", "--mutant", "world-checked-final-without-attemptnr")
    assert done.returncode == 1, done.stdout[-2000:] + done.stderr
    assert "final_without_attempt" in done.stdout


@pytest.mark.parametrize(
    ("text", "said"), [("12 # a\nx7\n", "line 2: 'x7'"), ("# nothing\n", "there is no seed in it")]
)
def test_a_list_of_seeds_with_something_else_in_it_is_refused(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "seeds").write_text(text)
    with pytest.raises(ValueError, match=re.escape(said)):
        wanted_seeds(None, tmp_path / "seeds")


def test_seeds_that_failed_once_run_first_and_none_runs_twice(tmp_path: Path) -> None:
    (tmp_path / "seeds").write_text("# once\n700  # a story\n2\n")
    assert wanted_seeds("1-3", tmp_path / "seeds") == [700, 2, 1, 3]


def test_the_trace_of_a_seed_depends_on_the_seed_alone(tmp_path: Path) -> None:
    root = str(Path(__file__).parents[2])
    found = set()
    for hash_seed, zone, folder, workers in (
        ("1", "UTC", root, "1"),
        ("2", "Asia/Tokyo", str(tmp_path), "2"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "simulators.cli", "fuzz", "--seeds", "3", "--workers", workers],
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "TZ": zone, "PYTHONPATH": root},
            cwd=folder,
            capture_output=True,
            text=True,
            check=True,
        )
        found.add(done.stdout.splitlines()[0])
    assert len(found) == 1
    assert "trace" in found.pop()


def test_one_changed_answer_changes_the_trace() -> None:
    hashes = []
    for change in (False, True):
        world = make_seeded(3, ()).world
        wire = world.wires["panda"]
        left = [change]

        def spoil(wire: Wire, client: str, request: HttpRequest, work: Callable[[], HttpReply]) -> HttpReply:
            reply = work()
            if left[0] and "getJob" in request.path and "PandaID" in reply.text:  # noqa: B023
                left[0] = False  # noqa: B023
                return replace(reply, text=reply.text + " ")
            return reply

        wire.spoil = spoil
        world.start_daemon()
        world.run(8 * 3600.0)
        hashes.append(world.trace_hash())
        assert left == [False]
    assert hashes[0] != hashes[1]
