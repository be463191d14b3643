"""Asks the site's command what is left of the allocation; `surroundings` reads the answer."""

from __future__ import annotations

import os

from pilot.command import Completed, describe_failure, run_command
from pilot.configkeys import AllocationSection
from pilot.ports import AllocationLeft, Broken, Failure, Unavailable
from pilot.rotation.surroundings import parse_allocation


def look_at_allocation(section: AllocationSection) -> AllocationLeft | Failure:
    """Run the command once, within its time-out. `Broken`: it ended well and no number is in its text."""
    argv = section.argv or []
    if not argv:
        return Unavailable("no command is configured")
    outcome = run_command(argv, timeout_s=section.timeout_s, environment=dict(os.environ))
    if not isinstance(outcome, Completed) or outcome.exit_code != 0:
        return Unavailable(describe_failure(argv[0], outcome))
    left = parse_allocation(outcome.stdout, section.pattern)
    if left is None:
        return Broken(
            "allocation.pattern fits no number in what the command printed", ascii(outcome.stdout[:200])
        )
    return AllocationLeft(left * section.node_hours_per_unit)
