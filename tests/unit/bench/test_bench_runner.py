"""The runner of `make bench`: what becomes of samples, what a goal without a measurement says, exit codes."""

from __future__ import annotations

import contextlib
import json
import math

import pytest

from bench.areas import all_measurements
from bench.cli import main
from bench.goals import BadGoals, Goal, holds, load_goals, value_of
from bench.measurement import CannotMeasure, Measurement, Pair, in_turn
from bench.node import count_file_calls
from bench.results import Taken, load_results, merge, render_entry

GOALS = """
- {name: a.fast_s, operator: "<=", figure: 2, unit: s, issue: 7}
- {name: a.ratio, operator: ">=", figure: 0.5, unit: ratio, issue: 7}
- {name: a.left_behind, operator: "==", figure: 0, unit: files, issue: 7, value: worst}
- {name: b.told, operator: reported, figure: null, unit: s, issue: 7, runs: 1, reason: slow}
"""


def measurement(*figures, take=None, **samples):
    """A measurement that gives each figure its samples in turn."""

    def in_order(run):
        return {name: values[run] for name, values in samples.items()}

    @contextlib.contextmanager
    def prepare(work):
        assert not list(work.iterdir())
        yield take or in_order

    return Measurement(figures or tuple(samples), "as told", prepare)


@pytest.fixture
def bench(tmp_path, capsys):
    (tmp_path / "goals.yaml").write_text(GOALS)

    def run(*argv, measurements=()):
        paths = ["--goals", str(tmp_path / "goals.yaml"), "--results", str(tmp_path / "results.json")]
        code = main([*paths, *argv], measurements)
        return code, capsys.readouterr().out, {e["name"]: e for e in load_results(tmp_path / "results.json")}

    return run


GOOD = measurement(
    **{
        "a.fast_s": [1.0, 9.0, 1.5, 1.0, 9.0],
        "a.ratio": [Pair(6, 10), Pair(1, 10), Pair(7, 10), Pair(6, 12), Pair(9, 10)],
        "a.left_behind": [0, 0, 0, 0, 0],
        "b.told": [4, 4, 4, 4, 4],
    }
)


def test_all_goals_held_is_exit_0_and_every_entry_says_how_it_came_about(bench):
    code, out, results = bench(measurements=[GOOD])
    assert code == 0
    assert len(out.splitlines()) == 4
    entry = results["a.ratio"]
    assert set(entry) == {
        *("name", "value", "unit", "goal", "holds", "how", "when"),
        *("samples", "baseline_samples", "load_before", "commit"),
    }
    assert (entry["value"], entry["goal"], entry["holds"]) == (0.6, ">= 0.5", True)
    assert (entry["samples"], entry["baseline_samples"]) == ([6, 1, 7, 6, 9], [10, 10, 10, 12, 10])
    assert results["a.fast_s"]["baseline_samples"] is None


def test_a_goal_without_a_measurement_does_not_hold(bench):
    code, out, results = bench()
    assert code == 1
    assert all(not entry["holds"] and entry["value"] is None for entry in results.values())
    assert "unmeasured" in out


def test_a_miss_is_exit_1(bench):
    bad = measurement(**{"a.fast_s": [3.0] * 5})
    assert bench("--only", "a.fast", measurements=[bad])[0] == 1


def test_a_measurement_that_breaks_is_exit_3_and_the_others_are_kept(bench):
    def broken(run):
        raise CannotMeasure("strace is not installed")

    code, _, results = bench(
        measurements=[measurement("a.fast_s", take=broken), measurement(**{"b.told": [4]})]
    )
    assert code == 3
    assert results["a.fast_s"]["how"] == "not measured: strace is not installed"
    assert (results["a.fast_s"]["holds"], results["b.told"]["holds"]) == (False, True)


def test_only_the_chosen_prefix_is_measured_and_the_rest_of_the_file_stays(bench):
    before = bench(measurements=[GOOD])[2]
    worse = measurement(**{"a.fast_s": [3.0] * 5, "b.told": [5] * 5})
    code, out, after = bench("--only", "b.", measurements=[worse])
    assert (code, len(out.splitlines())) == (0, 1)
    assert after["b.told"]["value"] == 5
    assert {**after, "b.told": None} == {**before, "b.told": None}


