"""What a login node does to long-lived processes and to files: texts of the system as findings. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

# A file or inode count that has reached this part of its quota is too near: a day of a full machine fills the rest.
QUOTA_PART_MAX = 0.95


@dataclass(frozen=True, slots=True)
class Quota:
    """One line of `quota -w` or `lfs quota -q`: used and hard limit (0: none), in KiB and files."""

    filesystem: str
    used_kib: int
    limit_kib: int
    files: int
    files_max: int


def kills_user_processes(texts: Mapping[str, str]) -> bool:
    """Whether systemd-logind ends a user's processes with the last session: `texts` of logind.conf and its drop-ins.

    The last one that says something wins, in the order of their names, as systemd reads them (the main file first).
    """
    kills = False
    for name in sorted(texts, key=lambda name: (not name.endswith("logind.conf"), name.rpartition("/")[2])):
        for line in texts[name].splitlines():
            key, equals, value = line.strip().partition("=")
            if equals and key.strip() == "KillUserProcesses":
                kills = value.strip().lower() in ("yes", "true", "1", "on")
    return kills


def parse_quotas(text: str) -> list[Quota]:
    """Lines of figures of `quota -w` (no grace column while below the limit) and of `lfs quota -q` ("-" instead)."""
    found = []
    for line in text.splitlines():
        words = line.split()
        numbers = [int(word.rstrip("*")) for word in words[1:] if word.rstrip("*").isdigit()]
        if len(numbers) == 6 and len(words) >= 7:
            used_kib, _, limit_kib, files, _, files_max = numbers
            found.append(Quota(words[0], used_kib, limit_kib, files, files_max))
    return found


def near(quota: Quota) -> str | None:
    """Why this quota leaves too little, None if it does not."""
    if quota.limit_kib and quota.used_kib >= QUOTA_PART_MAX * quota.limit_kib:
        return f"{quota.used_kib // 1024} of {quota.limit_kib // 1024} MiB are used on {quota.filesystem}"
    if quota.files_max and quota.files >= QUOTA_PART_MAX * quota.files_max:
        return f"{quota.files} of {quota.files_max} files are used on {quota.filesystem}"
    return None


def parse_allocation(text: str, pattern: str) -> float | None:
    """The number in the first group of the pattern's first match (commas between thousands are left out), else None."""
    found = re.search(pattern, text, re.MULTILINE)
    if found is None or found[1] is None:
        return None
    try:
        number = float(found[1].replace(",", ""))
    except ValueError:
        return None
    return number if math.isfinite(number) else None
