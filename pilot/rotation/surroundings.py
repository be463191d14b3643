"""What a login node does to long-lived processes and to files: texts of the system as findings. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

# A file or inode count that has reached this part of its quota is too near: a day of a full machine fills the rest.
QUOTA_PART_MAX = 0.95


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at."""

    what: str
    holds: bool
    detail: str = ""


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


@dataclass(slots=True)
class Probed:
    """What a small batch job and the edge found together: facts of the node (`pilot.multijob.node.probe`), the longest
    time in which a file went there and another one came back, and the names that each side took for its own."""

    facts: Mapping[str, Any] = field(default_factory=dict)
    longest_s: float = 0.0
    edge: Sequence[int] = ()
    node: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the configuration asks of a node. `boot_id`: of this host; `names`: links that both sides made."""

    local_free_mib: int
    memory_mib: int
    cores: int
    visible_s: float
    weak: bool
    boot_id: str
    names: int


OLDEST_PYTHON = (3, 8)


def judge_probe(found: Probed, wanted: Wanted) -> list[Check]:
    """One line for each thing that only a batch job can tell."""
    facts = found.facts
    version, local = tuple(facts["python"]), facts["local_dir"]
    free_mib = facts["local_free_mib"] or 0
    room = f"{free_mib} MiB free, {wanted.local_free_mib} wanted for the calibration snapshot"
    memory = f"{facts['memory_mib']} MiB available, {wanted.memory_mib} wanted"
    memory += f"; {facts['cores']} cores, {wanted.cores} wanted"
    away = facts["boot_id"] != wanted.boot_id
    here = "" if away else "; the batch job ran on this very host: between hosts nothing was tried"
    seen = f"there and back in {found.longest_s:.2f} s at most; protocol.visible_s is {wanted.visible_s:g}"
    return [
        Check(
            "probe: interpreter of the node",
            version[:2] >= OLDEST_PYTHON,
            "Python " + ".".join(map(str, version)),
        ),
        Check(
            f"probe: node.local_dir {local} on {facts['host']}",
            not facts["local_trouble"] and free_mib >= wanted.local_free_mib,
            facts["local_trouble"] or room,
        ),
        Check(
            f"probe: memory and cores of {facts['host']}",
            facts["memory_mib"] >= wanted.memory_mib and facts["cores"] >= wanted.cores,
            memory,
        ),
        Check(
            "probe: files of the other host are seen in time",
            found.longest_s <= wanted.visible_s,
            seen + here,
        ),
        _judge_links(found, wanted, here),
    ]


def _judge_links(found: Probed, wanted: Wanted, here: str) -> Check:
    """Each name must have exactly one owner. With weak fencing nothing depends on it."""
    what = "probe: link(2) is exclusive between hosts"
    both = sorted(set(found.edge) & set(found.node))
    nobody = sorted(set(range(wanted.names)) - set(found.edge) - set(found.node))
    counts = f"of {wanted.names} names the edge owns {len(found.edge)}, the node {len(found.node)}"
    if not both and not nobody:
        return Check(what, True, counts + here)
    detail = f"{counts}; {len(both)} have two owners, {len(nobody)} none"
    if wanted.weak:
        return Check(what, True, f"{detail}: protocol.fencing is weak, which does not need it")
    return Check(what, False, f"{detail}: set protocol.fencing to weak before any bundle is made")


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
