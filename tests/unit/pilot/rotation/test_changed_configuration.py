"""A configuration that changed over a restart: jobs that do not fit it end uncharged, and their neighbours run."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from oldcopies import Place, begin_again, short_limits, start
from rig import Rig, Site, make_job, make_limits

from pilot.multijob import actions as a
from pilot.multijob.apply import apply, replay
from pilot.multijob.codec import decode
from pilot.multijob.events import BundlePlanned, BundleSettled, JobFoundOver, JobJudged, JobReturned
from pilot.multijob.fitness import judged_misfit
from pilot.multijob.inputs import forget_inputs, held_by_inputs
from pilot.multijob.model import BundleState, JobState, Limits
from pilot.multijob.recognise import Now
from pilot.multijob.script import render_files
from pilot.ports import Broken, Job, Refused, Unavailable
from pilot.rotation.preview import preview

STEP_S = 10.0
UNFIT_JOB = 2
SETUP = "/sw/{RELEASE}/setup.sh"


def job_of(number: int) -> Job:
    """Job 2 has no release; its outputs go elsewhere, and it is of another kind and another run."""
    job = make_job(number)
    if number == UNFIT_JOB:
        text = "TMPRAWFILE=cdr11001-9.raw " + job.job_pars.replace("COMPASS_SW_PATH=p/", "COMPASS_SW_PATH=x/")
        return replace(job, job_pars=text, transformation="technical production")
    return replace(job, job_pars=f"TMPRAWFILE=cdr11001-5.raw RELEASE=r5 {job.job_pars}")


def with_site(limits: Limits, **changes: Any) -> Limits:
    return replace(limits, site=replace(limits.site, **changes))


def with_setup(limits: Limits) -> Limits:
    return with_site(limits, setup=SETUP)


def with_output_root(limits: Limits) -> Limits:
    return with_site(limits, output_root="/out/p")


def without_kind(limits: Limits) -> Limits:
    kinds = {k: v for k, v in limits.experiment.kinds.items() if k != "technical production"}
    return replace(limits, experiment=replace(limits.experiment, kinds=kinds))


def with_snapshot(limits: Limits) -> Limits:
    return with_site(limits, caldb={"identity": "cal-7", "runs": [1, 5]})


Change = Callable[[Limits], Limits]
CHANGES = {
    with_setup: "the set-up script needs 'RELEASE'",
    with_output_root: "outside /out/p",
    without_kind: "unknown kind of work 'technical production'",
    with_snapshot: "run 9 is not among 1 to 5",
}


def walk(rig: Rig, place: Site, ticks: int) -> list[a.Action]:
    return rig.run(place.respond, ticks, STEP_S)


def again_with(rig: Rig, records: list[Any], limits: Limits) -> Rig:
    """A new daemon over these records, by this configuration."""
    rig.limits = limits
    return begin_again(rig, records)


def planned() -> tuple[Place, Rig]:
    """A bundle of all four jobs is planned and durable, and nothing is done for it."""
    place = Place([job_of(n) for n in range(1, 5)], short_limits())
    rig = start(place)
    rig.run(lambda x: None if isinstance(x, a.PrepareBundle) else place.respond(x), 10, STEP_S)
    assert len(rig.state.bundles) == 1
    return place, rig


def fetched() -> tuple[Place, Rig]:
    """All four jobs wait in the pool, as far as it is durable."""
    place, rig = planned()
    del rig.durable[[record["e"] for record in rig.durable].index("BundlePlanned") :]
    return place, rig


def work(rig: Rig, place: Place, rounds: int = 12) -> None:
    """Time passes, and whatever is submitted runs to its end."""
    for _ in range(rounds):
        walk(rig, place, 4)
        for batch_id in place.waiting_jobs():
            place.begin(batch_id)
            walk(rig, place, 2)
            place.work_ends(batch_id)


def verdicts(rig: Rig) -> list[tuple[int, str, str]]:
    return [
        (e.verdict.code, e.verdict.charge, e.verdict.reason)
        for e in rig.events
        if isinstance(e, JobJudged) and e.panda_id == UNFIT_JOB
    ]


def ended_rightly(place: Place) -> None:
    assert place.server == {1: "finished", 2: "failed", 3: "finished", 4: "finished"}
    assert place.judged[UNFIT_JOB] == ["failed"]
    assert dict(place.runs) == {1: 1, 3: 1, 4: 1}


@pytest.mark.parametrize("change", CHANGES)
def test_a_job_of_the_pool_that_does_not_fit_any_more_ends_uncharged_and_its_neighbours_run(
    change: Change,
) -> None:
    place, rig = fetched()
    again = again_with(rig, rig.durable, change(rig.limits))
    work(again, place)
    ((code, charge, reason),) = verdicts(again)
    assert (code, charge) == (1344, "infrastructure")
    assert "does not fit the configuration of now" in reason and CHANGES[change] in reason
    assert all(2 not in node for e in again.events if isinstance(e, BundlePlanned) for node in e.nodes)
    ended_rightly(place)
    assert not again.state.jobs or all(r.kept for r in again.state.jobs.values())
    assert not again.memory.alarms


def mistyped(limits: Limits) -> Limits:
    return replace(with_site(limits, output_root="/mistyped"), misfits_max=3)


def test_more_misfits_than_a_person_can_have_meant_are_held_and_none_ends() -> None:
    place, rig = fetched()
    right = rig.limits
    again = again_with(rig, rig.durable, mistyped(right))
    work(again, place)
    assert not [e for e in again.events if isinstance(e, JobJudged)]
    assert all(record.state is JobState.POOLED for record in again.state.jobs.values())
    reason = again.memory.alarms["configuration-does-not-fit"].reason
    assert reason.startswith("4 jobs") and "outside /mistyped" in reason
    assert "configuration-does-not-fit" in (held_by_inputs(again.memory, next(iter(again.state.jobs))) or "")
    mended = again_with(again, again.durable, replace(right, misfits_max=3))
    work(mended, place)
    assert set(place.server.values()) == {"finished"} and set(place.runs.values()) == {1}
    assert not mended.memory.alarms


def test_held_misfits_end_when_a_person_raises_the_limit() -> None:
    place, rig = fetched()
    again = again_with(rig, rig.durable, mistyped(rig.limits))
    work(again, place, 2)
    again.limits = replace(again.limits, misfits_max=4)
    work(again, place, 2)
    assert set(place.server.values()) == {"failed"} and not place.runs
    assert not again.memory.alarms


def test_held_misfits_stay_held_when_so_many_of_them_leave_that_the_rest_is_below_the_limit() -> None:
    place, rig = fetched()
    again = again_with(rig, rig.durable, mistyped(rig.limits))
    work(again, place, 2)
    gone = min(again.memory.misfits)
    apply(
        again.state, judged_misfit(again.state.jobs[gone], "cancelled", "2026-01-01T00:00:00Z", again.limits)
    )
    forget_inputs(again.memory, gone)
    assert len(again.memory.misfits) == 3 == again.limits.misfits_max
    work(again, place, 2)
    assert not [e for e in again.events if isinstance(e, JobJudged)]
    assert "configuration-does-not-fit" in again.memory.alarms


def test_the_alarm_goes_with_the_last_misfit_that_is_held() -> None:
    place, rig = fetched()
    again = again_with(rig, rig.durable, mistyped(rig.limits))
    work(again, place, 2)
    *others, last = again.memory.misfits
    for key in others:
        forget_inputs(again.memory, key)
    assert again.memory.alarms
    forget_inputs(again.memory, last)
    assert not again.memory.alarms


def test_misfits_of_all_ticks_of_a_run_are_counted_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pilot.multijob.inputs.READ_AT_ONCE", 1)
    place, rig = fetched()
    again = again_with(rig, rig.durable, mistyped(rig.limits))
    work(again, place)
    assert sum(isinstance(e, JobJudged) for e in again.events) == again.memory.misfits_ended == 3
    assert len(again.memory.misfits) == 1 and "configuration-does-not-fit" in again.memory.alarms


@pytest.mark.parametrize("change", [change for change in CHANGES if change is not with_snapshot])
def test_a_planned_bundle_that_cannot_be_made_gives_its_jobs_back_and_those_that_fit_run(
    change: Change,
) -> None:
    place, rig = planned()
    (first,) = rig.state.bundles
    again = again_with(rig, rig.durable, change(rig.limits))
    work(again, place)
    assert len([e for e in again.events if isinstance(e, JobReturned)]) == 4
    assert [e for e in again.events if isinstance(e, BundleSettled) and e.bundle_id == first]
    assert first not in place.manifests
    ((code, _, _),) = verdicts(again)
    assert code == 1344
    ended_rightly(place)
    assert not again.memory.alarms and not again.memory.fruitless


def test_the_new_bundle_has_the_set_up_script_of_the_new_configuration() -> None:
    place, rig = planned()
    again = again_with(rig, rig.durable, with_setup(rig.limits))
    walk(again, place, 20)
    (manifest,) = map(json.loads, place.manifests.values())
    told = [item for node in manifest["nodes"] for item in node["jobs"]]
    assert {item["panda_id"]: item["setup"] for item in told} == dict.fromkeys((1, 3, 4), "/sw/r5/setup.sh")


@pytest.mark.parametrize("changed_back", [False, True])
def test_a_daemon_killed_while_a_bundle_gives_its_jobs_back_goes_on_where_it_was(changed_back: bool) -> None:
    place, rig = planned()
    (bundle_id,) = rig.state.bundles
    before = rig.limits
    again = again_with(rig, rig.durable, with_setup(before))
    walk(again, place, 6)
    kinds = [record["e"] for record in again.durable]
    first, last = kinds.index("JobReturned"), kinds.index("BundleSettled")
    assert last - first == 4
    for length in range(first + 1, last + 2):
        later = Place([job_of(n) for n in range(1, 5)], rig.limits)
        later.waiting, later.server = [], dict.fromkeys(range(1, 5), "sent")
        third = again_with(again, again.durable[:length], before if changed_back else with_setup(before))
        work(third, later)
        # Of those that are left in it nothing is made.
        assert later.scripts and bundle_id not in later.scripts
        if changed_back:
            assert set(later.server.values()) == {"finished"} and set(later.runs.values()) == {1}
        else:
            ended_rightly(later)


def test_a_directory_that_is_in_place_goes_on_as_it_was_made() -> None:
    place, rig = planned()
    (action,) = [key for key in rig.memory.in_flight if key[0] == "prepare"]
    bundle = rig.state.bundles[action[1]]
    files = render_files(rig.state, bundle, rig.limits)
    assert not isinstance(files, Refused)
    # Killed between the rename of the directory and the record of it.
    place.manifests[bundle.bundle_id], place.scripts[bundle.bundle_id] = files.manifest, {1}
    again = again_with(rig, rig.durable, with_setup(rig.limits))
    work(again, place)
    assert set(place.server.values()) == {"finished"} and set(place.runs.values()) == {1}


@pytest.mark.parametrize("failure", [Unavailable("No space left on device"), Broken("TypeError: a bug")])
def test_what_names_no_job_is_tried_again_and_takes_no_job_out_of_its_bundle(failure: Any) -> None:
    place, rig = planned()
    again = again_with(rig, rig.durable, rig.limits)
    tries = [
        x
        for x in again.run(
            lambda x: failure if isinstance(x, a.PrepareBundle) else place.respond(x), 30, STEP_S
        )
        if isinstance(x, a.PrepareBundle)
    ]
    assert len(tries) > 2
    (bundle,) = again.state.bundles.values()
    assert bundle.state is BundleState.PLANNED and not [e for e in again.events if isinstance(e, JobReturned)]
    work(again, place, 20)
    assert set(place.server.values()) == {"finished"}


def test_a_failure_that_names_no_job_is_no_answer_about_jobs() -> None:
    _, rig = planned()
    (bundle,) = rig.state.bundles.values()

    def launch(index: int, slots: int) -> tuple[str, ...]:
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        render_files(rig.state, bundle, with_site(rig.limits, launch=launch))
    refused = render_files(rig.state, bundle, with_setup(rig.limits))
    assert isinstance(refused, Refused) and refused.reason.startswith("job 2: the set-up script needs")


def test_of_a_bundle_without_a_fit_job_a_few_are_named() -> None:
    _, rig = planned()
    (bundle,) = rig.state.bundles.values()
    refused = render_files(rig.state, bundle, with_site(rig.limits, output_root="/else"))
    assert isinstance(refused, Refused)
    assert refused.reason.count("outside /else") == 3 and refused.reason.endswith("; and 1 more")


def test_no_job_ends_before_its_server_was_asked_what_became_of_it() -> None:
    place, rig = fetched()
    place.asks = False
    again = again_with(rig, rig.durable, with_setup(rig.limits))
    walk(again, place, 20)
    assert not verdicts(again) and again.state.jobs[UNFIT_JOB].state is JobState.POOLED
    # The journal is an older copy: this one has run since, and the server has had its end.
    place.asks, place.server[UNFIT_JOB] = True, "finished"
    again.memory.in_flight.pop(("status", "panda"))
    work(again, place)
    assert [e.panda_id for e in again.events if isinstance(e, JobFoundOver)] == [UNFIT_JOB]
    assert not verdicts(again) and place.server[1] == "finished"


def test_no_bundle_gives_its_jobs_back_before_all_directories_are_looked_through() -> None:
    place, rig = planned()
    again = again_with(rig, rig.durable, with_setup(rig.limits))
    again.run(lambda x: None if isinstance(x, a.FindBundles) else place.respond(x), 20, STEP_S)
    assert again.memory.undecided() is not None
    assert {record.state for record in again.state.jobs.values()} == {JobState.BUNDLED}
    again.memory.in_flight.pop(("find",))
    work(again, place)
    ended_rightly(place)


def test_a_preview_shows_what_the_new_configuration_ends_and_plans_the_others() -> None:
    _, rig = fetched()
    state = replay(decode(record) for record in rig.durable)
    limits = with_setup(rig.limits)
    text = preview(state, limits, limits.queues["long"], Now("2026-01-01T12:00:00+00:00", 0.0))
    assert "jobs: 3 of 4" in text
    assert "ends: job 2 does not fit this configuration: the set-up script needs 'RELEASE'" in text


def test_a_preview_names_a_few_of_those_that_the_configuration_holds() -> None:
    _, rig = fetched()
    state = replay(decode(record) for record in rig.durable)
    limits = mistyped(rig.limits)
    text = preview(state, limits, limits.queues["long"], Now("2026-01-01T12:00:00+00:00", 0.0))
    assert "holds: 4 jobs, with those of all queues 4: rotation.misfits_max is 3" in text
    assert text.count("holds: job") == 3 and "ends:" not in text


def test_a_preview_without_jobs_needs_no_variables_of_the_set_up_script() -> None:
    limits = with_setup(make_limits())
    text = preview(Rig().state, limits, limits.queues["long"], Now("2026-01-01T12:00:00+00:00", 0.0))
    assert "examples of 3600 events" in text and "exec " in text
