"""Whether a job can run by this configuration: asked of each one that is fetched, and again of what an older run left.

A configuration may change over a restart (`output_root`, `node.setup`, the experiment): what passed by the one before
need not fit the one of now. Pure.
"""

from __future__ import annotations

from pilot.experiments.jobtext import BadJobText, parse_job_text
from pilot.experiments.words import BadSetup, BadSteps, place_outputs, run_of, setup_of, steps_of
from pilot.multijob.events import JobJudged
from pilot.multijob.jobkeys import panda_id_of
from pilot.multijob.model import Bundle, JobRecord, Limits, State
from pilot.multijob.verdict import failed, judged
from pilot.ports import Job

# Of the jobs of one bundle so many are named, with their reasons.
NAMED_MAX = 3


def unusable(job: Job, limits: Limits) -> str | None:
    """Why this job can never run here, None if it can: then a manifest can be made of it."""
    try:
        text = parse_job_text(job.job_pars)
    except BadJobText as error:
        return str(error)
    if job.transformation not in limits.experiment.kinds:
        return f"unknown kind of work {job.transformation[:60]!a}"
    lfns = (*job.outputs, *((job.log_lfn,) if job.log_lfn else ()))
    placed = place_outputs(limits.experiment, limits.site.output_root, text.environment, lfns)
    if isinstance(placed, str):
        return placed
    try:
        setup_of(limits.experiment, limits.site.setup, job.transformation, text.environment)
        steps_of(limits.experiment.kinds[job.transformation], text.argv, text.environment)
    except (BadSetup, BadSteps) as error:
        return str(error)
    return None


def uncovered_run(job: Job, queue: str, limits: Limits) -> str | None:
    """Why the queue's calibration snapshot is of no use to this job, None if it covers its run or nobody can tell."""
    caldb = limits.queues[queue].caldb or limits.site.caldb
    runs = caldb.get("runs") if caldb is not None else None
    if caldb is None or runs is None or not limits.experiment.kinds[job.transformation].needs_caldb:
        return None
    run = run_of(limits.experiment, parse_job_text(job.job_pars).environment)
    if run is None or runs[0] <= run <= runs[1]:
        return None
    return f"run {run} is not among {runs[0]} to {runs[1]}, which snapshot {caldb['identity']!s:.60} covers"


def misfit(record: JobRecord, limits: Limits) -> str | None:
    """Why a job of the pool, which was fit when it was fetched, cannot run any more; None if it can."""
    job = record.job
    return unusable(job, limits) or uncovered_run(job, record.queue, limits)


def judged_misfit(record: JobRecord, reason: str, utc: str, limits: Limits) -> JobJudged:
    """It ends without a charge: not it has changed, but the configuration. Sent again, it is judged as a new one."""
    story = f"it does not fit the configuration of now: {reason}"
    return judged(record, failed(limits.experiment.codes["not-started"], story), utc)


def unfit_jobs(state: State, bundle: Bundle, limits: Limits) -> str | None:
    """The jobs for which no manifest of this bundle can be made, by name; None if it is not for its jobs."""
    found = []
    for key in bundle.job_keys:
        record = state.jobs.get(key)
        if record is None or record.bundle_id != bundle.bundle_id:
            found.append(f"job {panda_id_of(key)}: it is not in it any more")
        elif (reason := unusable(record.job, limits)) is not None:
            found.append(f"job {record.panda_id}: {reason}")
    more = f"; and {len(found) - NAMED_MAX} more" if len(found) > NAMED_MAX else ""
    return "; ".join(found[:NAMED_MAX]) + more if found else None
