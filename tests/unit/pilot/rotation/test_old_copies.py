"""A state directory that is an older copy of itself: what the journal has forgotten is found before all else."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from oldcopies import Place, begin_again, found_in, short_limits, start
from rig import START, Rig, make_job

from pilot.experiments.jobtext import parse_job_text
from pilot.multijob import actions as a
from pilot.multijob.adoption import decide_adoption, parse_found
from pilot.multijob.apply import apply, replay
from pilot.multijob.codec import decode, encode
from pilot.multijob.decide import decide_bundle
from pilot.multijob.events import AdoptedJob, BundleAdopted, JobFoundOver, JobReturned, RoundIntended
from pilot.multijob.keptjob import short_work
from pilot.multijob.memory import Memory, Unknown
from pilot.multijob.model import Bundle, BundleState, JobState, State
from pilot.multijob.recognise import Now
from pilot.ports import BundleId, DirectorySeen, PandaId, Refused

STEP_S = 10.0


def walk(rig: Rig, place: Place, ticks: int) -> list[a.Action]:
    return rig.run(place.respond, ticks, STEP_S)


def begun(jobs: int = 4) -> tuple[Place, Rig, int]:
    """A site whose jobs are all fetched; how long its journal was before the first bundle was planned."""
    place = Place([make_job(n) for n in range(1, jobs + 1)], short_limits())
    rig = start(place)
    while not rig.state.bundles:
        walk(rig, place, 1)
    walk(rig, place, 4)
    return place, rig, next(n for n, record in enumerate(rig.durable) if record["e"] == "BundlePlanned")


def test_a_bundle_that_the_journal_forgot_is_adopted_and_its_jobs_run_once() -> None:
    place, rig, length = begun()
    place.begin(place.waiting_jobs()[0])
    again = begin_again(rig, rig.durable[:length])
    assert len(again.state.pools["long"]) == 4
    walk(again, place, 10)
    (bundle,) = again.state.bundles.values()
    assert bundle.adopted
    assert {record.state for record in again.state.jobs.values()} == {JobState.STARTED}
    place.work_ends(place.running_jobs()[0])
    walk(again, place, 30)
    assert set(place.server.values()) == {"finished"}
    assert set(place.runs.values()) == {1}
    assert not again.memory.alarms


def test_nothing_is_fetched_or_bundled_before_every_directory_is_decided() -> None:
    place, rig, length = begun()
    place.waiting = [make_job(n) for n in range(11, 15)]
    again = begin_again(rig, rig.durable[:length])
    place.asks = False
    walk(again, place, 5)
    assert again.memory.undecided() is not None
    assert not [
        a for a in again.events if type(a).__name__ in ("JobFetched", "BundlePlanned", "BundleAdopted")
    ]
    again.memory.in_flight.pop(("status", "panda"))
    place.asks = True
    walk(again, place, 5)
    assert again.memory.undecided() is None
    assert [e for e in again.events if isinstance(e, BundleAdopted)]


def test_a_forgotten_batch_job_that_has_not_started_never_does_and_its_jobs_go_back() -> None:
    place, rig, length = begun()
    again = begin_again(rig, rig.durable[:length])
    walk(again, place, 3)
    first = place.waiting_jobs()[0]
    place.begin(first)
    assert not place.runs
    walk(again, place, 8)
    assert len([e for e in again.events if isinstance(e, JobReturned)]) == 4


def test_a_job_of_the_pool_that_the_server_has_had_is_forgotten_not_run_again() -> None:
    place, rig, length = begun()
    place.manifests.clear()
    place.batch.clear()
    place.server.update(dict.fromkeys(list(place.server), "finished"))
    place.commands = False
    again = begin_again(rig, rig.durable[:length])
    walk(again, place, 6)
    assert len([e for e in again.events if isinstance(e, JobFoundOver)]) == 4
    assert not again.state.jobs and not again.state.bundles


def test_a_job_in_two_forgotten_bundles_belongs_to_the_one_that_had_it_last() -> None:
    place, rig, length = begun()
    place.end(place.waiting_jobs()[0])
    while len(place.manifests) < 2:
        walk(rig, place, 1)
        for batch_id in place.waiting_jobs():
            place.end(batch_id) if len(place.manifests) < 2 else None
    walk(rig, place, 4)
    last = list(place.manifests)[-1]
    place.begin(place.waiting_jobs()[-1])
    for order in (1, -1):
        place.manifests = dict(list(place.manifests.items())[::order])
        again = begin_again(rig, rig.durable[:length])
        walk(again, place, 6)
        assert {record.bundle_id for record in again.state.jobs.values()} == {last}


def test_a_forgotten_round_is_waited_for_and_never_submitted_again() -> None:
    place, rig, _ = begun()
    intent = next(n for n, record in enumerate(rig.durable) if record["e"] == "RoundIntended")
    again = begin_again(rig, rig.durable[:intent])
    walk(again, place, 6)
    assert [e.number for e in again.events if isinstance(e, RoundIntended)] == [1]
    assert set(place.names.values()) == {1}
    (bundle,) = again.state.bundles.values()
    assert bundle.current is not None
    assert bundle.current.batch_ids == tuple(place.batch)


def test_a_bundle_whose_jobs_are_elsewhere_gets_no_further_round() -> None:
    place, rig, _ = begun()
    place.end(place.waiting_jobs()[0])
    intent = next(n for n, record in enumerate(rig.durable) if record["e"] == "RoundIntended") + 1
    again = begin_again(rig, rig.durable[:intent])
    bundle = next(iter(again.state.bundles.values()))
    walk(again, place, 2)
    gone = bundle.job_keys[0]
    place.server[gone] = "finished"
    walk(again, place, 20)
    assert JobFoundOver in {type(event) for event in again.events}
    assert not any(name.startswith(f"{bundle.bundle_id}.2") for name in place.names)
    assert bundle.state is BundleState.SETTLED


def test_a_bundle_without_its_directory_is_not_waited_for() -> None:
    place, rig, _ = begun()
    place.begin(place.waiting_jobs()[0])
    walk(rig, place, 3)
    length = len(rig.durable)
    place.work_ends(place.running_jobs()[0])
    while place.manifests:
        walk(rig, place, 1)
    again = begin_again(rig, rig.durable[:length])
    walk(again, place, 2)
    assert next(iter(again.state.bundles.values())).state is BundleState.OPEN
    walk(again, place, 80)
    assert not again.state.bundles and not again.state.jobs
    assert not again.memory.alarms
    assert set(place.server.values()) == {"finished"}


def test_a_directory_that_cannot_be_read_is_set_aside_with_an_alarm_and_looked_at_again() -> None:
    place, rig, length = begun()
    (bundle_id,) = place.manifests
    whole = place.manifests[bundle_id]
    place.manifests[bundle_id] = whole[: len(whole) // 2]
    again = begin_again(rig, rig.durable[:length])
    walk(again, place, 20)
    assert again.memory.undecided() is None
    assert f"foreign-bundle-{bundle_id}" in again.memory.alarms
    assert bundle_id in place.manifests and bundle_id not in again.state.bundles
    place.manifests[bundle_id] = whole
    walk(again, place, 80)
    assert bundle_id in {e.bundle_id for e in again.events if isinstance(e, BundleAdopted)}
    assert f"foreign-bundle-{bundle_id}" not in again.memory.alarms


def test_the_alarm_ends_with_the_directory_that_is_gone() -> None:
    place, rig, length = begun()
    (bundle_id,) = place.manifests
    place.manifests[bundle_id] = "{}"
    again = begin_again(rig, rig.durable[:length])
    walk(again, place, 20)
    assert f"foreign-bundle-{bundle_id}" in again.memory.alarms
    place.manifests.clear()
    walk(again, place, 80)
    assert not [name for name in again.memory.alarms if name.startswith("foreign-bundle")]


def test_a_directory_of_another_user_is_set_aside() -> None:
    place, rig, length = begun()

    def respond(action: a.Action) -> Any:
        denied = Refused("denied", "no claim can be made")
        return denied if isinstance(action, a.AdoptBundle) else place.respond(action)

    again = begin_again(rig, rig.durable[:length])
    again.run(respond, 20, STEP_S)
    assert again.memory.undecided() is None
    assert [name for name in again.memory.alarms if name.startswith("foreign-bundle")]


def test_what_the_server_gave_up_runs_on_as_an_orphan_and_what_it_finished_is_not_judged_again() -> None:
    place, rig, _ = begun()
    place.begin(place.waiting_jobs()[0])
    place.server.update({1: "finished", 2: "failed"})
    again = begin_again(rig, [])
    walk(again, place, 6)
    jobs = again.state.jobs
    assert PandaId(1) not in jobs
    assert jobs[PandaId(2)].orphaned and not jobs[PandaId(3)].orphaned


def test_a_manifest_gives_back_the_jobs_that_it_was_made_of() -> None:
    place, rig, _ = begun()
    (bundle_id,) = place.manifests
    found = found_in(place, bundle_id, place.limits)
    assert isinstance(found, BundleAdopted)
    (bundle,) = rig.state.bundles.values()
    assert (found.nodes, found.walltime_s, found.queue) == (bundle.nodes, bundle.walltime_s, "long")
    for item in found.jobs:
        record = rig.state.jobs[item.job.panda_id]
        job = replace(item.job, job_pars=record.job.job_pars)
        assert parse_job_text(item.job.job_pars) == parse_job_text(record.job.job_pars)
        assert replace(item, job=job, work=None) == AdoptedJob(
            record.job, 1, None, record.task, server="panda"
        )
        assert short_work(item.work) == record.work
    assert decode(encode(found)) == found


@pytest.mark.parametrize(
    "change",
    [
        {"schema": 2},
        {"bundle_id": "zzzzzzzzz"},
        {"queue": "nowhere"},
        {"queue": ["long"]},
        {"nodes": []},
        {"nodes": [{"index": 1, "jobs": []}]},
        {"nodes": [{"index": 0, "jobs": [{"panda_id": 1}]}]},
        {"walltime_s": "long"},
    ],
)
def test_a_manifest_that_makes_no_sense_gives_a_reason(change: dict[str, Any]) -> None:
    place, _, _ = begun()
    (bundle_id,) = place.manifests
    place.manifests[bundle_id] = json.dumps({**json.loads(place.manifests[bundle_id]), **change})
    assert isinstance(found_in(place, bundle_id, place.limits), str)


def test_a_manifest_that_is_not_there_gives_a_reason() -> None:
    seen = DirectorySeen(next(iter(begun()[0].manifests)), None, 1)
    assert "not there" in str(parse_found(seen, short_limits()))


def test_an_adoption_folds() -> None:
    place, rig, length = begun()
    again = begin_again(rig, rig.durable[:length])
    walk(again, place, 30)
    assert replay(decode(record) for record in again.durable) == again.state


def test_no_directory_is_adopted_before_all_are_read_for_a_job_may_be_in_several() -> None:
    at, newer, older = "2026-01-01T00:00:00+00:00", BundleId("a" * 9), BundleId("b" * 9)
    state, memory = State(), Memory(1, 0.0)
    found = BundleAdopted(at, newer, "long", ((PandaId(1),),), 600, 1, (AdoptedJob(make_job(1), 2),))
    memory.unknown = {newer: Unknown(found=found), older: Unknown()}
    memory.told["long", PandaId(1)] = "running"
    assert not [
        r for r in decide_adoption(state, memory, at, 0.0, short_limits()) if isinstance(r, BundleAdopted)
    ]
    first = replace(found, bundle_id=older, jobs=(AdoptedJob(make_job(1), 1),))
    memory.unknown[older].found = first
    adopted = []
    for result in decide_adoption(state, memory, at, 0.0, short_limits()):
        if isinstance(result, BundleAdopted):
            apply(state, result)
            adopted.append(result.bundle_id)
    assert set(adopted) == {newer, older}
    assert state.jobs[PandaId(1)].bundle_id == newer


def test_a_directory_that_was_once_not_seen_is_kept_for_its_retention() -> None:
    limits = short_limits()
    bundle = Bundle(BundleId("a" * 9), "long", START.isoformat(), ((PandaId(1),),), 600)
    bundle.state, bundle.settled_at = BundleState.SETTLED, START.isoformat()
    memory = Memory(1, 0.0)
    now = Now(START.isoformat(), 1000.0)
    memory.gone[bundle.bundle_id] = (1, 0.0)
    assert not list(decide_bundle(State(), memory, bundle, now, limits))
    memory.gone[bundle.bundle_id], memory.retire_s = (2, 0.0), {}
    assert [type(found) for found in decide_bundle(State(), memory, bundle, now, limits)] == [a.RemoveBundle]
