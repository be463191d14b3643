"""Batch queues as qstat -Q -f tells them, on captured text; what makes one unfit for a queue of the configuration."""

from __future__ import annotations

from pathlib import Path

import pytest

from pilot.batch.dialect import Reply
from pilot.batch.queues import BatchQueueSeen, parse_queues, unfit
from pilot.ports import Broken, Unavailable

DATA = Path(__file__).parents[3] / "data/torque-fixtures"


def captured(name: str) -> Reply:
    return Reply(0, (DATA / f"{name}.stdout").read_text(), "")


def test_torques_queues_with_their_limits() -> None:
    found = parse_queues(captured("torque-6.1.3/019_qstat_Qf"))
    assert isinstance(found, tuple)
    assert {queue.name: queue.walltime_max_s for queue in found} == {
        "debug": 1800,
        "high": 172800,
        "low": 172800,
        "normal": 172800,
    }
    assert all(queue.enabled and queue.started for queue in found)


def test_slurms_partitions() -> None:
    found = parse_queues(captured("slurm-wrappers/25_qstat_Qf"))
    assert isinstance(found, tuple)
    assert [queue.name for queue in found][:3] == ["normal", "high", "low"]


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (Reply(1, "", "qstat: cannot connect"), Unavailable),
        (Reply(0, "", ""), Broken),
        (Reply(0, "<html>", ""), Broken),
    ],
)
def test_no_queues_are_no_answer(reply: Reply, kind: type) -> None:
    assert isinstance(parse_queues(reply), kind)


@pytest.mark.parametrize(
    ("queue", "nodes", "walltime_s", "says"),
    [
        (BatchQueueSeen("q"), 16, 64800, None),
        (BatchQueueSeen("q", enabled=False), 16, 64800, "takes no jobs"),
        (BatchQueueSeen("q", started=False), 16, 64800, "starts no jobs"),
        (BatchQueueSeen("q", walltime_max_s=3600), 16, 3600, None),
        (BatchQueueSeen("q", walltime_max_s=3600), 16, 3601, "allows 3600 s of walltime"),
        (BatchQueueSeen("q", nodes_max=8), 16, 60, "allows 8 nodes"),
    ],
)
def test_the_table_of_unfit_queues(
    queue: BatchQueueSeen, nodes: int, walltime_s: int, says: str | None
) -> None:
    found = unfit(queue, nodes, walltime_s)
    assert found is None if says is None else str(found).startswith(says)
