"""Which cores a node has where, as its kernel tells."""

from __future__ import annotations

import pytest

from pilot.multijob.node.binding import numa_domains, parse_cpulist, slot_binding


def make_domains(root, **lists):
    for name, text in lists.items():
        (root / name).mkdir(parents=True)
        (root / name / "cpulist").write_text(text + "\n")
    return str(root)


@pytest.mark.parametrize(("text", "cpus"), [("0-3,8-9\n", {0, 1, 2, 3, 8, 9}), ("5\n", {5}), ("\n", set())])
def test_a_list_of_cores_as_the_kernel_writes_it(text, cpus):
    assert parse_cpulist(text) == cpus


def test_domains_hold_only_cores_that_the_agent_was_given_and_stand_in_their_order(tmp_path):
    sys = make_domains(tmp_path, node10="12-15", node2="4-7", node0="0-3", possible="0-15", node3="16-19")
    assert numa_domains([1, 2, 5, 12, 13], sys) == [{1, 2}, {5}, {12, 13}]


@pytest.mark.parametrize("lists", [{}, {"node0": "what"}, {"node0": "64-127"}])
def test_where_the_kernel_tells_of_no_domain_all_cores_are_one(tmp_path, lists):
    assert numa_domains([0, 1], make_domains(tmp_path / "s", **lists)) == [{0, 1}]


def test_numa_and_cores_are_bound_differently():
    assert slot_binding("cores", 2, [0, 1])(0) == {0}
    assert sum(len(slot_binding("numa", 1, [0, 1])(0) & {slot}) for slot in (0, 1)) == 2
