"""`pilot reload`: what a new configuration changes, and what of it cannot change while the daemon runs. Pure.

All or nothing: one key that cannot change, and nothing does. A key that is not named here needs a new start: what is
wired once (directories, servers, lanes, commands), or what running agents were given (times of the protocol).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

# Keys that only the decisions of the next tick, and bundles made from then on, depend on. `*` stands for a name.
CHANGEABLE = (
    "evidence_every_s",
    "batch.listing_every_s",
    "batch.account",
    "batch.flags",
    "batch.features",
    "inputs.*",
    "node.environment",
    "node.quick_failure_s",
    "node.quick_failures",
    "node.rss_max_mib",
    "node.stdout_max_mib",
    "queues.*.batch_queue",
    "queues.*.fill_wait_s",
    "queues.*.inputs_method",
    "queues.*.jobs_per_slot",
    "queues.*.no_start",
    "queues.*.node_hours_day_max",
    "queues.*.node_hours_max",
    "queues.*.nodes",
    "queues.*.pool_bundles",
    "queues.*.queued_max",
    "queues.*.share",
    "queues.*.slots",
    "queues.*.walltime.*",
    "queues.*.wanted",
    "reporting.*",
    "retention.failed_d",
    "retention.ok_h",
    "retention.pack_max_mib",
    "rotation.*",
    "space.*",
)
NAMED = ("queues", "servers")


@dataclass(frozen=True, slots=True)
class Change:
    """One key with its value now and in the new configuration; None: the key is not there."""

    key: str
    now: Any
    new: Any

    @property
    def may(self) -> bool:
        """Whether it can change while the daemon runs."""
        return any(fnmatchcase(self.key, pattern) for pattern in CHANGEABLE)

    def text(self) -> str:
        """For a person."""
        return f"{self.key}: {self.now!a} -> {self.new!a}"


def list_changes(now: Mapping[str, Any], new: Mapping[str, Any]) -> list[Change]:
    """Every key that differs between two configurations, given as plain values; sorted by key."""
    before, after = dict(leaves(now, "")), dict(leaves(new, ""))
    keys = sorted(before.keys() | after.keys())
    return [Change(key, before.get(key), after.get(key)) for key in keys if before.get(key) != after.get(key)]


def refusals(changes: list[Change]) -> tuple[str, ...]:
    """A line for each key that cannot change; empty: all may be taken over."""
    return tuple(
        f"{change.text()}: cannot change while the daemon runs; nothing is changed; stop and start it"
        for change in changes
        if not change.may
    )


def leaves(value: Mapping[str, Any], before: str) -> Iterator[tuple[str, Any]]:
    """Every key with its value; items of named lists by their names."""
    for name, below in value.items():
        key = f"{before}{name}"
        if name in NAMED and not before:
            # Their order is that of lanes and turns.
            yield f"{key} (order)", tuple(item["name"] for item in below)
            for item in below:
                yield from leaves(item, f"{key}.{item['name']}.")
        elif isinstance(below, Mapping) and name != "environment":
            yield from leaves(below, f"{key}.")
        else:
            yield key, below
