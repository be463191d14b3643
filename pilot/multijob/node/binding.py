"""Which cores a slot keeps to: its share of them, or its NUMA domain. `plan` decides, this reads the machine."""

from __future__ import annotations

import os
from typing import Callable, FrozenSet, List, Sequence

from pilot.multijob.node.plan import slot_cpus, slot_domain

DOMAINS = "/sys/devices/system/node"


def parse_cpulist(text: str) -> FrozenSet[int]:
    """`0-7,16-23` as the kernel writes it. Pure."""
    cpus: List[int] = []
    for part in text.strip().split(","):
        if part:
            first, _, last = part.partition("-")
            cpus.extend(range(int(first), int(last or first) + 1))
    return frozenset(cpus)


def numa_domains(cpus: Sequence[int], directory: str = DOMAINS) -> List[FrozenSet[int]]:
    """The given cores by NUMA domain; domains without one are left out. One domain where the kernel tells of none."""
    domains = []
    try:
        names = [name for name in os.listdir(directory) if name[:4] == "node" and name[4:].isdigit()]
        for name in sorted(names, key=lambda name: int(name[4:])):
            with open(os.path.join(directory, name, "cpulist"), encoding="ascii") as file:
                domains.append(parse_cpulist(file.read()) & frozenset(cpus))
    except (OSError, ValueError):
        return [frozenset(cpus)]
    return [domain for domain in domains if domain] or [frozenset(cpus)]


def slot_binding(bind: str, slots: int, cpus: Sequence[int]) -> Callable[[int], FrozenSet[int]]:
    """The cores of each slot, for the manifest's word "cores" or "numa"."""
    if bind == "numa":
        domains = numa_domains(cpus)
        return lambda slot: slot_domain(slot, slots, domains)
    return lambda slot: slot_cpus(slot, slots, cpus)
