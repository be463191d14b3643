"""From PanDA's record to a verdict."""

import pytest

from prodsys_core import tables
from prodsys_core.config import Retry
from prodsys_core.ports import Description
from prodsys_core.verdicts import Ended, Expected, Held, Seen, judge_description, judge_status

RULES = Retry(uncharged_max=3, backoff_s=(0.0, 60.0))


def expected(**changes):
    values = {
        "kind": "reconstruct",
        "job_name": "n",
        "attempt_nr": 1,
        "n_events": 300,
        "charged": 0,
        "uncharged": 0,
        "max_attempts": 5,
    }
    return Expected(**values | changes)


def judge(status="failed", codes=None, n_events=300, name="n", attempt=1, **changes):
    seen = Description(7, name, attempt, status, n_events, codes or {}, {"pilotErrorDiag": "words"})
    return judge_description(expected(**changes), seen, tables.codes(), tables.panda_words(), RULES)


def test_no_record_is_held():
    verdict = judge_description(expected(), None, tables.codes(), tables.panda_words(), RULES)
    assert isinstance(verdict, Held)


@pytest.mark.parametrize("changes", [{"name": "other"}, {"attempt": 2}])
def test_record_of_something_else_is_held(changes):
    assert isinstance(judge("finished", **changes), Held)


def test_finished_needs_the_catalogues_events():
    assert judge("finished").status == "finished"
    assert judge("finished", n_events=299).status == "manual check is needed"


@pytest.mark.parametrize(
    ("catalogue", "read", "written", "reason"),
    [
        (300, 300, 300, "finished"),
        (300, 300, 0, "finished"),
        (300, 299, 200, "events-differ"),
        (300, 299, None, "events-differ"),
        (300, 300, 301, "events-differ"),
        (None, 300, 301, "events-differ"),
        (None, 300, 200, "events-unchecked"),
        (300, None, 200, "events-unchecked"),
        (300, 300, None, "events-unchecked"),
        (None, None, None, "events-unchecked"),
    ],
)
def test_catalogue_read_and_written_are_compared_where_known_and_unchecked_where_not(
    catalogue, read, written, reason
):
    seen = Description(7, "n", 1, "finished", read, n_written=written)
    verdict = judge_description(
        expected(n_events=catalogue), seen, tables.codes(), tables.panda_words(), RULES
    )
    assert (verdict.status == "manual check is needed") == (reason == "events-differ")
    assert verdict.reason == reason
    merge = expected(kind="merge mdst", n_events=None)
    verdict = judge_description(merge, seen, tables.codes(), tables.panda_words(), RULES)
    assert (verdict.status, verdict.reason) == ("finished", "finished")


def test_every_status_of_panda_has_a_meaning():
    words = tables.panda_words()
    for status in words.running:
        assert judge(status) == Seen(True)
    for status in words.waiting:
        assert judge(status) == Seen(False)
    for status in words.ended:
        assert isinstance(judge(status), Ended)
        assert isinstance(judge_status(status, words), Held)
    assert isinstance(judge("unknown"), Held)


def test_cancelled_and_closed_are_not_charged():
    for status in ("cancelled", "closed"):
        verdict = judge(status)
        assert (verdict.status, verdict.charged, verdict.retry_in_s) == ("failed", False, 0.0)


def test_code_of_the_pilot_comes_first():
    verdict = judge(codes={"pilotErrorCode": 1305, "ddmErrorCode": 200})
    assert (verdict.reason, verdict.charge, verdict.diag) == ("pilotErrorCode:1305", "own", "words")


def test_code_without_a_line_gives_way_to_one_that_has_one():
    assert judge(codes={"pilotErrorCode": 9, "jobDispatcherErrorCode": 100}).charge == "infrastructure"
    assert judge(codes={"pilotErrorCode": 9}).reason == "pilotErrorCode:9"


def test_core_dump_is_looked_at_for_processing_and_retried_for_merging():
    assert judge(codes={"pilotErrorCode": 1236}).status == "manual check is needed"
    assert judge(codes={"pilotErrorCode": 1236}, kind="merge mdst").status == "failed"


def test_last_charged_attempt_is_not_followed_by_another():
    assert judge(codes={"pilotErrorCode": 1305}, charged=3).retry_in_s == 0.0
    assert judge(codes={"pilotErrorCode": 1305}, charged=4).retry_in_s is None


def test_uncharged_attempts_have_their_own_limit_and_waits():
    waits = [judge(codes={"pilotErrorCode": 1344}, charged=4, uncharged=n).retry_in_s for n in range(4)]
    assert waits == [0.0, 60.0, 60.0, None]


def test_every_line_of_the_table_is_usable():
    table = tables.codes()
    for rules in table.codes.values():
        for rule in rules.values():
            assert rule.charge in ("own", "site", "infrastructure")
            assert {rule.then, *rule.per_kind.values()} <= {"retry", "manual", "stage again"}
            assert rule.text
