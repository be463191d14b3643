"""A job is refused at once where the site's calibrations are of no use to it; its neighbours go on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from rig import Rig, Site, make_job, make_limits

from pilot.multijob.actions import SubmitBatchJob
from pilot.ports import Job, JobStatus


def job_of_run(number: int, raw: str, **changes: Any) -> Job:
    job = make_job(number)
    return replace(job, job_pars=f"TMPRAWFILE={raw} {job.job_pars}", **changes)


def played(runs: list[int] | None, *jobs: Job) -> tuple[Rig, Site]:
    limits = make_limits()
    caldb = {"identity": "cal-7", "runs": runs}
    rig = Rig(replace(limits, site=replace(limits.site, caldb=caldb)))
    site = Site(jobs)
    seen = rig.run(site.respond, 130)
    assert [action for action in seen if isinstance(action, SubmitBatchJob)]
    return rig, site


def test_a_job_whose_run_the_snapshot_does_not_cover_is_refused_before_it_costs_anything() -> None:
    outside = job_of_run(1, "cdr11001-274501.raw")
    rig, site = played([274400, 274500], outside, job_of_run(2, "cdr11001-274500.raw"), make_job(3))
    [bundle] = rig.state.bundles.values()
    assert set(bundle.job_keys) == {2, 3}
    [report] = [u for u in site.reports if u.panda_id == 1 and u.status is JobStatus.FAILED]
    assert report.pilot_error_code == 1245
    assert "run 274501 is not among 274400 to 274500" in report.pilot_error_diag


@pytest.mark.parametrize(
    "job",
    [
        job_of_run(1, "cdr11001-274500.raw"),
        job_of_run(1, "cdr11001-274400.raw"),
        job_of_run(1, "other-name.raw"),
        job_of_run(1, "cdr11001-274501.raw", transformation="merging mdst"),
    ],
)
def test_what_is_covered_or_says_no_run_or_needs_no_calibrations_goes_on(job: Job) -> None:
    rig, _ = played([274400, 274500], job)
    [bundle] = rig.state.bundles.values()
    assert bundle.job_keys == (1,)


def test_a_snapshot_of_all_runs_covers_every_job() -> None:
    rig, _ = played(None, job_of_run(1, "cdr11001-1.raw"))
    assert len(rig.state.bundles) == 1
