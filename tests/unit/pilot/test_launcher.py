"""Launchers are data: one process on one more node."""

from __future__ import annotations

from pathlib import Path

import pytest

from pilot.launcher import KINDS, make_launcher

EXPECTED = {
    "aprun": ("aprun", "-n", "1", "-N", "1", "-d", "32", "-cc", "none", "-b", "agent", "--node", "2"),
    "srun": (
        *("srun", "--nodes=1", "--ntasks=1", "--cpus-per-task=32", "--relative=2", "--overlap"),
        *("--no-kill", "--kill-on-bad-exit=0", "agent", "--node", "2"),
    ),
    "mpiexec": ("mpiexec", "-n", "1", "--host", "+n2", "--bind-to", "none", "agent", "--node", "2"),
    "pbsdsh": ("pbsdsh", "-n", "64", "agent", "--node", "2"),
    "local": ("agent", "--node", "2"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_command_of_each_kind(kind):
    assert make_launcher(kind, 32).command(2, ("agent", "--node", "2")) == EXPECTED[kind]
    assert KINDS[kind].reason


def test_words_of_the_config_replace_those_of_the_kind():
    launcher = make_launcher("aprun", 4, ["aprun", "-q", "-n", "1", "-d", "$slots"])
    assert launcher.command(0, ("a",)) == ("aprun", "-q", "-n", "1", "-d", "4", "a")


def test_argv_is_passed_on_untouched():
    assert make_launcher("local", 4).command(0, ("$slots", "a b")) == ("$slots", "a b")


@pytest.mark.parametrize(
    ("kind", "slots", "words"),
    [("yod", 4, None), ("aprun", 0, None), ("aprun", 4, ["$x"]), ("local", 4, ["$"])],
)
def test_bad_input_is_named(kind, slots, words):
    with pytest.raises(ValueError, match=r"expected|may follow"):
        make_launcher(kind, slots, words)


def test_a_launcher_that_never_started_an_agent_is_marked_on_the_page():
    page = (Path(__file__).parents[3] / "docs/architecture/configuration.md").read_text()
    [row] = [line for line in page.splitlines() if line.startswith("| `launcher.kind`")]
    untried = sorted(kind for kind, launcher in KINDS.items() if not launcher.tried)
    assert f"{' and '.join(untried)} from their manuals, *untried*" in row
