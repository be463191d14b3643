"""While directories that the journal does not know are unread, nothing is decided that they could tell otherwise."""

from __future__ import annotations

from dataclasses import replace

import pytest
from oldcopies import short_limits
from rig import START, make_job

from pilot.multijob import actions as a
from pilot.multijob.apply import apply
from pilot.multijob.decide import decide_bundle
from pilot.multijob.events import (
    BatchJobAccepted,
    BatchJobEnded,
    BundleCancelled,
    BundleClosed,
    BundlePlanned,
    BundlePrepared,
    BundleSettled,
    ClaimSeen,
    Event,
    JobBound,
    JobFetched,
    JobJudged,
    JobOrphaned,
    JobRecalled,
    JobStarted,
    JournalConsumed,
    RoundIntended,
    RoundVoided,
    RoundWon,
)
from pilot.multijob.lines import recognise_evidence
from pilot.multijob.memory import Memory
from pilot.multijob.model import Bundle, BundleState, State
from pilot.multijob.recognise import Now, recognise
from pilot.multijob.salvage import decide_bound
from pilot.multijob.untold import Untold
from pilot.ports import Answer, BatchId, BundleId, Claim, EvidenceSeen, Fetched, JournalLine, PandaId

AT, TAG, JOB = START.isoformat(), BundleId("a" * 9), PandaId(1)
LATE = Now(AT, 5000.0)


def _told(*events: Event) -> tuple[State, Memory]:
    state, memory = State(), Memory(1, 0.0)
    for event in (JobFetched(AT, "long", make_job(1)), *events):
        apply(state, event)
    memory.inherit(state)
    memory.untold = Untold()
    memory.scripts_found[TAG] = frozenset({1})
    return state, memory


def _bundle(*events: Event) -> tuple[State, Memory, Bundle]:
    planned = BundlePlanned(AT, TAG, "long", ((JOB,),), 600)
    state, memory = _told(planned, BundlePrepared(AT, TAG), RoundIntended(AT, TAG, 1), *events)
    return state, memory, state.bundles[TAG]


def _over() -> tuple[Event, ...]:
    accepted = BatchJobAccepted(AT, TAG, 1, BatchId("11.sim"), "qsub")
    claim = Claim("gate", 1, BatchId("11.sim"), "h", 1, "n", "t")
    ended = BatchJobEnded(AT, TAG, 1, BatchId("11.sim"), "over", False, None)
    return accepted, ClaimSeen(AT, TAG, 1, claim), ended, BundleClosed(AT, TAG)


def _void(number: int = 1) -> tuple[Event, ...]:
    return RoundWon(AT, TAG, number), RoundVoided(AT, TAG, number)


def test_a_follower_that_was_given_up_waits_for_the_directories() -> None:
    state, memory = _told(JobFetched(AT, "long", make_job(2)), JobBound(AT, PandaId(2), JOB))
    apply(state, JobOrphaned(AT, PandaId(2), "server says unknown"))
    assert not list(decide_bound(state, memory, AT, 0.0, short_limits()))
    memory.found_all = True
    assert [type(found) for found in decide_bound(state, memory, AT, 0.0, short_limits())] == [JobJudged]


def test_a_closed_bundle_is_not_read_for_the_last_time_before_the_directories_are_decided() -> None:
    state, memory, bundle = _bundle(*_over())
    assert bundle.state is BundleState.CLOSED
    memory.closed_s[TAG] = 0.0
    memory.read_s[TAG] = LATE.mono_s
    assert not list(decide_bundle(state, memory, bundle, LATE, short_limits()))
    memory.found_all = True
    (last,) = decide_bundle(state, memory, bundle, LATE, short_limits())
    assert isinstance(last, a.ReadEvidence) and last.last


