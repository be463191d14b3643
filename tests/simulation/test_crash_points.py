"""Every process of the world dies at each of its file operations, before or after its effect: nothing is violated."""

from __future__ import annotations

import pytest

from simulators.world.checkers import violations
from simulators.world.mishaps import killed_at

# Far more than any of them needs for the work of this scenario.
OPERATIONS_MAX = 1000
CLIENTS = ("edge", "mom", "nid")


def _kill_at_each(seed: int, client: str, happens: bool, first: int, step: int) -> int:
    """Whether violated or not at each operation; the number of the last one that there was."""
    last = 0
    for number in range(first, OPERATIONS_MAX, step):
        world, there = killed_at(seed, client, number, happens)
        found = [f"operation {number}: {item.checker}: {item.story}" for item in violations(world)]
        assert not found, "\n".join(found)
        if not there:
            return last
        last = number
    raise AssertionError(f"more than {OPERATIONS_MAX} operations")


@pytest.mark.parametrize("client", CLIENTS)
def test_a_process_that_dies_at_some_operation_violates_nothing(client: str) -> None:
    for happens in (False, True):
        last = _kill_at_each(1, client, happens, 3 + 4 * happens, 2 if client == "mom" else 17)
        assert last > (3 if client == "mom" else 60)


@pytest.mark.long
@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("seed", range(2, 5))
def test_a_process_that_dies_at_any_operation_violates_nothing(seed: int, client: str) -> None:
    for happens in (False, True):
        assert _kill_at_each(seed, client, happens, 1, 1) > 3
