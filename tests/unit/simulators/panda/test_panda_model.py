"""Rules of the server that no captured pair shows: watcher, adder, orders to end, batch ids, limits."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from serverkit import HOUR, LFNS, Rig, positional, report

from simulators.panda.adder import NO_REPORT
from simulators.panda.rules import SUBMIT_MAX, DatabaseTrouble, Wish
from simulators.panda.settings import Caller
from simulators.panda.v1 import get_description

# --- watcher --------------------------------------------------------------------------------------------------


def test_a_sent_job_fails_30_minutes_after_it_was_handed_out() -> None:
    rig = Rig()
    panda_id = rig.sent()
    rig.later(1799.0)
    assert rig.status(panda_id) == "sent"
    rig.later(1.0)
    assert (rig.status(panda_id), rig.error(panda_id)[0]) == ("failed", 102)


@pytest.mark.parametrize("state", ["starting", "running"])
def test_a_silent_job_fails_2_hours_after_its_last_update(state: str) -> None:
    rig = Rig()
    panda_id = rig.sent()
    for _ in range(5):
        rig.update(panda_id, state)
        rig.later(7100.0)
    assert rig.status(panda_id) == state
    rig.later(100.0)
    assert (rig.status(panda_id), rig.error(panda_id)[0]) == ("failed", 100)
    assert str(rig.error(panda_id)[1]).startswith("lost heartbeat : 20")


def test_a_correct_final_report_after_a_lost_heartbeat_is_lost() -> None:
    rig = Rig()
    panda_id = rig.sent()
    rig.update(panda_id, "running")
    rig.later(2 * HOUR)
    assert rig.update(panda_id, "finished", report=report()) == "tobekilled"
    rig.later(60.0)
    assert rig.status(panda_id) == "failed"


@pytest.mark.parametrize(("priority", "hours"), [(1000, 3), (800, 48)])
def test_a_pilots_holding_lives_3_hours_with_a_high_priority(priority: int, hours: int) -> None:
    rig = Rig()
    panda_id = rig.sent(assignedPriority=priority)
    rig.update(panda_id, "holding")
    rig.later(hours * HOUR - 1)
    assert rig.status(panda_id) == "holding"
    rig.later(1.0)
    assert (rig.status(panda_id), rig.error(panda_id)[0]) == ("failed", 103)


def test_holding_by_the_pilot_is_not_refreshed_and_takes_a_final_report() -> None:
    rig = Rig()
    panda_id = rig.sent()
    rig.update(panda_id, "holding")
    heard_s = rig.model.jobs[panda_id].heard_s
    rig.later(100.0)
    assert rig.update(panda_id, "holding") == rig.update(panda_id, "running") == "NULL"
    assert rig.model.jobs[panda_id].heard_s == heard_s
    assert rig.finish(panda_id, report()) == ("finished", None)


def test_a_reported_end_in_the_past_ends_the_watchers_patience() -> None:
    rig = Rig()
    panda_id = rig.sent()
    rig.later(1000.0)
    rig.update(panda_id, "running", endTime=rig.model.epoch_s + rig.at_s - 2 * HOUR)
    rig.later(1.0)
    assert (rig.status(panda_id), rig.error(panda_id)[0]) == ("failed", 105)


def test_a_diagnosis_without_an_end_counts_as_failed_recovery() -> None:
    rig = Rig()
    panda_id = rig.sent()
    rig.update(panda_id, "running", pilotErrorDiag="something")
    rig.later(2 * HOUR)
    assert rig.error(panda_id) == (101, "job recovery failed for 2.0 hours")


def test_an_activated_job_is_closed_7_days_after_its_submission() -> None:
    rig = Rig()
    (panda_id,) = rig.submit()
    rig.later(7 * 24 * HOUR)
    assert rig.status(panda_id) == "closed"
    assert rig.error(panda_id, "taskBufferError")[0] == 102
    assert rig.model.hand_out(Wish("Q", 1)) == []


# --- adder ----------------------------------------------------------------------------------------------------

JUDGED = {
    "no report": (None, NO_REPORT),
    "empty": ("", NO_REPORT),
    "POOL XML (E11)": ("<POOLFILECATALOG/>", NO_REPORT),
    "no size (E08)": (report(fsize=None), NO_REPORT),
    "no checksum (E08)": (report(adler32=None), NO_REPORT),
    "bad md5 only": (report(adler32=None, md5sum="xyz"), NO_REPORT),
    "no guid": (report(guid=None), NO_REPORT),
    "size is no number": (report(fsize="many"), NO_REPORT),
    "a list": ("[1]", NO_REPORT),
    "output missing (E09)": (report(LFNS[1:]), "expected output a.root is missing in pilot JSON"),
    "log missing (E09)": (report(LFNS[:2]), "expected output l.job.log.tgz is missing in pilot JSON"),
    "two missing": (report(LFNS[2:]), "expected output b.root is missing in pilot JSON"),
    "one too many (E07)": (
        report((*LFNS, "extra.root")),
        "pilot produced extra.root inconsistently with jobdef",
    ),
}


@pytest.mark.parametrize(("text", "diag"), JUDGED.values(), ids=JUDGED.keys())
def test_a_report_that_is_not_exactly_the_declared_files_fails_the_job(text: str | None, diag: str) -> None:
    rig = Rig()
    panda_id = rig.sent()
    assert rig.finish(panda_id, text) == ("failed", diag)
    assert rig.error(panda_id, "ddmError")[0] == 200


def test_a_whole_report_is_stored_with_sizes_and_checksums() -> None:
    rig = Rig()
    panda_id = rig.sent()
    assert rig.finish(panda_id, report(adler32=None, md5sum="0" * 32)) == ("finished", None)
    job = rig.model.jobs[panda_id]
    assert [(f["fsize"], f["checksum"], f["status"]) for f in job.files] == [
        (100, f"md5:{'0' * 32}", "ready"),
        (101, "ad:00000001", "ready"),
        (102, "ad:00000002", "ready"),
    ]
    assert (job.attributes["nOutputDataFiles"], job.attributes["outputFileBytes"]) == (2, 201)


def test_sent_to_finished_without_running_is_allowed() -> None:
    rig = Rig()
    assert rig.finish(rig.sent(), report()) == ("finished", None)


FAILED = {
    "no report, with a code": (None, 1305, None),
    "no report, no code": (None, 0, NO_REPORT),
    "log only": (report(LFNS[2:]), 1305, None),
    "empty object": ("{}", 1305, "expected output l.job.log.tgz is missing in pilot JSON"),
}


@pytest.mark.parametrize(("text", "code", "diag"), FAILED.values(), ids=FAILED.keys())
def test_of_a_failed_job_only_the_log_counts(text: str | None, code: int, diag: str | None) -> None:
    rig = Rig()
    panda_id = rig.sent()
    assert rig.finish(panda_id, text, "failed", pilotErrorCode=code) == ("failed", diag)


def test_a_final_report_without_attempt_stays_in_holding_until_the_watcher_fails_it() -> None:
    rig = Rig()
    panda_id = rig.sent()
    assert rig.update(panda_id, "finished", None, report=report()) == "NULL"
    rig.later(2 * HOUR)
    assert rig.status(panda_id) == "holding"
    assert rig.update(panda_id, "finished", report=report()) == "alreadydone"
    rig.later(HOUR)
    assert (rig.status(panda_id), rig.error(panda_id)[0]) == ("failed", 103)


# --- orders to end --------------------------------------------------------------------------------------------

ORDERED = {
    "defined, no code": ("defined", None, "cancelled", 100),
    "activated, no code": ("activated", None, "cancelled", 100),
    "activated, expire": ("activated", "2", "closed", 102),
    "starting, aborted": ("starting", "3", "cancelled", 103),
    "holding, no code": ("holding", None, "cancelled", 100),
    "running, no code": ("running", None, "running", 0),
    "running, expire": ("running", "2", "running", 0),
    "running, forced": ("running", "9", "cancelled", 100),
    "running, forced by role": ("running", "99", "cancelled", 100),
    "sent, by the pilot": ("sent", "60", "closed", 100),
    "sent, task done": ("sent", "55", "closed", 100),
    "sent, rebrokerage": ("sent", "10", "closed", 130),
}


@pytest.mark.parametrize(("state", "code", "end", "error"), ORDERED.values(), ids=ORDERED.keys())
def test_an_order_to_end_takes_all_but_running_jobs_at_once(
    state: str, code: str | None, end: str, error: int
) -> None:
    rig = Rig(activate_s=2.0) if state == "defined" else Rig()
    (panda_id,) = rig.submit()
    if state not in ("defined", "activated"):
        rig.model.hand_out(Wish("Q", 1))
    if state not in ("defined", "activated", "sent"):
        rig.update(panda_id, state)
    assert rig.model.order_end(panda_id, code)
    assert (rig.status(panda_id), rig.error(panda_id, "taskBufferError")[0] or 0) == (end, error)
    told = rig.update(panda_id, "running")
    assert told == "tobekilled"


def test_a_forced_end_spares_running_user_jobs() -> None:
    rig = Rig()
    (panda_id,) = rig.submit(positional(prodSourceLabel="user"))
    rig.model.hand_out(Wish("Q", 1, "user"))
    rig.update(panda_id, "running")
    assert rig.model.order_end(panda_id, "9")
    assert rig.status(panda_id) == "running"


def test_a_second_order_is_refused_but_for_some_codes() -> None:
    rig = Rig()
    panda_id = rig.sent()
    rig.update(panda_id, "running")
    assert [rig.model.order_end(panda_id, code) for code in (None, None, "3", "2")] == [
        True,
        False,
        False,
        True,
    ]
    assert not rig.model.order_end(999999)


def test_a_running_job_that_was_ordered_to_end_fails_into_cancelled_and_finishes_into_finished() -> None:
    rig = Rig()
    ids = [rig.sent(), rig.sent()]
    for panda_id in ids:
        rig.update(panda_id, "running")
        rig.model.order_end(panda_id)
    assert rig.finish(ids[0], None, "failed", pilotErrorCode=1144)[0] == "cancelled"
    assert rig.finish(ids[1], report())[0] == "finished"


# --- pilots ---------------------------------------------------------------------------------------------------

BATCH_IDS = {
    ("both", "edge-1", "123.bw"): "tobekilled",
    ("both", "12.bw", "13.bw"): "tobekilled",
    ("both", "1", "2"): "tobekilled",
    ("both", "12", "13"): "NULL",
    ("both", "edge-1", "12"): "NULL",
    ("both", "edge-1", "edge-1"): "NULL",
    ("2018", "12.bw", "13.bw"): "NULL",
    ("0.8.1", "12.bw", "13.bw"): "trouble",
    ("1.0.4", "12.bw", "13.bw"): "trouble",
}


@pytest.mark.parametrize(("given", "expected"), BATCH_IDS.items(), ids=str)
def test_another_batch_id_that_is_no_number_is_an_impostors(
    given: tuple[str, str, str], expected: str
) -> None:
    flavour, first, second = given
    rig = Rig(flavour)
    panda_id = rig.sent()
    rig.update(panda_id, "running", batchID=first)
    rig.later(100.0)
    try:
        told = rig.update(panda_id, "running", batchID=second)
    except DatabaseTrouble:
        told = "trouble"
    assert told == expected
    stored = expected == "NULL"
    assert (rig.model.jobs[panda_id].heard_s == rig.at_s) is stored
    assert rig.model.jobs[panda_id].attributes["batchID"] == (second if stored else first)


def test_best_priority_first_then_lowest_id_over_several_fetches() -> None:
    rig = Rig()
    low = rig.submit(positional(0), positional(1))
    high = rig.submit(positional(2, assignedPriority=5000))
    assert [job.panda_id for job in rig.model.hand_out(Wish("Q", 2))] == [high[0], low[0]]
    assert [job.panda_id for job in rig.model.hand_out(Wish("Q", 9))] == [low[1]]


def test_jobs_that_do_not_fit_stay_for_others() -> None:
    rig = Rig()
    small, large = rig.submit(
        positional(0, minRamCount=500), positional(1, minRamCount=4000, assignedPriority=9000)
    )
    assert [job.panda_id for job in rig.model.hand_out(Wish("Q", 9, memory_mb=1000))] == [small]
    assert [job.panda_id for job in rig.model.hand_out(Wish("Q", 9))] == [large]


@pytest.mark.parametrize("timeout_s", [10.0, 5.0, 0.0])
def test_a_time_out_of_ten_seconds_and_less_never_gives_a_job(timeout_s: float) -> None:
    rig = Rig()
    rig.submit()
    assert rig.model.hand_out(Wish("Q", 1, timeout_s=timeout_s)) == []
    assert len(rig.model.hand_out(Wish("Q", 1, timeout_s=11.0))) == 1


def test_events_of_an_update_overwrite_the_submitters_number() -> None:
    rig = Rig()
    panda_id = rig.sent()
    rig.update(panda_id, "running", nEvents=2)
    assert rig.model.jobs[panda_id].attributes["nEvents"] == 2


# --- submitters -----------------------------------------------------------------------------------------------


def test_a_submission_is_cut_silently_at_5000_and_a_description_at_5500() -> None:
    rig = Rig()
    ids = rig.submit(*(positional(n) for n in range(SUBMIT_MAX + 1)))
    assert len(ids) == len(rig.model.jobs) == 5000
    ids += rig.submit(*(positional(n) for n in range(600)))
    answer = get_description(rig.model, {"job_ids": ids}, Caller(trusted=True))
    assert len(answer["data"]) == 5500


def test_jobs_are_found_by_the_number_that_their_submitter_gave() -> None:
    rig = Rig()
    ids = rig.submit(positional(0, jediTaskID=7), positional(1, jediTaskID=8), positional(2, jediTaskID=7))
    assert rig.model.ids_of_task(7) == [ids[0], ids[2]]
    assert rig.model.ids_of_task(9) == []


def test_status_is_told_for_an_hour_after_the_end_then_unknown() -> None:
    rig = Rig()
    panda_id = rig.sent()
    rig.finish(panda_id, report())
    rig.later(HOUR - 1.0)
    assert rig.model.shown(panda_id) is not None
    rig.later(5.0)
    assert rig.model.shown(panda_id) is None
    assert rig.model.jobs[panda_id].status == "finished"


def test_competing_fetches_get_different_jobs_and_some_are_short_while_jobs_wait() -> None:
    rig = Rig()
    rig.submit(*[positional(number) for number in range(160)])
    rig.model.rivals = 7
    replies = [rig.model.hand_out(Wish("Q", 10)) for _ in range(8)]
    ids = [job.panda_id for reply in replies for job in reply]
    sizes = [len(reply) for reply in replies]
    assert len(ids) == len(set(ids))
    assert min(sizes) < 10 and rig.model.depth("Q") == 160 - len(ids) > 80
    rig.model.rivals = 0
    assert len(rig.model.hand_out(Wish("Q", 200))) == 160 - len(ids)