def test_a_last_reading_that_was_held_up_settles_nothing_and_the_wait_starts_anew() -> None:
    """Agents that look for `closed` were held up as long, and may still be at work."""
    state, memory, bundle = _bundle(*_over())
    limits, seen = short_limits(), EvidenceSeen(TAG, {}, None, (), (), True, ())
    memory.found_all, memory.closed_s[TAG] = True, 0.0

    def settled(took_s: float) -> bool:
        answer = Answer(1, a.ReadEvidence(TAG, {}, last=True), seen, LATE.mono_s - took_s, took_s)
        return any(isinstance(i, BundleSettled) for i in recognise(state, memory, answer, LATE, limits))

    def reads_last(after_s: float) -> bool:
        now = replace(LATE, mono_s=LATE.mono_s + after_s)
        found = decide_bundle(state, memory, bundle, now, limits)
        return any(isinstance(i, a.ReadEvidence) and i.last for i in found)

    assert not settled(limits.protocol.visible_s + 1.0)
    assert not reads_last(limits.protocol.settle_s - 1.0)
    assert reads_last(limits.protocol.settle_s)
    assert settled(1.0)


def test_a_closed_bundle_is_read_while_it_waits_so_that_an_outage_is_seen() -> None:
    state, memory, bundle = _bundle(*_over())
    memory.found_all, memory.closed_s[TAG] = True, LATE.mono_s
    (look,) = decide_bundle(state, memory, bundle, LATE, short_limits())
    assert isinstance(look, a.ReadEvidence) and not look.last


def test_a_bundle_without_a_further_round_is_not_settled_before_the_directories_are_decided() -> None:
    state, memory, bundle = _bundle(*_void(), BundleCancelled(AT, TAG, "a person"))
    assert BundleSettled not in {type(i) for i in decide_bundle(state, memory, bundle, LATE, short_limits())}
    memory.found_all = True
    assert BundleSettled in {type(i) for i in decide_bundle(state, memory, bundle, LATE, short_limits())}


def test_a_directory_that_is_gone_settles_nothing_before_the_others_are_decided() -> None:
    state, memory, bundle = _bundle(*_over())
    memory.gone[TAG] = (2, 0.0)
    assert BundleSettled not in {type(i) for i in decide_bundle(state, memory, bundle, LATE, short_limits())}
    memory.found_all = True
    assert BundleSettled in {type(i) for i in decide_bundle(state, memory, bundle, LATE, short_limits())}


@pytest.mark.parametrize(("scripts", "believed"), [((1,), True), ((1, 2), False)])
def test_lines_are_not_read_as_those_of_a_round_that_has_a_later_one(
    scripts: tuple[int, ...], believed: bool
) -> None:
    state, memory, _ = _bundle(BatchJobAccepted(AT, TAG, 1, BatchId("11.sim"), "qsub"))
    body = {"panda_id": 1, "attempt_nr": 1}
    line = JournalLine("node.0.n1x0.journal", 90, 1, "job_started", body)
    seen = EvidenceSeen(TAG, {}, None, (), (), False, (line,), scripts=scripts)
    action = a.ReadEvidence(TAG, {})
    found = list(recognise_evidence(state, memory, action, seen, AT, 0.0, short_limits()))
    assert (JobStarted in {type(event) for event in found}) is believed
    assert (JournalConsumed in {type(event) for event in found}) is believed
    last = replace(action, last=True)
    kinds = {type(event) for event in recognise_evidence(state, memory, last, seen, AT, 0.0, short_limits())}
    assert JobStarted in kinds


def test_a_job_that_is_handed_out_again_and_makes_no_sense_is_set_aside_not_judged_by_old_evidence() -> None:
    state, memory, bundle = _bundle(*_void(), BundleCancelled(AT, TAG, "a person"))
    memory.found_all = True
    limits = short_limits()
    for found in decide_bundle(state, memory, bundle, LATE, limits):
        if not isinstance(found, a.ReadEvidence):
            apply(state, found)  # type: ignore[arg-type]
    state.jobs.clear()
    state.pools.clear()
    for outputs, kinds in (
        (("../../etc/passwd",), [JobFetched, JobJudged]),
        (make_job(1).outputs, [JobRecalled]),
    ):
        job = replace(make_job(1), outputs=outputs)
        answer = Answer(1, a.FetchJobs("long", "panda", "P-long", 1), Fetched((job,)), 0.0, 0.0)
        assert [type(event) for event in recognise(state, memory, answer, LATE, limits)] == kinds
