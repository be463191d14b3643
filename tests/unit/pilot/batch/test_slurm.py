"""Slurm's Torque wrappers against everything that real ones were heard to say (36 captured cases)."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pilot.batch import slurm
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

FIXTURES = Path(__file__).parents[3] / "data" / "torque-fixtures"
CASES = {
    case["name"]: case
    for case in json.loads((FIXTURES / "index.json").read_text())
    if case["system"] == "slurm-wrappers"
}


def reply(name: str) -> Reply:
    case = CASES[name]
    return Reply(case["rc"], case["stdout"] or "", case["stderr"])


SUBMIT: dict[str, Any] = {
    "01_qsub_ok": BatchId("8"),
    "02_qsub_l_xe_REJECTED": Refused,
    "03_qsub_queued": BatchId("9"),
    "07_qsub_badqueue": Refused,
    "08_qsub_overwall": Refused,
    "09_qsub_toomanynodes": Refused,
    "10_qsub_badppn": Refused,
    "14_qsub_flags": BatchId("11"),
    "27_qsub_missing_script": Refused,
    "28_qsub_l_nosuchres": BatchId("12"),
    "29_qsub_array": BatchId("13"),
    "38_qsub_sbatchline": Broken,
}
CANCEL: dict[str, Any] = {
    "13_qdel_unknown": CancelResult.UNKNOWN_ID,
    "19_qdel_queued": CancelResult.ASKED,
    "20_qdel_again": CancelResult.UNKNOWN_ID,
    "33_qdel_finished": CancelResult.UNKNOWN_ID,
}
LIST: dict[str, tuple[str | None, Any]] = {
    "05_qstat_f": (None, {"7": BatchState.OVER, "8": BatchState.RUNNING, "9": BatchState.WAITING}),
    "12_qstat_unknown": ("999999", {}),
    "12b_qstat_f_unknown": ("999999", {}),
    "21_qstat_f_after_qdel": ("9", {"9": BatchState.OVER}),
    "31_qstat_f_completed": ("8", {"8": BatchState.OVER}),
    "04_qstat": (None, Broken),
    "06_qstat_x_UNSUPPORTED": (None, Broken),
    "23_qstat_q": (None, Broken),
    "24_qstat_a_n1": (None, Broken),
    "25_qstat_Qf": (None, Broken),
    "30_qstat_completed": ("8", Broken),
    "35_array_qstat": (None, Broken),
}
NOT_ASKED = {
    "11_pbsnodes_a": "what a node is, the site's file says",
    "26_pbsnodes_x_UNSUPPORTED": "what a node is, the site's file says",
    "15_squeue": "Slurm's own command",
    "22_scontrol_after_qdel": "Slurm's own command",
    "32_scontrol_completed": "Slurm's own command",
    "36_sbatch_toolong": "Slurm's own command",
    "37_sbatch_ok": "Slurm's own command",
    "34_job_output": "a job's own output",
}


def test_every_captured_case_is_read_or_never_asked_for() -> None:
    assert sorted([*SUBMIT, *CANCEL, *LIST, *NOT_ASKED]) == sorted(CASES)
    assert len(CASES) == 36


@pytest.mark.parametrize(("name", "expected"), SUBMIT.items(), ids=SUBMIT)
def test_every_captured_qsub_of_the_wrapper(name: str, expected: Any) -> None:
    answer = slurm.parse_submit(reply(name), "cluster")
    assert answer == expected if isinstance(expected, str) else isinstance(answer, expected)
    if isinstance(answer, Refused):
        assert answer.code == "1"
        assert "/usr/bin/sbatch" not in answer.reason


@pytest.mark.parametrize(("name", "expected"), CANCEL.items(), ids=CANCEL)
def test_every_captured_qdel_of_the_wrapper(name: str, expected: Any) -> None:
    assert slurm.parse_cancel(reply(name), BatchId("9")) is expected


@pytest.mark.parametrize(("name", "expected"), LIST.items(), ids=LIST)
def test_every_captured_qstat_of_the_wrapper(name: str, expected: tuple[str | None, Any]) -> None:
    asked, jobs = expected[0] and BatchId(expected[0]), expected[1]
    answer = slurm.parse_listing(reply(name), "cluster", asked)
    if not isinstance(jobs, dict):
        assert isinstance(answer, jobs)
        return
    assert isinstance(answer, Listing)
    assert {job.batch_id: job.state for job in answer.jobs} == jobs
    assert answer.unknown_ids == ((asked,) if asked and not jobs else ())


def test_a_running_job_of_the_wrapper() -> None:
    answer = slurm.parse_listing(reply("05_qstat_f"), "cluster", None)
    assert isinstance(answer, Listing)
    assert answer.jobs[1] == BatchJobSeen(
        BatchId("8"),
        "mjp_512",
        BatchState.RUNNING,
        queue="normal",
        owner="alice",
        walltime_s=600,
        exec_hosts=tuple(f"nid{n:05d}" for n in range(1, 17)),
    )


def test_no_text_with_153_is_an_empty_cluster_and_with_an_error_it_is_not() -> None:
    assert slurm.parse_listing(Reply(153, "", ""), "c", None) == Listing("c", ())
    for code in (153, 255, 1, 111):
        answer = slurm.parse_listing(Reply(code, "", "Problem loading jobs.\n"), "c", None)
        assert isinstance(answer, Unavailable), code
    assert isinstance(slurm.parse_listing(Reply(0, "", ""), "c", None), Broken)
    assert isinstance(slurm.parse_listing(Reply(-9, "", ""), "c", None), Unavailable)


@pytest.mark.parametrize(
    "words", ["Unable to contact slurm controller", "Socket timed out on send/recv operation"]
)
def test_a_controller_that_did_not_answer_leaves_open_whether_a_job_exists(words: str) -> None:
    text = (
        f"{slurm.ERROR_HEAD}\nThe command was:\n'sbatch x'\nand the output was:\n'sbatch: error: {words}\n'\n"
    )
    assert isinstance(slurm.parse_submit(Reply(1, text, ""), "c"), Unavailable)
    assert isinstance(
        slurm.parse_cancel(Reply(1, f"qdel: Kill job error on job id 9: {words}\n", ""), BatchId("9")),
        Unavailable,
    )


def test_a_refusal_in_the_command_line_is_none() -> None:
    text = (
        f"{slurm.ERROR_HEAD}\nThe command was:\n'sbatch /a/Unable to open file'\n"
        "and the output was:\n'sbatch: error: something new\n'\n"
    )
    assert isinstance(slurm.parse_submit(Reply(1, text, ""), "c"), Broken)


@pytest.mark.parametrize("text", ["", "8 9\n", "8.bw\n", "job\n"])
def test_the_wrapper_must_print_one_number(text: str) -> None:
    assert isinstance(slurm.parse_submit(Reply(0, text, ""), "c"), Broken)


def test_listing_of_the_wrapper_cut_off_anywhere_is_no_listing_of_all() -> None:
    whole = reply("05_qstat_f").stdout
    count = whole.count("Job Id:")
    for end in range(1, len(whole) - 1, 13):
        answer = slurm.parse_listing(Reply(0, whole[:end], ""), "c", None)
        # At the end of a block nothing tells the cut: such a listing counts only with a live job seen before in it.
        assert isinstance(answer, Unavailable | Broken) or len(answer.jobs) < count


def test_a_job_name_forges_no_neighbour() -> None:
    text = "Job Id:\t1\n\tJob_Name = x\n\nJob Id:\t2\n\tjob_state = C\n\nJob Id:\t2\n\tjob_state = R\n\n"
    assert isinstance(slurm.parse_listing(Reply(0, text, ""), "c", None), Broken)


REQUEST = BatchRequest("p7k2m4x9q.1", "normal", 16, 32, 64800, "/scratch/bundles/b/batch.1.out")


def test_directives_of_the_standard_bundle_for_sbatch() -> None:
    request = replace(REQUEST, features=("xe", "ib"), account="jul")
    assert slurm.render_directives(request).splitlines() == [
        "#SBATCH --job-name=p7k2m4x9q.1",
        "#SBATCH --partition=normal",
        "#SBATCH --nodes=16",
        "#SBATCH --ntasks-per-node=32",
        "#SBATCH --time=18:00:00",
        "#SBATCH --output=/scratch/bundles/b/batch.1.out",
        "#SBATCH --account=jul",
        "#SBATCH --constraint=xe&ib",
        "#SBATCH --no-requeue",
    ]


def test_qsub_of_the_wrapper_is_told_where_the_output_goes() -> None:
    argv = slurm.render_submit("qsub", "/scratch/bundles/b/script.2.sh", "b.2")
    assert argv == (
        "qsub",
        "-r",
        "n",
        "-N",
        "b.2",
        "-j",
        "oe",
        "-o",
        "/scratch/bundles/b/batch.2.out",
        "/scratch/bundles/b/script.2.sh",
    )


@pytest.mark.parametrize(
    "script",
    [
        "/a b/script.1.sh",
        "/a;id/script.1.sh",
        "/a$(id)/script.1.sh",
        "script.1.sh",
        "/a/x.sh",
        "/a'/script.1.sh",
    ],
)
def test_nothing_that_a_shell_would_read_reaches_the_wrapper(script: str) -> None:
    with pytest.raises(ValueError, match="script"):
        slurm.render_submit("qsub", script, "b.1")


@pytest.mark.parametrize(
    "change",
    [{"flags": "x"}, {"stdout": "/a/%j"}, {"stdout": "/a b"}, {"features": ("a&b",)}, {"walltime_s": 0}],
    ids=str,
)
def test_value_that_no_sbatch_line_can_carry_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected"):
        slurm.render_directives(replace(REQUEST, **change))
