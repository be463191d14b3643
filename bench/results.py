"""`results.json`: one entry for each goal, whatever was measured this time. Pure but for load and save."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.goals import Goal, holds, value_of
from bench.measurement import Pair, Sample

PATH = Path(__file__).with_name("results.json")
DIGITS = 6

Entry = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Taken:
    """What was measured of one figure, and under which circumstances. No samples: `how` says why."""

    samples: Sequence[Sample]
    how: str
    when: str
    load_before: float
    commit: str


def render_entry(goal: Goal, taken: Taken | None) -> Entry:
    """One entry. A goal without a measurement has no value and does not hold."""
    samples = list(taken.samples) if taken is not None else []
    pairs = [sample for sample in samples if isinstance(sample, Pair)]
    if pairs and len(pairs) != len(samples):
        raise ValueError(f"{goal.name}: some samples have a baseline and some have none")
    measured = [sample.measured for sample in pairs] or [float(s) for s in samples if not isinstance(s, Pair)]
    baselines = [sample.baseline for sample in pairs] or None
    value = value_of(goal, measured, baselines) if samples else None
    return {
        "name": goal.name,
        "value": _short(value),
        "unit": goal.unit,
        "goal": goal.text(),
        "holds": holds(goal, value),
        "how": taken.how if taken is not None else "not measured",
        "when": taken.when if taken is not None else None,
        "samples": [_short(sample) for sample in measured],
        "baseline_samples": [_short(base) for base in baselines] if baselines is not None else None,
        "load_before": taken.load_before if taken is not None else None,
        "commit": taken.commit if taken is not None else None,
    }


def merge(goals: Sequence[Goal], before: Sequence[Entry], fresh: Mapping[str, Taken]) -> list[Entry]:
    """An entry for each goal: the fresh one, else the one before held against the goal of today, else none."""
    old = {entry["name"]: entry for entry in before}
    entries = []
    for goal in goals:
        if goal.name in fresh or goal.name not in old:
            entries.append(render_entry(goal, fresh.get(goal.name)))
        else:
            kept = old[goal.name]
            now = {"unit": goal.unit, "goal": goal.text(), "holds": holds(goal, kept["value"])}
            entries.append({**kept, **now})
    return entries


def load_results(path: Path) -> list[Entry]:
    """The entries of a file, none if there is no file. Raises ValueError for a file that is none."""
    if not path.exists():
        return []
    found = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(found, list) or not all(isinstance(item, dict) and "name" in item for item in found):
        raise ValueError(f"{path}: expected a list of results")
    return found


def save_results(path: Path, entries: Sequence[Entry]) -> None:
    """By temp name and rename: a reader sees all of the old or all of the new."""
    temp = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    lines = ",\n".join(" " + json.dumps(entry) for entry in entries)
    temp.write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    temp.replace(path)


def render_line(entry: Entry) -> str:
    """One figure for people and pipes: words in columns."""
    value = "-" if entry["value"] is None else f"{entry['value']:g}"
    word = "holds" if entry["holds"] else ("MISSES" if entry["value"] is not None else "unmeasured")
    runs = f"{len(entry['samples'])} runs" if entry["samples"] else entry["how"]
    return f"{entry['name']:<34} {value:>12} {entry['unit']:<12} {entry['goal']:<12} {word:<10} {runs}"


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.{DIGITS}g}")
