"""The edges of every subject, each status and role: exactly those of the tables, and what they lead to."""

import itertools

from prodsys_core import lifecycle as life
from prodsys_core import tables
from prodsys_core.lifecycle import RunProgress, StepKind, kinds_to_open, run_complete

MANAGER_EDGES = {
    ("draft", "ready"),
    ("ready", "draft"),
    ("jobs ready", "ready"),
    ("jobs ready", "send"),
    ("send", "paused"),
    ("running", "paused"),
    ("paused", "send"),
    ("paused", "running"),
    ("done", "archive"),
    ("archive", "done"),
    *((old, "cancelled") for old in ("draft", "ready", "jobs ready", "send", "running", "paused")),
}
SERVICE_EDGES = {
    ("ready", "jobs ready"),
    ("send", "running"),
    ("running", "done"),
    ("archive", "archiving"),
    ("archiving", "archived"),
}


def test_task_edges_are_those_of_the_specification():
    for old, new in itertools.product(life.TaskStatus, repeat=2):
        manager = life.check_edge("task", old, new, life.Role.MANAGER) is None
        service = life.check_edge("task", old, new, life.Role.SERVICE) is None
        assert manager == ((old, new) in MANAGER_EDGES), (old, new)
        assert service == ((old, new) in SERVICE_EDGES), (old, new)


def test_managers_move_no_run_and_only_resend_steps():
    assert all(roles == {life.Role.SERVICE} for roles in life.RUN_EDGES.values())
    by_hand = {edge for edge, roles in life.STEP_EDGES.items() if life.Role.MANAGER in roles}
    assert by_hand == set(itertools.product(("failed", "manual check is needed"), ("staged", "ready")))


def test_nothing_leaves_an_end():
    ends = {
        "task": ("archived", "cancelled"),
        "step": ("finished", "cancelled"),
        "run": ("archived", "suspicious"),
    }
    for subject, statuses in ends.items():
        assert not [edge for edge in life.EDGES[subject] if edge[0] in statuses]


def test_refusal_names_what_is_possible():
    text = life.check_edge("task", "done", "send", life.Role.MANAGER)
    assert text == "a task in status 'done' cannot be set to 'send' by a manager; possible: archive"


def opened(**kinds):
    return RunProgress({StepKind(name.replace("_", " ")): counts for name, counts in kinds.items()})


CHAIN = tables.chains()["mass production"]


def test_merges_open_when_all_chunks_are_finished():
    merges = (StepKind.MERGE_MDST, StepKind.MERGE_HIST, StepKind.MERGE_DUMP)
    assert kinds_to_open(CHAIN, opened(reconstruct=(12, 11)), False) == ()
    assert kinds_to_open(CHAIN, opened(reconstruct=(12, 12)), False) == merges


def test_crosscheck_opens_after_all_merges_also_without_dumps():
    some = {"reconstruct": (2, 2), "merge_mdst": (2, 2), "merge_hist": (1, 0), "merge_dump": (0, 0)}
    assert kinds_to_open(CHAIN, opened(**some), False) == ()
    assert kinds_to_open(CHAIN, opened(**some | {"merge_hist": (1, 1)}), False) == (StepKind.CROSS_CHECK,)


def test_archive_waits_until_it_is_asked_for():
    done = {"reconstruct": (2, 2), "merge_mdst": (1, 1), "merge_hist": (1, 1), "merge_dump": (0, 0)}
    progress = RunProgress(
        opened(**done).opened | {StepKind.CROSS_CHECK: (1, 1), StepKind.TRANSFER: (2, 2)},
    )
    assert kinds_to_open(CHAIN, progress, False) == ()
    assert kinds_to_open(CHAIN, progress, True) == (StepKind.ARCHIVE_LOGS,)
    assert run_complete(CHAIN, progress, asked_too=False)
    assert not run_complete(CHAIN, progress, asked_too=True)


def test_filtering_merges_dumps_only():
    kinds = [link.kind for link in tables.chains()["DDD filtering"]]
    assert StepKind.MERGE_MDST not in kinds
    assert StepKind.MERGE_DUMP in kinds
