"""`simsite fuzz`: exit 0 clean, 1 a violation, 2 usage, 3 the harness itself broke."""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path

from simulators.world.campaign import Broke, Totals, command, fault_names, run_seeds
from simulators.world.checkers import CHECKERS
from simulators.world.fuzz import Result
from simulators.world.rest import REST

EXIT_CLEAN, EXIT_VIOLATION, EXIT_USAGE, EXIT_BROKE = 0, 1, 2, 3
# More violations of one seed are counted, not told.
TOLD_MAX = 20


def run_fuzz(seeds: str, workers: int, cover: bool, totals_file: Path | None) -> int:
    """Run the seeds, tell what went wrong, print totals. Returns the exit code."""
    found = re.fullmatch(r"(\d{1,18})(?:-(\d{1,18}))?", seeds)
    first, last = (int(found.group(1)), int(found.group(2) or found.group(1))) if found else (1, 0)
    if last < first or workers < 1:
        print(f"simsite: --seeds {seeds!a}: expected a number or A-B with A <= B", file=sys.stderr)
        return EXIT_USAGE
    begun_s, totals, broke = time.monotonic(), Totals(), 0
    wanted = range(first, last + 1)
    for result in run_seeds(wanted, min(workers, len(wanted))):
        if isinstance(result, Broke):
            broke += 1
            print(f"seed {result.seed}: the harness broke\n{result.text}repeat: {command(result.seed)}")
            continue
        totals.add(result)
        if result.violations:
            _tell(result)
        elif len(wanted) == 1:
            print(f"seed {result.seed}: clean, trace {result.trace_hash}")
        if sys.stderr.isatty():
            print(f"\r{totals.seeds} of {len(wanted)} seeds", end="", file=sys.stderr)
    lines = render(totals, time.monotonic() - begun_s, first, last)
    print("\n".join(lines))
    missing = list(totals.missing()) if cover else []
    for item in missing:
        print(f"missing: {item}")
    if totals_file is not None:
        totals_file.write_text("\n".join(lines) + "\n")
    if broke:
        return EXIT_BROKE
    return EXIT_VIOLATION if totals.violations or missing else EXIT_CLEAN


def _tell(result: Result) -> None:
    for line in result.story:
        print(line)
    for item in result.violations[:TOLD_MAX]:
        print(f"seed {result.seed}: {item.checker}: {item.story}")
    if len(result.violations) > TOLD_MAX:
        print(f"seed {result.seed}: and {len(result.violations) - TOLD_MAX} more")
    print(f"repeat: {command(result.seed)}\n", flush=True)


def render(totals: Totals, took_s: float, first: int, last: int) -> list[str]:
    """Totals as Markdown."""
    cpu_ms = 1e6 * totals.cpu_s / max(1, totals.jobs)
    lines = [
        f"# Seeds {first} to {last}",
        "",
        f"{totals.seeds} seeds, {totals.jobs} jobs, {totals.bundles} bundles, {totals.events} events, "
        f"{totals.virtual_s / 3600:.0f} virtual hours; {took_s:.0f} s, {totals.cpu_s:.0f} s CPU, "
        f"{cpu_ms:.0f} ms CPU per 1,000 job lives.",
        "",
        "| fault | seeds in which it changed something | with a crash |",
        "|---|---|---|",
    ]
    lines += [f"| {kind} | {totals.seeds_of[kind]} | {totals.with_crash[kind]} |" for kind in fault_names()]
    lines += ["", "| checker | violations |", "|---|---|"]
    checkers = (*CHECKERS, *REST, "heartbeat_lost", "accepted_twice", "fold_differs")
    lines += [f"| {name} | {totals.violations[name]} |" for name in checkers]
    for name, counts in sorted(totals.occurred.items()):
        lines += ["", f"| {name} | times |", "|---|---|"]
        lines += [f"| {item} | {count} |" for item, count in sorted(counts.items())]
    return lines