def test_a_kept_result_is_held_against_the_goal_of_today(bench, tmp_path):
    bench(measurements=[GOOD])
    (tmp_path / "goals.yaml").write_text(GOALS.replace("figure: 2", "figure: 1"))
    entry = bench("--only", "b.", measurements=[GOOD])[2]["a.fast_s"]
    assert (entry["goal"], entry["holds"]) == ("<= 1", False)


def test_a_quick_try_and_a_list_write_nothing(bench):
    assert bench("--runs", "1", "--only", "b.", measurements=[GOOD])[2] == {}
    assert bench("--list")[2] == {}


def test_an_unknown_prefix_and_unusable_goals_are_exit_2(bench, tmp_path):
    assert bench("--only", "c.")[0] == 2
    (tmp_path / "goals.yaml").write_text("- {name: x}\n")
    assert bench()[0] == 2


def test_safety_limits_take_the_worst_run_and_others_the_median():
    worst = Goal("n", "==", 0, "files", 7, value="worst")
    assert value_of(worst, [0, 0, 1, 0, 0], None) == 1
    assert value_of(Goal("n", "<=", 3, "calls", 7, value="worst"), [1, 4, 2], None) == 4
    assert value_of(Goal("n", ">=", 3, "calls", 7, value="worst"), [1, 4, 2], None) == 1
    assert value_of(Goal("n", "<=", 3, "s", 7), [1, 90, 2], None) == 2


@pytest.mark.parametrize("value", [None, math.nan, math.inf])
def test_what_is_no_number_never_holds(value):
    assert not holds(Goal("n", "<=", 3, "s", 7), value)
    assert not holds(Goal("n", "reported", None, "s", 7), value)


def test_samples_with_and_without_a_baseline_are_never_mixed():
    taken = Taken([Pair(1, 2), 1.0], "", "", 0.0, "")
    with pytest.raises(ValueError, match="some have none"):
        render_entry(Goal("n", "<=", 3, "s", 7), taken)


def test_entries_of_goals_that_are_gone_are_dropped():
    assert [e["name"] for e in merge([Goal("n", "<=", 3, "s", 7)], [{"name": "old", "value": 1}], {})] == [
        "n"
    ]


def test_every_second_pair_takes_its_baseline_first():
    order = []
    for run in range(2):
        in_turn(run, lambda: order.append("measured") or 1, lambda: order.append("baseline") or 1)
    assert order == ["measured", "baseline", "baseline", "measured"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{name: n, operator: '<', figure: 1, unit: s, issue: 7}", "operator"),
        ("{name: n, operator: '<=', figure: null, unit: s, issue: 7}", "figure"),
        ("{name: n, operator: '<=', figure: 1, unit: s, issue: 7, runs: 2}", "reason"),
        ("{name: n, operator: '<=', figure: 1, unit: s, issue: 7, value: best}", "value"),
        ("{name: n, operator: '<=', figure: 1, unit: s, issue: 7, colour: red}", "colour"),
    ],
)
def test_a_goal_that_makes_no_sense_is_named(tmp_path, line, words):
    (tmp_path / "g.yaml").write_text(f"- {line}\n")
    with pytest.raises(BadGoals, match=words):
        load_goals(tmp_path / "g.yaml")


def test_every_measurement_has_its_goal_and_no_figure_two_measurements():
    names = [name for item in all_measurements() for name in item.figures]
    assert sorted(set(names)) == sorted(names)
    assert set(names) <= {goal.name for goal in load_goals()}


def test_results_hold_an_entry_for_each_goal_and_no_other():
    from bench.results import PATH

    assert [entry["name"] for entry in json.loads(PATH.read_text())] == [goal.name for goal in load_goals()]


def test_file_calls_are_counted_once_and_only_before_the_start_line():
    trace = [
        '10 execve("/usr/bin/python3", ["python3"], 0x7 /* 3 vars */) = 0',
        '10 openat(AT_FDCWD, "/shared/agent.pyz", O_RDONLY <unfinished ...>',
        '11 stat("/etc/x", 0x7) = -1 ENOENT (No such file or directory)',
        "10 <... openat resumed>) = 3",
        "10 --- SIGCHLD {si_signo=SIGCHLD} ---",
        '10 write(3, "0000 {\\"kind\\":\\"agent_started\\"}", 30) = 30',
        '10 openat(AT_FDCWD, "/shared/later", O_RDONLY) = 4',
    ]
    assert count_file_calls(trace, "/shared") == (3, 1)
    with pytest.raises(CannotMeasure):
        count_file_calls(trace[:3], "/shared")
