"""Takes a snapshot of the journal in a process of its own.

`python -m pilot.rotation.snapshots STATE_DIR EPOCH SEGMENT`. The daemon's own state goes on meanwhile: the child
folds the older snapshot and the sealed segments after it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from pilot.command import Completed, describe_failure, run_command
from pilot.multijob.apply import ImpossibleEvent
from pilot.multijob.codec import UnreadableEvent
from pilot.multijob.fold import fold
from pilot.multijob.statecodec import SCHEMA, render_state
from pilot.ports import Done, Failure, Unavailable
from pilot.segments import JournalError
from pilot.snapshots import covered_until, read_covered, write_snapshot

# Below what decides: it may take its time.
NICENESS = 10


def run_snapshot(state_dir: str, timeout_s: float, epoch: int, segment: int) -> Done | Failure:
    """Start the process and wait for its end."""
    argv = [sys.executable, "-m", "pilot.rotation.snapshots", state_dir, str(epoch), str(segment)]
    outcome = run_command(argv, timeout_s=timeout_s, environment=dict(os.environ))
    if isinstance(outcome, Completed) and outcome.exit_code == 0:
        return Done()
    return Unavailable(describe_failure("the snapshot's process", outcome))


def take_snapshot(state_dir: Path, epoch: int, segment: int) -> None:
    """Write the state after so many sealed segments of an epoch; 0: as the epoch began.

    Raises JournalError, UnreadableEvent, ImpossibleEvent and OSError; then nothing new is there.
    """
    covered = covered_until(state_dir, epoch, segment)
    state = fold(read_covered(state_dir, covered, SCHEMA))
    write_snapshot(state_dir, covered, SCHEMA, render_state(state))


def main(argv: list[str]) -> int:
    """The child's end: 0, or 1 with one line."""
    os.nice(NICENESS)
    try:
        take_snapshot(Path(argv[0]), int(argv[1]), int(argv[2]))
    except (JournalError, UnreadableEvent, ImpossibleEvent, OSError) as error:
        print(f"snapshot: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
