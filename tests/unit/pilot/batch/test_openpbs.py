"""OpenPBS from documents: *untried*. The texts are written after its manuals and quoted answers, not captured."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from pilot.batch import openpbs
from pilot.batch.dialect import Reply
from pilot.ports import (
    BatchId,
    BatchJobSeen,
    BatchRequest,
    BatchState,
    Broken,
    CancelResult,
    Listing,
    Refused,
    Unavailable,
)

SERVER = "pbs1"
HEAD: dict[str, Any] = {"timestamp": 1761821236, "pbs_version": "22.05.11", "pbs_server": "pbs1.example.org"}
ROW: dict[str, Any] = {
    "Job_Name": "b.1",
    "Job_Owner": "alice@login1",
    "job_state": "R",
    "queue": "workq",
    "exec_host": "n1/0*32+n2/0*32",
    "Resource_List": {"walltime": "18:00:00", "nodect": 2},
    "resources_used": {"walltime": "00:10:05"},
    "run_count": 1,
    "Variable_List": {"A": "x=1"},
}


def document(**rows: dict[str, Any]) -> str:
    jobs = {f"{name[1:]}.{SERVER}": row for name, row in rows.items()}
    return json.dumps({**HEAD, **({"Jobs": jobs} if jobs else {})}, indent=4) + "\n"


def test_a_running_job_of_openpbs() -> None:
    answer = openpbs.parse_listing(Reply(0, document(j12=ROW), ""), SERVER, None)
    assert answer == Listing(
        SERVER,
        (
            BatchJobSeen(
                BatchId("12.pbs1"),
                "b.1",
                BatchState.RUNNING,
                queue="workq",
                owner="alice",
                walltime_s=64800,
                used_walltime_s=605,
                start_count=1,
                exec_hosts=("n1", "n2"),
            ),
        ),
    )


def test_an_ended_job_is_shown_with_its_status_and_a_moved_one_is_not_over() -> None:
    ended, moved = {**ROW, "job_state": "F", "Exit_status": 271}, {**ROW, "job_state": "M", "Exit_status": 0}
    answer = openpbs.parse_listing(Reply(0, document(j1=ended, j2=moved), ""), SERVER, None)
    assert isinstance(answer, Listing)
    assert [(job.state, job.exit_status) for job in answer.jobs] == [
        (BatchState.OVER, 271),
        (BatchState.OTHER, None),
    ]


def test_no_jobs_is_a_closed_document_without_jobs() -> None:
    assert openpbs.parse_listing(Reply(0, document(), ""), SERVER, None) == Listing(SERVER, ())
    assert isinstance(openpbs.parse_listing(Reply(0, "", ""), SERVER, None), Unavailable)


def test_a_document_of_openpbs_cut_off_anywhere_is_no_listing() -> None:
    whole = document(j1=ROW, j2=ROW).rstrip()
    for end in range(len(whole)):
        assert isinstance(
            openpbs.parse_listing(Reply(0, whole[:end], ""), SERVER, None), Unavailable | Broken
        )


def test_a_listing_of_another_pbs_server_is_broken() -> None:
    assert isinstance(openpbs.parse_listing(Reply(0, document(j1=ROW), ""), "other", None), Broken)


def test_only_a_named_id_is_unknown() -> None:
    text = "qstat: Unknown Job Id 12.pbs1\n"
    asked = BatchId("12.pbs1")
    assert openpbs.parse_listing(Reply(153, document(), text), SERVER, asked) == Listing(
        SERVER, (), (asked,), (asked,)
    )
    assert isinstance(openpbs.parse_listing(Reply(153, document(), text), SERVER, BatchId("13.pbs1")), Broken)
    finished = "qstat: 12.pbs1 Job has finished, use -x or -H to obtain historical job information\n"
    assert isinstance(openpbs.parse_listing(Reply(35, document(), finished), SERVER, asked), Broken)
    assert isinstance(openpbs.parse_listing(Reply(111, "", ""), SERVER, asked), Unavailable)


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (Reply(0, "", ""), CancelResult.ASKED),
        (Reply(35, "", "qdel: Job has finished 1.pbs1\n"), CancelResult.ALREADY_OVER),
        (Reply(153, "", "qdel: Unknown Job Id 1.pbs1\n"), CancelResult.UNKNOWN_ID),
        (Reply(153, "", "qdel: Unknown Job Id 2.pbs1\n"), Broken),
        (Reply(159, "", "qdel: Unauthorized Request  1.pbs1\n"), Refused),
        (Reply(111, "", ""), Unavailable),
    ],
)
def test_qdel_of_openpbs(reply: Reply, expected: Any) -> None:
    answer = openpbs.parse_cancel(reply, BatchId("1.pbs1"))
    assert answer == expected if isinstance(expected, CancelResult) else isinstance(answer, expected)


def test_qsub_of_openpbs_gives_one_id_or_leaves_it_open() -> None:
    assert openpbs.parse_submit(Reply(0, "12.pbs1\n", ""), SERVER) == BatchId("12.pbs1")
    for reply in (
        Reply(0, "", ""),
        Reply(0, "12.other\n", ""),
        Reply(1, "12.pbs1\n", "x"),
        Reply(188, "", "qsub: x"),
    ):
        assert isinstance(openpbs.parse_submit(reply, SERVER), Broken | Unavailable)


REQUEST = BatchRequest("p7k2m4x9q.1", "workq", 16, 32, 64800, "/scratch/b/batch.1.out", ("xe",), "jul")


def test_directives_of_the_standard_bundle_for_openpbs() -> None:
    assert openpbs.render_directives(REQUEST).splitlines() == [
        "#PBS -N p7k2m4x9q.1",
        "#PBS -q workq",
        "#PBS -l select=16:ncpus=32:mpiprocs=32:xe=true",
        "#PBS -l place=scatter:excl",
        "#PBS -l walltime=18:00:00",
        "#PBS -j oe",
        "#PBS -o /scratch/b/batch.1.out",
        "#PBS -r n",
        "#PBS -A jul",
    ]
    assert openpbs.render_submit("qsub", "/s.sh", "n.1") == ("qsub", "-r", "n", "-N", "n.1", "/s.sh")
    with pytest.raises(ValueError, match="Moab"):
        openpbs.render_directives(replace(REQUEST, flags="commtransparent"))
