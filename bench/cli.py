"""`make bench`, `python -m bench`: exit 0 all chosen goals hold, 1 one does not, 2 usage, 3 a measurement broke."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from bench import goals as asked
from bench import results
from bench.measurement import Measurement
from bench.runner import measure

EXIT_HOLDS, EXIT_MISSES, EXIT_USAGE, EXIT_BROKE = 0, 1, 2, 3


def main(argv: Sequence[str] | None = None, measurements: Sequence[Measurement] | None = None) -> int:
    """Measure, write `results.json`, print one line for each chosen goal. `measurements` None: all of bench."""
    options = _parser().parse_args(argv)
    try:
        goals = asked.load_goals(options.goals)
        before = results.load_results(options.results)
    except (OSError, ValueError, asked.BadGoals) as error:
        print(f"bench: {error}", file=sys.stderr)
        return EXIT_USAGE
    chosen = {goal.name: goal for goal in goals if goal.name.startswith(options.only)}
    if not chosen:
        print(f"bench: no goal begins with {options.only!a}", file=sys.stderr)
        return EXIT_USAGE
    fresh: dict[str, results.Taken] = {}
    broke = False
    if not options.list:
        fresh, broke = measure(_all() if measurements is None else measurements, chosen, options.runs)
    entries = results.merge(goals, before, fresh)
    if not options.list and options.runs is None:
        results.save_results(options.results, entries)
    shown = [entry for entry in entries if entry["name"] in chosen]
    try:
        for entry in shown:
            print(results.render_line(entry))
        sys.stdout.flush()
    except BrokenPipeError:  # a reader that has seen enough
        sys.stderr.close()
    if broke:
        return EXIT_BROKE
    return EXIT_HOLDS if all(entry["holds"] for entry in shown) else EXIT_MISSES


def _all() -> Sequence[Measurement]:
    from bench.areas import all_measurements  # not for --help and --list: the areas import what they measure

    return all_measurements()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measures the figures of bench/goals.yaml by the shipped commands and merges them into "
        "bench/results.json. A goal without a measurement does not hold.",
        epilog="Exit code: 0 every chosen goal holds, 1 one does not, 2 wrong usage, 3 a measurement broke.",
    )
    parser.add_argument(
        "--only", default="", metavar="PREFIX", help="goals whose name begins so (default: all)"
    )
    parser.add_argument("--list", action="store_true", help="measure nothing, show what results.json says")
    parser.add_argument(
        "--runs", type=_positive, metavar="N", help="a quick try: N runs of each, results.json stays as it is"
    )
    parser.add_argument(
        "--goals", type=Path, default=asked.PATH, metavar="FILE", help="instead of bench/goals.yaml"
    )
    parser.add_argument(
        "--results", type=Path, default=results.PATH, metavar="FILE", help="instead of bench/results.json"
    )
    return parser


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"found {text!a}, expected a positive number")
    return int(text)
