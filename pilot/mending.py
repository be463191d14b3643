"""What of a damaged journal still counts: what precedes the damage, as if the rest had never been written.

The daemon begins with it as with an old copy of its state directory: the bundle directories and the servers tell what
became of everything since. One flipped bit stops no machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pilot.segments import JournalDamaged, Reach, previous_bytes, segment_path, sound_segment
from pilot.snapshots import Covered, epoch_directory


def sound_counts(
    state_dir: Path, counts: Mapping[int, Reach], known: Covered | None
) -> tuple[dict[int, Reach], str]:
    """How much of every epoch can be read behind the snapshot `known`, and what is wrong there, "" for nothing.

    Epochs after a damaged one are left out. Raises JournalError for another version, and OSError.
    """
    sound: dict[int, Reach] = {}
    for epoch in sorted(counts):
        if known is not None and epoch < known.epoch:
            sound[epoch] = counts[epoch]
            continue
        begins = (known.segment, known.size) if known is not None and epoch == known.epoch else (0, 0)
        newest = epoch == max(counts)
        sound[epoch], problem = _sound_reach(
            epoch_directory(state_dir, epoch), counts[epoch], begins, newest=newest
        )
        if problem:
            return sound, problem
    return sound, ""


def _sound_reach(directory: Path, until: Reach, reach: Reach, *, newest: bool) -> tuple[Reach, str]:
    """The same for one epoch, from `reach` to `until`. Of the newest one that is its size, with a crash's tail."""
    for number in range(reach[0] + 1, until[0] + 1):
        path, problem = segment_path(directory, number), ""
        counts_bytes: int | None = until[1]
        if number < until[0]:
            try:
                counts_bytes = previous_bytes(segment_path(directory, number + 1))
            except (JournalDamaged, FileNotFoundError) as error:
                # Nothing says how much of this one counts: its whole commits.
                counts_bytes, problem = None, _told(error)
        try:
            last = bool(problem) or (newest and number == until[0])
            size = sound_segment(path, last=last, counts_bytes=counts_bytes)[2]
        except JournalDamaged as error:
            return ((number, error.sound_bytes) if error.sound_bytes else reach), str(error)
        except FileNotFoundError as error:
            return reach, _told(error)
        reach = number, size
        if problem:
            return reach, problem
    return reach, ""


def _told(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return f"{error.filename} is missing and newer segments exist"
    return str(error)
