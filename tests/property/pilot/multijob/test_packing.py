"""Bundles: every job once, longest first, equal predicted work per node, a walltime that the slowest node keeps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from random import Random

from hypothesis import given
from hypothesis import strategies as st
from rig import make_limits

from pilot.multijob.model import QueueSpec, WalltimePolicy
from pilot.multijob.packing import Sized, pack
from pilot.ports import PandaId

POLICY = WalltimePolicy(min_s=600, max_s=86400, startup_s=10.0, per_event_s=2.0, margin_s=600.0)
LENGTHS = st.lists(st.floats(1.0, 50_000.0), min_size=1, max_size=64)


def queue_of(nodes: int, slots: int, jobs_per_slot: int = 1) -> QueueSpec:
    queue = make_limits().queues["long"]
    return replace(queue, nodes=nodes, slots=slots, jobs_per_slot=jobs_per_slot, walltime=POLICY)


def sized(lengths_s: Sequence[float]) -> list[Sized]:
    return [Sized(PandaId(number), length_s) for number, length_s in enumerate(lengths_s, 1)]


@given(lengths_s=LENGTHS, slots=st.integers(1, 8), jobs_per_slot=st.integers(1, 3))
def test_every_job_is_on_one_node_longest_first_and_no_node_has_more_than_its_share(
    lengths_s: list[float], slots: int, jobs_per_slot: int
) -> None:
    queue = queue_of(64, slots, jobs_per_slot)
    nodes = pack(sized(lengths_s), queue).nodes
    assert sorted(item.job for node in nodes for item in node) == list(range(1, len(lengths_s) + 1))
    assert len(nodes) == math.ceil(len(lengths_s) / (slots * jobs_per_slot))
    for node in nodes:
        assert 1 <= len(node) <= slots * jobs_per_slot
        assert [job.predicted_s for job in node] == sorted((job.predicted_s for job in node), reverse=True)


@given(lengths_s=LENGTHS, slots=st.integers(1, 8), jobs_per_slot=st.integers(1, 3))
def test_the_walltime_is_what_the_slowest_node_takes_and_the_margin_within_the_queues_limits(
    lengths_s: list[float], slots: int, jobs_per_slot: int
) -> None:
    packing = pack(sized(lengths_s), queue_of(64, slots, jobs_per_slot))
    slowest_s = 0.0
    for node in packing.nodes:
        ends = [0.0] * slots
        for job in node:
            ends[ends.index(min(ends))] += job.predicted_s
        slowest_s = max(slowest_s, *ends)
    expected = min(max(slowest_s + POLICY.margin_s, POLICY.min_s), POLICY.max_s)
    assert packing.walltime_s - 1 < expected <= packing.walltime_s
    assert POLICY.min_s <= packing.walltime_s <= POLICY.max_s


def test_nodes_of_a_standard_bundle_have_equal_work_whatever_order_the_jobs_came_in() -> None:
    chance = Random(512)
    lengths_s = [chance.choice((1000.0, 3000.0, 9000.0)) + chance.uniform(0.0, 500.0) for _ in range(512)]
    for order in (lengths_s, sorted(lengths_s), sorted(lengths_s, reverse=True)):
        loads = [sum(job.predicted_s for job in node) for node in pack(sized(order), queue_of(16, 32)).nodes]
        assert len(loads) == 16
        assert max(loads) - min(loads) < 0.02 * sum(loads) / 16
