"""`simsite fuzz`: exit 0 clean, 1 a violation, 2 usage, 3 the harness itself broke."""

from __future__ import annotations

import re
import sys
import time
from argparse import Namespace
from pathlib import Path

from simulators.world.campaign import Broke, Totals, command, fault_names, run_seeds
from simulators.world.checkers import CHECKERS
from simulators.world.fuzz import Result
from simulators.world.mutated import list_mutants, run_mutated
from simulators.world.rest import REST

EXIT_CLEAN, EXIT_VIOLATION, EXIT_USAGE, EXIT_BROKE = 0, 1, 2, 3
# More violations of one seed are counted, not told.
TOLD_MAX = 20


def run_fuzz(arguments: Namespace, root: Path) -> int:
    """`simsite fuzz`: run the seeds, tell what went wrong, print totals. Returns the exit code."""
    if arguments.list_mutants:
        return list_mutants(root)
    try:
        seeds = wanted_seeds(arguments.seeds, arguments.also)
    except (ValueError, OSError) as error:
        print(f"simsite: {error}", file=sys.stderr)
        return EXIT_USAGE
    if arguments.workers < 1:
        print(f"simsite: --workers {arguments.workers}: expected at least 1", file=sys.stderr)
        return EXIT_USAGE
    if arguments.mutant is not None:
        return run_mutated(root, arguments.mutant, seeds, arguments.workers)
    begun_s, totals, broke = time.monotonic(), Totals(), 0
    for result in run_seeds(seeds, min(arguments.workers, len(seeds))):
        if isinstance(result, Broke):
            broke += 1
            print(f"seed {result.seed}: the harness broke\n{result.text}repeat: {command(result.seed)}")
            continue
        totals.add(result)
        if result.violations:
            _tell(result)
        elif len(seeds) == 1:
            print(f"seed {result.seed}: clean, trace {result.trace_hash}")
        if sys.stderr.isatty():
            print(f"\r{totals.seeds} of {len(seeds)} seeds", end="", file=sys.stderr)
    lines = render(totals, time.monotonic() - begun_s, f"{min(seeds)} to {max(seeds)}")
    print("\n".join(lines))
    missing = list(totals.missing()) if arguments.cover else []
    for item in missing:
        print(f"missing: {item}")
    if arguments.totals is not None:
        arguments.totals.write_text("\n".join(lines) + "\n")
    if broke:
        return EXIT_BROKE
    return EXIT_VIOLATION if totals.violations or missing else EXIT_CLEAN


def wanted_seeds(text: str | None, also: Path | None) -> list[int]:
    """Seeds of `--also FILE` (comments begin with #), then those of `--seeds A-B`. Raises ValueError, OSError."""
    seeds = []
    for number, line in enumerate(also.read_text().splitlines() if also else (), start=1):
        word = line.partition("#")[0].strip()
        if word and not re.fullmatch(r"[0-9]{1,18}", word):
            raise ValueError(f"{also}, line {number}: {word!a}: expected a seed (a number)")
        seeds += [int(word)] if word else []
    if text is None and also is None:
        raise ValueError("--seeds is missing: expected a number or A-B with A <= B")
    if text is not None:
        found = re.fullmatch(r"([0-9]{1,18})(?:-([0-9]{1,18}))?", text)
        first, last = (int(found.group(1)), int(found.group(2) or found.group(1))) if found else (1, 0)
        if last < first:
            raise ValueError(f"--seeds {text!a}: expected a number or A-B with A <= B")
        seeds += [seed for seed in range(first, last + 1) if seed not in set(seeds)]
    if not seeds:
        raise ValueError(f"{also}: there is no seed in it")
    return seeds


def _tell(result: Result) -> None:
    for line in result.story:
        print(line)
    for item in result.violations[:TOLD_MAX]:
        print(f"seed {result.seed}: {item.checker}: {item.story}")
    if len(result.violations) > TOLD_MAX:
        print(f"seed {result.seed}: and {len(result.violations) - TOLD_MAX} more")
    print(f"repeat: {command(result.seed)}\n", flush=True)


def render(totals: Totals, took_s: float, which: str) -> list[str]:
    """Totals as Markdown; `which` seeds."""
    cpu_ms = 1e6 * totals.cpu_s / max(1, totals.jobs)
    lines = [
        f"# Seeds {which}",
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
