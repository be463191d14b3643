"""A job is refused at once where the site's calibrations are of no use to it; its neighbours go on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from rig import Rig, Site, make_job, make_limits

import pilot
from pilot.config import parse_config
from pilot.multijob.actions import SubmitBatchJob
from pilot.multijob.script import render_manifest
from pilot.ports import Job, JobStatus
from pilot.rotation.wiring import WiringError
from pilot.rotation.wiring import make_limits as make_limits_of

SITES = Path(pilot.__file__).parent / "sites"


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


def test_a_queue_with_a_snapshot_of_its_own_covers_what_that_covers() -> None:
    limits = make_limits()
    own = {"identity": "cal-8", "runs": [1, 10]}
    queues = {name: replace(queue, caldb=own) for name, queue in limits.queues.items()}
    others = {"identity": "cal-7", "runs": [274400, 274500]}
    rig = Rig(replace(limits, queues=queues, site=replace(limits.site, caldb=others)))
    site = Site([job_of_run(1, "cdr11001-274500.raw"), job_of_run(2, "cdr11001-7.raw")])
    seen = rig.run(site.respond, 130)
    [bundle] = rig.state.bundles.values()
    assert set(bundle.job_keys) == {2}
    [report] = [u for u in site.reports if u.panda_id == 1 and u.status is JobStatus.FAILED]
    assert "which snapshot cal-8 covers" in report.pilot_error_diag
    assert [action for action in seen if isinstance(action, SubmitBatchJob)]
    assert json.loads(render_manifest(rig.state, bundle, rig.limits))["caldb"] == own


def test_a_snapshot_of_all_runs_covers_every_job() -> None:
    rig, _ = played(None, job_of_run(1, "cdr11001-1.raw"))
    assert len(rig.state.bundles) == 1


def described(path: Path, identity: str) -> Path:
    fields = {
        "schema": 1,
        "backend": "sqlite",
        "sha256": "0",
        "size": 1,
        "identity": identity,
        "run_range": [1, 9],
    }
    fields |= {"probe": {"sql": "", "expect": ""}, "source": "", "built_utc": "", "server_version": ""}
    path.with_name(path.name + ".json").write_text(json.dumps(fields))
    return path


def test_a_queues_own_snapshot_reaches_its_limits_and_a_missing_one_is_named(tmp_path: Path) -> None:
    base, own = described(tmp_path / "base", "cal-7"), described(tmp_path / "own", "cal-8")
    text = (SITES / "local.yaml").read_text().replace("@BASE@", "/b").replace("@PYTHON@", "/p")
    raw = yaml.safe_load(text)
    raw["caldb"] = {"backend": "sqlite", "snapshot": str(base)}
    raw["queues"][0]["caldb_snapshot"] = str(own)
    raw["queues"].append({**raw["queues"][0], "name": "other", "caldb_snapshot": None})
    limits = make_limits_of(parse_config(yaml.safe_dump(raw), "c"), Path("/agent"), once=False)
    first, other = limits.queues.values()
    assert (first.caldb or {})["identity"] == "cal-8"
    assert other.caldb is None
    assert (limits.site.caldb or {})["identity"] == "cal-7"
    raw["queues"][0]["caldb_snapshot"] = str(tmp_path / "gone")
    with pytest.raises(WiringError, match=r"caldb_snapshot: .*gone\.json"):
        make_limits_of(parse_config(yaml.safe_dump(raw), "c"), Path("/agent"), once=False)
