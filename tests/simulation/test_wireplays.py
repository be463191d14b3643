"""What the servers are told in a site that breaks in one way: the pilot's reports are fresh, true and asked for."""

from __future__ import annotations

import pytest

from pilot.multijob.events import KillOrdered
from simulators.world.checkers import violations
from simulators.world.wirechecks import heartbeat_lost
from simulators.world.wireplays import (
    MANY,
    WIRE_PLAYS,
    a_person_ends_everything,
    everything_is_ordered_to_end,
    journal_fails_then_crash,
    two_servers_count_alike,
    work_comes_again,
)
from simulators.world.world import World

SEEDS = range(2)


def _found(world: World) -> list[str]:
    """Everything that checkers say, and jobs that were given up for silence."""
    told = [f"{item.checker}: {item.story}" for item in violations(world)]
    return told + [f"heartbeat_lost: {story}" for story in heartbeat_lost(world, 0.0)]


@pytest.mark.parametrize("name", WIRE_PLAYS)
def test_no_checker_finds_a_violation(name: str) -> None:
    for seed in SEEDS:
        world = WIRE_PLAYS[name](seed)
        assert not _found(world), f"seed {seed}: " + "\n".join(_found(world))


def test_what_nobody_asked_to_end_runs_to_its_end() -> None:
    world = everything_is_ordered_to_end(1)
    assert len(world.truth.payloads) == MANY
    assert all(run.ended_by is None for run in world.truth.payloads)


def test_what_a_person_ordered_and_an_operator_confirmed_is_ended_once_and_not_before() -> None:
    world = a_person_ends_everything(1)
    confirmed = [e for d in world.daemons for _, e in d.events if isinstance(e, KillOrdered)]
    assert len(confirmed) == MANY
    assert all(event.confirmed for event in confirmed)
    assert all(run.ended_by is not None for run in world.truth.payloads)
    assert len(world.truth.payloads) == MANY


def test_what_was_fetched_while_the_journal_failed_was_never_told_to_start() -> None:
    world = journal_fails_then_crash(1)
    assert [job.attributes["jobDispatcherErrorCode"] for job in world.source.jobs()] == [102, 102]
    assert not world.truth.payloads


def test_work_that_comes_again_while_it_runs_is_followed_and_finished_once() -> None:
    for seed in SEEDS:
        world = work_comes_again(seed)
        assert not violations(world)
        assert len(world.truth.payloads) == 4
        ended = {job.panda_id: job.status for job in world.source.jobs()}
        assert ended == dict.fromkeys(range(1, 5), "failed") | dict.fromkeys(range(5, 9), "finished")


def test_each_job_of_two_servers_that_count_alike_runs_once_and_its_own_server_hears_of_it() -> None:
    for seed in SEEDS:
        world = two_servers_count_alike(seed)
        tables = [wire.model.jobs for wire in world.wires.values()]
        assert [sorted(table) for table in tables] == [[1, 2, 3, 4], [1, 2, 3, 4]]
        assert {job.status for table in tables for job in table.values()} == {"finished"}
        runs = sorted((run.bundle_id, run.panda_id) for run in world.truth.payloads)
        assert len(runs) == len(set(runs)) == 8 and len({bundle_id for bundle_id, _ in runs}) == 2
        for wire in world.wires.values():
            finals = [told.panda_id for told in wire.model.ledger.entries if told.state == "finished"]
            assert sorted(set(finals)) == [1, 2, 3, 4]
