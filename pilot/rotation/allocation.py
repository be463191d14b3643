"""Asks the site's command what is left of the allocation; `surroundings` reads the answer."""

from __future__ import annotations

import os

from pilot.command import Completed, NotStarted, TimedOut, run_command
from pilot.configkeys import AllocationSection
from pilot.ports import AllocationLeft, Broken, Failure, Unavailable
from pilot.rotation.surroundings import parse_allocation


def look_at_allocation(section: AllocationSection) -> AllocationLeft | Failure:
    """Run the command once, within its time-out. `Broken`: it ended well and no number is in its text."""
    argv = section.argv or []
    if not argv:
        return Unavailable("no command is configured")
    match run_command(argv, timeout_s=section.timeout_s, environment=dict(os.environ)):
        case Completed(0, stdout, _):
            left = parse_allocation(stdout, section.pattern)
            if left is None:
                return Broken(
                    "allocation.pattern fits no number in what the command printed", ascii(stdout[:200])
                )
            return AllocationLeft(left * section.node_hours_per_unit)
        case Completed(code, _, stderr):
            return Unavailable(f"{argv[0]} ended with {code}: {stderr[:200]!a}")
        case NotStarted(reason):
            return Unavailable(reason)
        case TimedOut(limit_s):
            return Unavailable(f"{argv[0]} gave no answer within {limit_s:g} s and was ended")
        case _:
            return Unavailable(f"{argv[0]} printed too much and was ended")
