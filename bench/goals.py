"""What is asked for (`goals.yaml`) as values, and the one function that says whether a figure holds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

PATH = Path(__file__).with_name("goals.yaml")
RUNS = 5
# "reported": asked for without a limit; it holds once it is measured.
OPERATORS: Mapping[str, Callable[[float, float], bool]] = {
    "<=": lambda value, figure: value <= figure,
    ">=": lambda value, figure: value >= figure,
    "==": lambda value, figure: value == figure,
}
REPORTED = "reported"
MEDIAN, WORST = "median", "worst"
_KEYS = frozenset({"name", "operator", "figure", "unit", "issue", "value", "runs", "reason"})


class BadGoals(Exception):
    """`goals.yaml` cannot be used; the text names the goal."""


@dataclass(frozen=True, slots=True)
class Goal:
    """One figure. `figure` None: reported only. `value`: how samples become one number. `runs`: how many at least.

    `reason`: why fewer runs than usual are enough, or "".
    """

    name: str
    operator: str
    figure: float | None
    unit: str
    issue: int
    value: str = MEDIAN
    runs: int = RUNS
    reason: str = ""

    def text(self) -> str:
        """The goal as one word or two."""
        return self.operator if self.figure is None else f"{self.operator} {self.figure:g}"


def holds(goal: Goal, value: float | None) -> bool:
    """Whether the figure keeps its goal. Not measured, or no number: it does not."""
    if value is None or not math.isfinite(value):
        return False
    return goal.figure is None or OPERATORS[goal.operator](value, goal.figure)


def value_of(goal: Goal, samples: Sequence[float], baselines: Sequence[float] | None) -> float:
    """The one number of all samples: the median, or the worst. With baselines, of each pair's ratio."""
    found = list(samples)
    if baselines is not None:
        found = [sample / base for sample, base in zip(samples, baselines, strict=True)]
    if goal.value == MEDIAN:
        return statistics.median(found)
    if goal.operator == "==" and goal.figure is not None:
        figure = goal.figure
        return max(found, key=lambda value: abs(value - figure))
    return min(found) if goal.operator == ">=" else max(found)


def load_goals(path: Path = PATH) -> tuple[Goal, ...]:
    """All goals in the order of the file; raises BadGoals."""
    raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(raw, list):
        raise BadGoals(f"{path}: expected a list of goals")
    goals = tuple(_goal(item) for item in raw)
    names = [goal.name for goal in goals]
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise BadGoals(f"{path}: stands twice: {', '.join(doubled)}")
    return goals


def _goal(raw: Any) -> Goal:
    if not isinstance(raw, dict) or not {"name", "operator", "figure", "unit", "issue"} <= set(raw):
        raise BadGoals(f"{raw!r}: expected name, operator, figure, unit, issue")
    unknown = sorted(set(raw) - _KEYS)
    if unknown:
        raise BadGoals(f"{raw['name']}: unknown: {', '.join(unknown)}")
    goal = Goal(**raw)
    problem = _problem(goal)
    if problem:
        raise BadGoals(f"{goal.name}: {problem}")
    return goal


def _problem(goal: Goal) -> str:
    if goal.operator not in (*OPERATORS, REPORTED):
        return f"operator {goal.operator!r}: expected one of {', '.join((*OPERATORS, REPORTED))}"
    if (goal.figure is None) != (goal.operator == REPORTED):
        return "a figure stands with every operator but reported, and never with reported"
    if goal.value not in (MEDIAN, WORST):
        return f"value {goal.value!r}: expected {MEDIAN} or {WORST}"
    if goal.runs < RUNS and not goal.reason:
        return f"{goal.runs} runs are fewer than {RUNS}: expected a reason"
    if goal.runs < 1:
        return "expected at least one run"
    return ""
