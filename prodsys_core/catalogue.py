"""From a catalogue of raw files to the jobs of a task. Pure.

A line is `RRRRRR cdrCCCCC-RRRRRR.raw NNNN` (run, name, events). A file with 0 events is skipped and counted. Anything
that does not fit is a problem with its line; a task whose source has a problem is not released.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

RAW_NAME = re.compile(r"cdr(\d{1,9})-(\d{1,9})\.raw", re.ASCII)
PROBLEMS_SHOWN = 20
EVENTS_MAX = 2_000_000_000


@dataclass(frozen=True, slots=True)
class CatalogueEntry:
    """One raw file. `n_events` None: not known."""

    file: str
    run: int
    chunk: int
    n_events: int | None


@dataclass(frozen=True, slots=True)
class JobPlan:
    """What a task's source makes: jobs in catalogue order, and names of the zero-event files that were left out."""

    jobs: tuple[CatalogueEntry, ...]
    skipped: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class BadSource:
    """Why the task cannot be released, one sentence per problem."""

    problems: tuple[str, ...]

    @property
    def text(self) -> str:
        """The first problems, for a message."""
        shown = "; ".join(self.problems[:PROBLEMS_SHOWN])
        more = len(self.problems) - PROBLEMS_SHOWN
        return f"{shown}; and {more} more" if more > 0 else shown


def plan_differences(plan: JobPlan, jobs: Iterable[tuple[str, int | None, str, str]]) -> tuple[str, ...]:
    """What jobs are not as the source makes them, one sentence each. Of a job: its file, number of events, the place of
    the file if that is not the task's, and why it would not be sent."""
    without_job = {entry.file: entry for entry in plan.jobs}
    lines: list[str] = []
    for file, n_events, home, why_not in jobs:
        entry = without_job.pop(file, None)
        if why_not:
            lines.append(f"{file}: {why_not}")
        if home:
            lines.append(f"{file}: read from {home}")
        if entry is None:
            lines.append(f"{file}: has a job, but the source has no such file with events")
        elif entry.n_events != n_events:
            lines.append(f"{file}: {n_events} events, in the source {entry.n_events}")
    return (*lines, *(f"{file}: in the source, but has no job; generate again" for file in without_job))


def parse_name(name: str) -> tuple[int, int] | None:
    """(run, chunk) of a raw file's name, None if it is none."""
    match = RAW_NAME.fullmatch(name)
    return (int(match[2]), int(match[1])) if match else None


def parse_catalogue(text: str, label: str) -> tuple[CatalogueEntry, ...] | BadSource:
    """All lines of a catalogue; blank lines and lines that begin with # are ignored. `label` names it in problems."""
    entries: dict[str, CatalogueEntry] = {}
    problems: list[str] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        entry = _parse_line(line)
        if isinstance(entry, str):
            problems.append(f"{label}:{number}: {entry}")
            continue
        known = entries.setdefault(entry.file, entry)
        if known != entry:
            problems.append(
                f"{label}:{number}: {entry.file} again with {entry.n_events} events, before {known.n_events}"
            )
    return BadSource(tuple(problems)) if problems else tuple(entries.values())


def _parse_line(line: str) -> CatalogueEntry | str:
    words = line.split()
    if len(words) != 3:
        return f"found {len(words)} words, expected run, file name and number of events"
    name = parse_name(words[1])
    if name is None:
        return f"found file name {words[1][:60]!a}, expected cdrCCCCC-RRRRRR.raw"
    if not words[0].isascii() or not words[0].isdigit() or int(words[0]) != name[0]:
        return f"found run {words[0][:20]!a}, but the file is named {words[1]}"
    if not words[2].isascii() or not words[2].isdigit() or int(words[2]) > EVENTS_MAX:
        return f"found {words[2][:20]!a} events, expected a number from 0 to {EVENTS_MAX}"
    return CatalogueEntry(words[1], name[0], name[1], int(words[2]))


def plan_from_runs(runs: Sequence[int], entries: Iterable[CatalogueEntry]) -> JobPlan | BadSource:
    """Jobs of the runs asked for. A run without any line in the catalogue is a problem, not an empty run."""
    wanted = set(runs)
    chosen = [entry for entry in entries if entry.run in wanted]
    missing = sorted(wanted - {entry.run for entry in chosen})
    if missing:
        return BadSource(tuple(f"run {run} is not in the catalogue" for run in missing))
    return _plan(chosen)


def plan_from_files(files: Sequence[str], entries: Iterable[CatalogueEntry] | None) -> JobPlan | BadSource:
    """Jobs of the files asked for. With a catalogue every file must be in it; without one events are unknown."""
    problems: list[str] = []
    chosen: list[CatalogueEntry] = []
    known = None if entries is None else {entry.file: entry for entry in entries}
    for file in dict.fromkeys(files):
        name = parse_name(file)
        if name is None:
            problems.append(f"file {file[:60]!a} is not named cdrCCCCC-RRRRRR.raw")
        elif known is None:
            chosen.append(CatalogueEntry(file, name[0], name[1], None))
        elif file in known:
            chosen.append(known[file])
        else:
            problems.append(f"file {file} is not in the catalogue")
    return BadSource(tuple(problems)) if problems else _plan(chosen)


def _plan(chosen: Sequence[CatalogueEntry]) -> JobPlan | BadSource:
    jobs = tuple(entry for entry in chosen if entry.n_events != 0)
    seen: dict[tuple[int, int], str] = {}
    for entry in jobs:
        other = seen.setdefault((entry.run, entry.chunk), entry.file)
        if other != entry.file:
            return BadSource((f"{entry.file} and {other} are the same chunk of run {entry.run}",))
    if not jobs:
        return BadSource(("no file with events in the source",))
    return JobPlan(jobs, tuple(entry.file for entry in chosen if entry.n_events == 0))
