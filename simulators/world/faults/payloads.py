"""Payloads that do not do what they should, and calibration servers that do not come up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from pilot.multijob.node.manifest import Job
from simulators.world.faults.fault import Fault, Site
from simulators.world.floor import Play


def _playing(site: Site, kind: str, says: str, bend: Callable[[Job, Play], Play]) -> Fault:
    start_s, end_s = site.window(1800.0, 5 * 3600.0)
    share = site.random.uniform(0.05, 0.4)

    def play(job: Job, drawn: Play) -> Play:
        if site.random.random() > share:
            return drawn
        site.fired(kind)
        return bend(job, drawn)

    return Fault(kind, start_s, end_s, f"{says} ({share:.0%})", play=play)


def bad_exit(site: Site) -> Fault:
    """A payload ends with a code of its own, or by a signal."""

    def bend(job: Job, drawn: Play) -> Play:
        choices = (replace(drawn, exit_code=3), replace(drawn, signal=11), replace(drawn, signal=9))
        return site.random.choice(choices)

    return _playing(site, "bad-exit", "payloads fail", bend)


def no_evidence(site: Site) -> Fault:
    """Exit code 0, but no end marker, an error text, or another number of events."""

    def bend(job: Job, drawn: Play) -> Play:
        choices = [replace(drawn, marker=False), replace(drawn, patterns=("fatal",))]
        if "merging" not in job.kind.name:
            # Merges are counted from their files.
            choices.append(replace(drawn, events=7))
        return site.random.choice(choices)

    return _playing(site, "no-evidence", "exit code 0 is not success", bend)


def missing_output(site: Site) -> Fault:
    """Exit code 0 and an output is missing or empty."""

    def bend(job: Job, drawn: Play) -> Play:
        names = frozenset(place.lfn for place in job.outputs[:1])
        return replace(drawn, missing=names) if site.random.random() < 0.5 else replace(drawn, empty=names)

    return _playing(site, "missing-output", "outputs are missing", bend)


def quick_failure(site: Site) -> Fault:
    """Payloads fail within a second: a node stops after three in a row."""
    return _playing(
        site,
        "quick-failure",
        "payloads fail at once",
        lambda job, drawn: replace(drawn, run_s=0.5, exit_code=1),
    )


def too_long(site: Site) -> Fault:
    """Payloads take much longer than predicted, and some do not hear SIGTERM."""
    return _playing(
        site,
        "too-long",
        "payloads run into the walltime",
        lambda job, drawn: replace(drawn, run_s=20_000.0, deaf=site.random.random() < 0.3),
    )


PAYLOADS: tuple[Callable[[Site], Fault], ...] = (
    bad_exit,
    no_evidence,
    missing_output,
    quick_failure,
    too_long,
)
