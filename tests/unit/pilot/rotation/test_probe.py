"""What a probe's findings mean: each name has exactly one owner, each node what the configuration asks of it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from pilot.multijob.node.files import run_steps
from pilot.multijob.node.probe import contest
from pilot.rotation.surroundings import Probed, Wanted, judge_probe
from simulators.world.filefaults import FileFaults
from simulators.world.files import VirtualFiles

FACTS = {
    "host": "nid1",
    "boot_id": "there",
    "python": [3, 9, 2],
    "local_dir": "/dev/shm",
    "local_free_mib": 900,
    "local_trouble": "",
    "memory_mib": 60000,
    "cores": 32,
}
WANTED = Wanted(500, 50000, 32, 30.0, False, "here", 4)
GOOD = Probed(FACTS, 2.0, (0, 1), (3, 2))


def failed(found: Probed, wanted: Wanted = WANTED) -> list[str]:
    return [check.what for check in judge_probe(found, wanted) if not check.holds]


def test_a_node_that_has_everything_holds() -> None:
    assert failed(GOOD) == []
    assert not any("very host" in check.detail for check in judge_probe(GOOD, WANTED))
    here = judge_probe(GOOD, replace(WANTED, boot_id="there"))
    assert sum("this very host" in check.detail for check in here) == 2


@pytest.mark.parametrize(
    ("fact", "value", "what"),
    [
        ("python", [3, 7, 9], "probe: interpreter of the node"),
        ("local_free_mib", 499, "probe: node.local_dir /dev/shm on nid1"),
        ("local_trouble", "/dev/shm: Permission denied", "probe: node.local_dir /dev/shm on nid1"),
        ("memory_mib", 49999, "probe: memory and cores of nid1"),
        ("cores", 16, "probe: memory and cores of nid1"),
    ],
)
def test_what_a_node_lacks_is_named(fact: str, value: Any, what: str) -> None:
    assert failed(Probed({**FACTS, fact: value}, 2.0, (0, 1), (3, 2))) == [what]


def test_files_that_are_seen_later_than_the_configuration_says_fail() -> None:
    assert failed(Probed(FACTS, 30.1, (0, 1), (3, 2))) == ["probe: files of the other host are seen in time"]


@pytest.mark.parametrize(("edge", "node"), [((0, 1, 2), (3, 2)), ((0, 1), (3,))])
def test_a_name_with_two_owners_or_none_asks_for_weak_fencing(edge: Any, node: Any) -> None:
    found = Probed(FACTS, 2.0, edge, node)
    assert failed(found) == ["probe: link(2) is exclusive between hosts"]
    assert "weak" in judge_probe(found, WANTED)[-1].detail
    assert failed(found, replace(WANTED, weak=True)) == []


@pytest.mark.parametrize("weak", [False, True])
def test_two_hosts_that_make_the_same_links_find_a_filesystem_that_is_not_exclusive(weak: bool) -> None:
    shared = VirtualFiles(lambda: 0.0, lambda client, path: 0.0, FileFaults(lambda: 0.0))
    shared.weak_links = weak
    shared.root("/p")
    halves = {
        side: contest("/p", side, numbers)
        for side, numbers in (("edge", range(4)), ("node", range(3, -1, -1)))
    }
    edge = run_steps(halves["edge"], partial(shared.perform, "edge"))
    node = run_steps(halves["node"], partial(shared.perform, "node"))
    assert bool(failed(Probed(FACTS, 2.0, edge, node))) == weak
