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


def test_run_edges_are_those_of_the_specification():
    by_hand = {("suspicious", new) for new in ("checked", "merging", "open")} | {("merging", "open")}
    by_service = {
        ("open", "merging"),
        ("merging", "checked"),
        ("merging", "suspicious"),
        ("checked", "archived"),
    }
    for old, new in itertools.product(life.RunStatus, repeat=2):
        assert (life.check_edge("run", old, new, life.Role.MANAGER) is None) == ((old, new) in by_hand)
        assert (life.check_edge("run", old, new, life.Role.SERVICE) is None) == ((old, new) in by_service)


def test_step_edges_of_managers_are_those_of_the_specification():
    by_hand = set(itertools.product(("failed", "manual check is needed"), ("staged", "ready")))
    by_hand |= {(old.value, "cancelled") for old in life.StepStatus} - {
        (x, "cancelled") for x in ("staging", "paused")
    }
    by_hand |= {("cancelled", "defined"), ("manual check is needed", "finished")}
    by_hand -= {("cancelled", "cancelled")}
    for old, new in itertools.product(life.StepStatus, repeat=2):
        assert (life.check_edge("step", old, new, life.Role.MANAGER) is None) == ((old, new) in by_hand), (
            old,
            new,
        )


def test_no_service_leaves_an_end():
    ends = {
        "task": ("archived", "cancelled"),
        "step": ("finished", "cancelled"),
        "run": ("archived", "suspicious"),
    }
    left = [
        edge
        for subject, statuses in ends.items()
        for edge, roles in life.EDGES[subject].items()
        if edge[0] in statuses and life.Role.SERVICE in roles
    ]
    assert left == [("cancelled", "ready")]


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
