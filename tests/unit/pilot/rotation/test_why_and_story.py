"""`why`, `story` and `bundle --dry-run`: every open thing has a reason, every event of an id is told."""

from __future__ import annotations

from rig import START, Rig, Site, good_end, make_job

from pilot.multijob.model import BundleState
from pilot.multijob.recognise import Now
from pilot.rotation.preview import TAG, preview
from pilot.rotation.story import story
from pilot.rotation.why import why


def asked(rig: Rig, subject: str) -> list[str]:
    return why(rig.state, rig.memory, subject, Now(START.isoformat(), rig.now_s), rig.limits)


def worked() -> tuple[Rig, Site, str]:
    """Four jobs in one bundle whose batch job runs; job 1 has ended well."""
    rig, site = Rig(), Site([make_job(n) for n in range(1, 5)])
    rig.run(site.respond, 10, 5.0)
    (batch_id,) = site.batch
    (bundle_id,) = rig.state.bundles
    site.start(batch_id)
    site.line(bundle_id, "job_started", panda_id=1, attempt_nr=1)
    site.line(bundle_id, "job_ended", **good_end(make_job(1)))
    rig.run(site.respond, 20, 5.0)
    return rig, site, bundle_id


def test_every_open_job_and_bundle_has_a_reason_at_every_moment() -> None:
    rig, site = Rig(), Site([make_job(n) for n in range(1, 7)])
    for tick in range(400):
        rig.run(site.respond, 1, 5.0)
        if tick == 20:
            for batch_id in site.batch:
                site.start(batch_id)
        if tick == 40:
            for batch_id in site.batch:
                site.end(batch_id)
        for panda_id in rig.state.jobs:
            assert all(len(line) > 15 for line in asked(rig, str(panda_id)))
            assert asked(rig, str(panda_id))
        for bundle_id in rig.state.bundles:
            assert asked(rig, bundle_id)
        assert len(asked(rig, "long")) == 2
    assert any(bundle.state is BundleState.SETTLED for bundle in rig.state.bundles.values())


def test_a_job_of_the_pool_waits_for_what_its_queue_waits_for() -> None:
    rig, site = Rig(), Site([make_job(1)])
    rig.run(site.respond, 5)
    (line,) = asked(rig, "1")
    assert "number 1 in the pool" in line
    assert "1 of 4 jobs" in line


def test_a_bundle_is_found_by_its_id_its_round_and_its_batch_id() -> None:
    rig, _, bundle_id = worked()
    by_bundle = asked(rig, bundle_id)
    assert "runs" in by_bundle[0]
    assert asked(rig, f"{bundle_id}.1") == asked(rig, "1.sim") == by_bundle


def test_what_is_not_open_has_no_reason() -> None:
    rig, _, _ = worked()
    assert asked(rig, "12345") == asked(rig, "") == asked(rig, "x" * 500) == []


def test_the_story_of_a_job_has_its_own_events_and_its_bundles() -> None:
    rig, _, bundle_id = worked()
    lines = story(rig.events, "1")
    kinds = [line.split()[1] for line in lines]
    assert kinds[:3] == ["JobFetched", "BundlePlanned", "BundlePrepared"]
    assert {
        "RoundIntended",
        "BatchJobAccepted",
        "ClaimSeen",
        "JobStarted",
        "JobJudged",
        "FinalAccepted",
    } <= set(kinds)
    assert all(bundle_id in line for line in lines if "Round" in line)
    assert not any("panda_id=2" in line for line in lines)


def test_the_story_of_a_bundle_has_its_jobs() -> None:
    rig, _, bundle_id = worked()
    lines = story(rig.events, bundle_id)
    assert any("JobJudged" in line and "panda_id=1" in line for line in lines)
    assert not any("JobFetched" in line for line in lines)


def test_the_story_of_a_batch_job_is_that_of_its_round() -> None:
    rig, _, bundle_id = worked()
    lines = story(rig.events, "1.sim")
    assert any("RoundIntended" in line for line in lines)
    assert lines == story(rig.events, f"{bundle_id}.1")


def test_no_story_holds_the_text_of_a_job() -> None:
    rig, _, _ = worked()
    assert not any("PRODSYS" in line for line in story(rig.events, "1"))


def test_an_unknown_id_has_no_story() -> None:
    rig, _, _ = worked()
    assert story(rig.events, "99") == story(rig.events, "") == story(rig.events, "zzz.1") == []


def test_the_dry_run_shows_what_the_next_bundle_is_and_leaves_the_pool_alone() -> None:
    rig, site = Rig(), Site([make_job(n) for n in range(1, 4)])
    rig.run(site.respond, 5)
    copy = rig.restart().state
    now = Now(START.isoformat(), rig.now_s)
    text = preview(copy, rig.limits, rig.limits.queues["long"], now)
    assert "3 of 4 for a full bundle (3 wait in the pool)" in text
    assert "#PBS -N dry-run.1" in text
    assert len(rig.state.pools["long"]) == 3
    rig.run(site.respond, 60, 5.0)
    (bundle,) = rig.state.bundles.values()
    assert f"walltime: {bundle.walltime_s} s" in text


def test_the_dry_run_of_an_empty_pool_takes_examples() -> None:
    rig = Rig()
    text = preview(rig.state, rig.limits, rig.limits.queues["long"], Now(START.isoformat(), 0.0))
    assert "4 of 4" in text
    assert "examples" in text
    assert TAG in text
