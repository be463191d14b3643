"""Wrong texts and exit codes of the batch commands, read by the pilot's own adapter in the virtual world."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from pilot.command import Completed
from pilot.ports import Broken, Listing, Unavailable
from simulators.world.answers import ANSWERS
from simulators.world.checkers import violations
from simulators.world.faults import batch as faults
from simulators.world.faults.fault import Site, install
from simulators.world.staging import make_limits, make_world, submitted
from simulators.world.world import World


@pytest.mark.parametrize("name", ANSWERS)
def test_no_checker_finds_a_violation(name: str) -> None:
    for seed in range(3):
        found = [f"seed {seed}: {item.checker}: {item.story}" for item in violations(ANSWERS[name](seed))]
        assert not found, "\n".join(found)


def test_a_batch_job_whose_qsub_hung_is_found_by_its_name_and_never_submitted_again() -> None:
    world = ANSWERS["hung_qsub"](1)
    names = [name for _, name, _ in world.truth.submissions]
    assert len(names) == len(set(names)) == 1
    assert len(world.truth.payloads) == 4


def two_wait() -> World:
    world = make_world(1, run_s=60.0, jobs=8, limits=make_limits(wanted=2))
    submitted(world)
    assert world.run_until(lambda: len(world.truth.submissions) == 2, 300.0)
    return world


@pytest.mark.parametrize(
    ("draw", "expected"),
    [
        (faults.wrong_server, Broken),
        (faults.failed_listing, Unavailable),
        (faults.empty_listing, Listing | Unavailable),
        (faults.partial_listing, Unavailable),
        (faults.hidden_batch_job, Listing),
    ],
)
def test_a_bent_text_is_read_by_the_adapter_and_counted_where_it_changed_something(draw, expected) -> None:
    world = two_wait()
    site = Site(world, Random("1"), 1e6)
    fault = replace(draw(site), start_s=world.now_s, end_s=world.now_s + 1e5)
    install(site, [fault])
    whole = world.batch.client().list_jobs(None)
    world.run(1.0)
    changed = 0
    for _ in range(20):
        before = site.count[fault.kind]
        listing = world.batch.client().list_jobs(None)
        if site.count[fault.kind] == before:
            assert listing == whole
        else:
            changed += 1
            assert isinstance(listing, expected)
            assert listing != whole
    assert changed


def test_one_changed_character_of_an_answer_changes_the_trace() -> None:
    hashes = set()
    for comment in (None, "a", "b"):
        world = two_wait()
        if comment is not None:
            world.batch.spoil = lambda argv, work, said=comment: Completed(
                0, f"<Data></Data>{said}\n", "", 0.0
            )
        world.batch.run(("qstat", "-x"), timeout_s=60.0, environment={})
        hashes.add(world.trace_hash())
    assert len(hashes) == 3
