"""Torque's dialect against everything that a real Torque 6.1.3 was heard to say (tests/data/torque-fixtures)."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest

from pilot.batch import torque
from pilot.batch.dialect import Reply
from pilot.ports import (
    BatchId,
    BatchJobSeen,
    BatchRequest,
    BatchState,
    Broken,
    CancelResult,
    Hole,
    Listing,
    Refused,
    Unavailable,
)

FIXTURES = Path(__file__).parents[3] / "data" / "torque-fixtures"
CASES = {
    (case["system"], case["name"]): case
    for case in json.loads((FIXTURES / "index.json").read_text())
    if case["system"] != "slurm-wrappers"
}
CLUSTER, CRAY = "torque-6.1.3", "torque-6.1.3-craymode"
SERVER = "bw"


def reply(name: str, system: str = CLUSTER) -> Reply:
    case = CASES[system, name]
    return Reply(case["rc"], stdout(system, name), case["stderr"])


def stdout(system: str, name: str) -> str:
    """The index leaves out one long answer, which stands in its own file."""
    text = CASES[system, name]["stdout"]
    return text if text is not None else (FIXTURES / system / f"{name}.stdout").read_text()


def command(case: dict) -> str:
    return re.sub(r"^time timeout \d+ ", "", case["cmd"])


def cases(pattern: str) -> list[tuple[str, str]]:
    return [key for key, case in CASES.items() if re.match(pattern, command(case)) and "|" not in case["cmd"]]


def test_captured_cases_are_whole():
    lines = (FIXTURES / "SHA256SUMS").read_text().splitlines()
    for line in lines:
        digest, name = line.split(maxsplit=1)
        assert hashlib.sha256((FIXTURES / name).read_bytes()).hexdigest() == digest, name
    assert len(json.loads((FIXTURES / "index.json").read_text())) == 203


# --- qsub -------------------------------------------------------------------------------------------------------

SUBMIT = {  # case -> code of Refused, or the failure's type
    "101_qsub_bad_queue": "172",
    "102_qsub_bad_resource": "189",
    "103_qsub_walltime_over": "190",
    "104_qsub_too_many_nodes": "190",
    "105_qsub_too_many_ppn": "190",
    "106_qsub_unknown_feature": "190",
    "107_qsub_missing_script": "1",
    "109_qsub_bad_directive": "2",
    "110_qsub_bad_walltime_fmt": "168",
    "111_qsub_bad_nodes_fmt": "27",
    "112_qsub_unknown_option": "2",
    "113_qsub_as_root": "1",
    "114_qsub_bad_dep": "208",
    "115_qsub_bad_server": Unavailable,
    "116_qsub_long_name": "2",
    "117_qsub_name_space": "2",
    "232_array_bad": "235",
    "233_array_bad2": "235",
    "302_maxuserq_3_rejected": "228",
    "304_maxq_2_rejected": "200",
    "305_queue_disabled": "175",
    "307_nodect_over": "190",
    "308_acl_denied": "159",
    "400_serverdown_qsub": Unavailable,
    "410_trqauthd_down_qsub": Unavailable,
    "141_qsub_version": Broken,
}
HUNG = {"440_serverhung_qstat", "441_serverhung_qsub"}  # ended by `timeout`, exit 124: the runner's matter


@pytest.mark.parametrize("key", cases("qsub"), ids=lambda key: key[1])
def test_every_captured_qsub_answer(key):
    case, name = CASES[key], key[1]
    answer = torque.parse_submit(reply(name, key[0]), SERVER)
    expected = SUBMIT.get(name)
    if name in HUNG:
        assert isinstance(answer, Broken)
    elif expected is None:
        assert case["rc"] == 0, f"{name} failed and is not in the table"
        assert answer == BatchId(case["stdout"].strip())
    elif isinstance(expected, str):
        assert isinstance(answer, Refused) and answer.code == expected
        assert answer.reason
    else:
        assert isinstance(answer, expected)


@pytest.mark.parametrize(
    "stdout", ["", "\n", "8400001\n", "8400001.other\n", "8400001.bw 8400002.bw\n", "Welcome\n", "x.bw\n"]
)
def test_qsub_success_without_one_id_of_the_server_is_broken(stdout):
    assert isinstance(torque.parse_submit(Reply(0, stdout, ""), SERVER), Broken)


def test_qsub_that_fails_after_printing_an_id_is_no_refusal():
    assert isinstance(torque.parse_submit(Reply(1, "12.bw\n", "error\n"), SERVER), Broken)


def test_qsub_ended_by_a_signal_leaves_open_what_happened():
    assert isinstance(torque.parse_submit(Reply(-15, "", ""), SERVER), Unavailable)


def test_exit_code_of_no_known_meaning_is_broken():
    assert isinstance(torque.parse_submit(Reply(99, "", "?"), SERVER), Broken)


# --- qdel -------------------------------------------------------------------------------------------------------

CANCEL = {
    "126_qdel_unknown": CancelResult.UNKNOWN_ID,
    "127_qdel_completed": CancelResult.ALREADY_OVER,
    "128_qdel_malformed": Broken,
    "131_qdel_noarg": Broken,
    "313_qdel_m": Refused,
    "321_qdel_other_user": Refused,
    "323_qdel_p_user": Refused,
    "402_serverdown_qdel": Unavailable,
    "431_momdead_qdel": Refused,
}


@pytest.mark.parametrize("key", cases("qdel"), ids=lambda key: key[1])
def test_every_captured_qdel_answer(key):
    answer = torque.parse_cancel(reply(key[1], key[0]), BatchId("1.bw"))
    expected = CANCEL.get(key[1], CancelResult.ASKED)
    assert answer == expected if isinstance(expected, CancelResult) else isinstance(answer, expected)


def test_job_whose_node_is_dead_is_refused_with_its_code():
    answer = torque.parse_cancel(reply("431_momdead_qdel"), BatchId("8400051.bw"))
    assert isinstance(answer, Refused) and answer.code == "224"


def test_cancel_of_an_exiting_job_counts_as_asked():
    text = "qdel: Request invalid for state of job MSG=invalid state for job - EXITING 1.bw\n"
    assert torque.parse_cancel(Reply(170, "", text), BatchId("1.bw")) is CancelResult.ASKED


# --- qstat ------------------------------------------------------------------------------------------------------

# Of one answer (290 jobs as XML) only the head was kept; a test of its own takes it for one that was cut off.
ALL = r"qstat( -x| -f| -f -1)$"
HEAD_ONLY = (CRAY, "021_qstat_x_290")
NO_TEXT = (CLUSTER, "471_qstat_f_empty_server")


@pytest.mark.parametrize(
    "key", [key for key in cases(ALL) if key not in (HEAD_ONLY, NO_TEXT)], ids=lambda key: key[1]
)
def test_every_captured_listing_of_all_jobs(key):
    answer = torque.parse_listing(reply(key[1], key[0]), SERVER, None)
    assert isinstance(answer, Listing) and answer.asked_ids is None
    text = stdout(*key)
    assert len(answer.jobs) == text.count("<Job>") + text.count("Job Id: ")
    assert BatchState.OTHER not in {job.state for job in answer.jobs}


def test_head_of_a_long_listing_is_no_listing():
    head = (FIXTURES / CRAY / f"{HEAD_ONLY[1]}.head").read_text()
    assert isinstance(torque.parse_listing(Reply(0, head, ""), SERVER, None), Unavailable)


@pytest.mark.parametrize("key", cases(r"qstat (-x|-f|-f -1) \d+(\.bw)?$"), ids=lambda key: key[1])
def test_every_captured_answer_for_one_id(key):
    number = command(CASES[key]).split()[-1].partition(".")[0]
    asked = BatchId(f"{number}.bw")
    answer = torque.parse_listing(reply(key[1], key[0]), SERVER, asked)
    assert isinstance(answer, Listing) and answer.asked_ids == (asked,)
    if CASES[key]["rc"] == 153:
        assert answer.unknown_ids == (asked,) and answer.jobs == ()
    else:
        assert [job.batch_id for job in answer.jobs] == [asked] and answer.unknown_ids == ()


LIST_FAILURES = {
    "123_qstat_malformed": Broken,
    "143_qstat_badopt": Broken,
    "142_qstat_version": Broken,
    "401_serverdown_qstat": Unavailable,
    "411_trqauthd_down_qstat": Unavailable,
    "028_qstat_multi_some_unknown": Unavailable,
    "029_qstat_f_multi_some_unknown": Unavailable,
    "002_qstat": Broken,
    "012_qstat_a": Broken,
}


@pytest.mark.parametrize(("name", "expected"), LIST_FAILURES.items(), ids=LIST_FAILURES)
def test_what_is_no_listing_is_a_failure(name, expected):
    assert isinstance(torque.parse_listing(reply(name), SERVER, None), expected)


# Commands whose answers this client never asks for.
NOT_ASKED = {
    "pbsnodes": "what a node is, the site's file says",
    "qalter": "a bundle is not changed after its submission",
    "qhold": "a bundle is not held",
    "qrls": "a bundle is not held",
    "qsig": "payloads are ended by their agents",
    "qrerun": "batch jobs are not rerunnable",
    "qrun": "an operator's command",
    "qmove": "a bundle stays in its queue",
    "qselect": "one listing serves all bundles",
    "cat": "a job's own output; the walltime's line is test_walltime_is_told_by_text_or_time_or_status of the pilot",
}
OTHER_QSTAT = [key for key in cases("qstat") if not re.match(r"qstat (-x|-f)", command(CASES[key]))]


@pytest.mark.parametrize("key", OTHER_QSTAT, ids=lambda key: key[1])
def test_no_other_form_of_qstat_passes_for_a_listing(key):
    answer = torque.parse_listing(reply(key[1], key[0]), SERVER, None)
    assert isinstance(answer, Unavailable | Broken)


@pytest.mark.parametrize("key", cases(r"qstat.*\["), ids=lambda key: key[1])
def test_arrays_are_listed_whole_and_never_answer_for_a_bundle(key):
    answer = torque.parse_listing(reply(key[1], key[0]), SERVER, BatchId("8400001.bw"))
    assert isinstance(answer, Broken)


def test_every_captured_case_is_read_or_never_asked_for():
    read = {*cases("qsub"), *cases("qdel"), *cases(ALL), *cases(r"qstat.*\["), *OTHER_QSTAT}
    read |= {*cases(r"qstat (-x|-f|-f -1) \d+(\.bw)?$"), (CLUSTER, "029_qstat_f_multi_some_unknown")}
    read |= {*cases("qstat -x debug")}
    left = [key for key in CASES if key not in read and command(CASES[key]).split()[0] not in NOT_ASKED]
    # Four lines of a shell that cut an answer down, or made a job by two commands.
    assert all("|" in CASES[key]["cmd"] for key in left), left
    assert len(left) <= 5


def test_server_without_jobs_of_a_queue_is_closed_text():
    assert torque.parse_listing(reply("015_qstat_x_no_jobs", CRAY), SERVER, None) == Listing(SERVER, ())


def test_listing_of_a_running_job_in_both_forms():
    seen = BatchJobSeen(
        BatchId("8400001.bw"),
        "mjp_512",
        BatchState.RUNNING,
        queue="normal",
        owner="alice",
        walltime_s=600,
        start_count=1,
        exec_hosts=tuple(f"nid{n:05d}" for n in range(16, 0, -1)),
        comment="Job started on Sat Nov 21 at 22:41",
    )
    for name in ("003_qstat_f", "004_qstat_f_1", "005_qstat_x"):
        answer = torque.parse_listing(reply(name), SERVER, None)
        assert isinstance(answer, Listing) and answer.jobs == (seen,), name


def test_empty_server_gives_an_empty_listing():
    assert torque.parse_listing(reply("470_qstat_x_empty_server"), SERVER, None) == Listing(SERVER, ())


def test_no_text_at_all_is_not_an_empty_server():
    assert isinstance(torque.parse_listing(reply("471_qstat_f_empty_server"), SERVER, None), Unavailable)


def one(name: str, system: str = CLUSTER) -> BatchJobSeen:
    answer = torque.parse_listing(
        reply(name, system), SERVER, BatchId(CASES[system, name]["stdout"].split()[2])
    )
    assert isinstance(answer, Listing), answer
    return answer.jobs[0]


def test_completed_jobs_carry_their_exit_status():
    assert one("007_qstat_f_completed").exit_status == 3
    assert one("203_qstat_5s_after_qdel").exit_status == 271
    walltime = one("210_walltime_exceeded_qstat_f")
    assert (walltime.exit_status, walltime.walltime_s, walltime.used_walltime_s) == (-11, 5, 31)


def test_job_deleted_before_it_ran_is_over_without_an_exit_status():
    seen = one("130_qstat_f_after_qdel_queued")
    assert (seen.state, seen.exit_status) == (BatchState.OVER, None)


def test_requeued_job_waits_and_its_last_exit_status_is_no_end():
    seen = one("462_prologue_exit2")
    assert (seen.state, seen.exit_status, seen.start_count) == (BatchState.WAITING, None, 11)


def test_job_on_a_dead_node_is_still_running():
    assert one("430_momdead_qstat").state is BatchState.RUNNING


def test_used_walltime_is_not_taken_from_a_garbage_total_runtime():
    assert one("404_after_restart_qstat").used_walltime_s == 12


def test_exec_host_in_its_three_forms():
    assert torque.parse_exec_host("nid00016/0-31+nid00015/0-31") == ("nid00016", "nid00015")
    assert torque.parse_exec_host("nid00016/1+nid00016/0+nid00015/1") == ("nid00016", "nid00015")
    assert torque.parse_exec_host("101/0-31+102/0-31") == ("101", "102")
    assert one("011_qstat_f_running", CRAY).exec_hosts[:2] == ("101", "102")


def xml(*jobs: str) -> str:
    return '<?xml version="1.0"?>\n<Data>' + "".join(f"<Job>{job}</Job>" for job in jobs) + "</Data>\n"


def row(number: int, name: str = "x", state: str = "R") -> str:
    return f"<Job_Id>{number}.bw</Job_Id><Job_Name>{name}</Job_Name><job_state>{state}</job_state>"


@pytest.mark.parametrize("name", ["005_qstat_x", "004_qstat_f_1"])
def test_listing_cut_off_anywhere_is_unavailable(name):
    whole = reply(name).stdout.rstrip("\n")
    for end in [*range(1, len(whole), 37), len(whole) - 1]:
        answer = torque.parse_listing(Reply(0, whole[:end], ""), SERVER, None)
        assert isinstance(answer, Unavailable | Broken), whole[:end]


def test_truncated_listing_of_two_jobs_is_not_a_listing_of_one():
    cut = xml(row(1), row(2)).replace(f"<Job>{row(2)}</Job></Data>\n", "")
    assert isinstance(torque.parse_listing(Reply(0, cut, ""), SERVER, None), Unavailable)


def test_empty_answer_to_a_question_for_xml_or_id_is_no_absence():
    assert isinstance(torque.parse_listing(Reply(0, "", ""), SERVER, BatchId("1.bw")), Unavailable)
    assert isinstance(torque.parse_listing(Reply(0, xml(), ""), SERVER, BatchId("1.bw")), Broken)


def test_escaped_text_is_read_and_control_characters_never_get_through():
    answer = torque.parse_listing(Reply(0, xml(row(1, "a&lt;b&amp;c\x1b[31m")), ""), SERVER, None)
    assert isinstance(answer, Listing) and answer.jobs[0].name == "a<b&c?[31m"


def test_one_unreadable_job_is_listed_by_its_id_and_harms_no_neighbour():
    bad = "<Job_Id>2.bw</Job_Id><Variable_List>A=1&B</Variable_List>"
    answer = torque.parse_listing(Reply(0, xml(row(1), bad, row(3)), ""), SERVER, None)
    assert isinstance(answer, Listing)
    states = {job.batch_id: job.state for job in answer.jobs}
    assert states == {"1.bw": BatchState.RUNNING, "2.bw": BatchState.OTHER, "3.bw": BatchState.RUNNING}


def test_ids_of_another_server_are_broken():
    assert isinstance(torque.parse_listing(Reply(0, xml(row(1)), ""), "other", None), Broken)
    assert isinstance(torque.parse_listing(Reply(153, "", "..."), SERVER, BatchId("1.other")), Broken)


def test_unknown_letter_is_a_state_of_its_own():
    answer = torque.parse_listing(Reply(0, xml(row(1, state="Z")), ""), SERVER, None)
    assert isinstance(answer, Listing) and answer.jobs[0].state is BatchState.OTHER


def test_exit_153_that_names_another_id_is_no_absence():
    text = "qstat: Unknown Job Id Error 2.bw\n"
    assert isinstance(torque.parse_listing(Reply(153, "", text), SERVER, BatchId("1.bw")), Broken)


def test_job_cannot_forge_a_neighbour_in_a_text_listing():
    text = "Job Id: 1.bw\n    job_state = R\n\nJob Id: 1.bw\n    job_state = C\n\n"
    assert isinstance(torque.parse_listing(Reply(0, text, ""), SERVER, None), Broken)


# --- rendering --------------------------------------------------------------------------------------------------

REQUEST = BatchRequest("p7k2m4x9q.1", "normal", 16, 32, 64800, "/scratch/b/batch.1.out")


def test_directives_of_the_standard_bundle():
    request = BatchRequest(
        "p7k2m4x9q.1", "normal", 16, 32, 64800, "/scratch/b/batch.1.out", ("xe",), "jul", "commtransparent"
    )
    assert torque.render_directives(request).splitlines() == [
        "#PBS -N p7k2m4x9q.1",
        "#PBS -q normal",
        "#PBS -l nodes=16:ppn=32:xe",
        "#PBS -l walltime=18:00:00",
        "#PBS -j oe",
        "#PBS -o /scratch/b/batch.1.out",
        "#PBS -r n",
        "#PBS -l flags=commtransparent",
        "#PBS -A jul",
    ]


def test_every_batch_job_is_submitted_not_rerunnable():
    assert "#PBS -r n\n" in torque.render_directives(REQUEST)
    assert torque.render_submit("qsub", "/s.sh", "n.1") == ("qsub", "-r", "n", "-N", "n.1", "/s.sh")


@pytest.mark.parametrize(
    "change",
    [
        {"name": "a b"},
        {"queue": "normal\n#PBS -q high"},
        {"stdout": "relative"},
        {"stdout": "/a\nb"},
        {"stdout": '/a"b'},
        {"account": "x; rm"},
        {"walltime_s": 0},
        {"features": ("x y",)},
    ],
    ids=str,
)
def test_value_that_no_directive_can_carry_is_refused(change):
    from dataclasses import replace

    with pytest.raises(ValueError, match="expected"):
        torque.render_directives(replace(REQUEST, **change))


def test_path_with_a_blank_is_quoted():
    from dataclasses import replace

    assert '#PBS -o "/a b/out"\n' in torque.render_directives(replace(REQUEST, stdout="/a b/out"))


def test_one_question_for_all_jobs():
    assert torque.render_list("qstat", None) == ("qstat", "-x")
    assert torque.render_list("qstat", BatchId("1.bw")) == ("qstat", "-x", "1.bw")
    assert torque.render_cancel("qdel", BatchId("1.bw")) == ("qdel", "1.bw")


def test_backfill_windows():
    text = (
        "Partition     Tasks  Nodes      Duration   StartOffset       StartDate\n"
        "---------     -----  -----  ------------  ------------  --------------\n"
        "bw             1024     32       1:30:00      00:00:00  22:41:25_11/21\n"
        "bw              512     16      INFINITY      00:00:00  22:41:25_11/21\n"
    )
    assert torque.parse_holes(Reply(0, text, "")) == (Hole(32, 5400), Hole(16, None))
    assert isinstance(torque.parse_holes(Reply(0, text + "no window\n", "")), Broken)
    assert isinstance(torque.parse_holes(Reply(1, "", "ERROR")), Unavailable)


def test_walltime_by_its_status_or_by_the_time_used():
    assert one("210_walltime_exceeded_qstat_f").over_walltime
    for name in ("007_qstat_f_completed", "203_qstat_5s_after_qdel", "404_after_restart_qstat"):
        assert not one(name).over_walltime, name
    # Some sites say 271 for a walltime: all of it is used.
    assert torque.is_over_walltime(271, 5, 31, torque.OVER_WALLTIME)
    assert not torque.is_over_walltime(271, 600, 31, torque.OVER_WALLTIME)
    assert not torque.is_over_walltime(None, None, None, torque.OVER_WALLTIME)
