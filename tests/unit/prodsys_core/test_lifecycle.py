"""The edges of every subject, each status and role: exactly those of the tables, and what they lead to."""

import itertools
from pathlib import Path

from prodsys_core import lifecycle as life
from prodsys_core import tables
from prodsys_core.lifecycle import RunProgress, StepKind, kinds_to_open, run_complete

TABLE = Path(__file__).parents[2] / "data" / "prodsys" / "transitions.txt"
STATUSES = {"task": life.TaskStatus, "run": life.RunStatus, "step": life.StepStatus}


def read_table():
    """{(subject, from, to): roles} as written by hand."""
    rows = [line.split(" | ") for line in TABLE.read_text().splitlines() if line and line[0] != "#"]
    table = {(subject, old, new): set(roles.split(", ")) for subject, old, new, roles, _ in rows}
    assert len(table) == len(rows)
    return table


def test_every_from_to_and_role_is_as_the_table_written_by_hand():
    table = read_table()
    tried = 0
    for subject, statuses in STATUSES.items():
        for old, new in itertools.product(statuses, repeat=2):
            for role in life.Role:
                tried += 1
                allowed = life.check_edge(tables.edges(subject), subject, old, new, role) is None
                assert allowed == (role in table.get((subject, old, new), ())), (subject, old, new, role)
    assert tried == 2 * (11 * 11 + 5 * 5 + 11 * 11)
    assert set(table) == {(subject, *edge) for subject in STATUSES for edge in tables.edges(subject)}


def test_no_service_leaves_an_end():
    ends = {
        "task": ("archived", "cancelled"),
        "step": ("finished", "cancelled"),
        "run": ("archived", "suspicious"),
    }
    left = [
        edge
        for subject, statuses in ends.items()
        for edge, roles in tables.edges(subject).items()
        if edge[0] in statuses and life.Role.SERVICE in roles
    ]
    assert left == [("cancelled", "ready")]


def test_refusal_names_what_is_possible():
    text = life.check_edge(tables.edges("task"), "task", "done", "send", life.Role.MANAGER)
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
