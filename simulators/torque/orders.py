"""Orders for batch jobs that are there: qhold, qrls, qalter, qmove, qsig. Pure: they change the model.

Each returns None or Torque's no. Who gives an order is its first question, what the batch job does its second.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from simulators.torque.errors import Pbse, TorqueError
from simulators.torque.job import BatchJob, Letter
from simulators.torque.model import TorqueModel
from simulators.torque.resources import parse_walltime, render_walltime

# Signals that the server passes on; of these only the ones in _ENDING end a batch script.
SIGNALS = frozenset(
    "SIGHUP SIGINT SIGQUIT SIGKILL SIGTERM SIGUSR1 SIGUSR2 SIGCONT SIGSTOP suspend resume".split()
)
_ENDING = frozenset({"SIGHUP", "SIGINT", "SIGQUIT", "SIGKILL", "SIGTERM"})


def hold(model: TorqueModel, now: float, batch_id: str, user: str) -> TorqueError | None:
    """qhold. A job that runs goes on (there is no checkpoint), as in Torque without an error."""
    job = _own(model, batch_id, user)
    if isinstance(job, TorqueError):
        return job
    if job.state in (Letter.QUEUED, Letter.WAITING, Letter.HELD):
        job.holds = "".join(sorted({*job.holds, "u"}))
        job.state, job.changed_at = Letter.HELD, now
    return None


def release(model: TorqueModel, now: float, batch_id: str, user: str) -> TorqueError | None:
    """qrls of the user's hold; nothing where there is none."""
    job = _own(model, batch_id, user)
    if isinstance(job, TorqueError):
        return job
    model.drop_hold(now, job, "u")
    return None


def alter(
    model: TorqueModel, now: float, batch_id: str, user: str, changes: Mapping[str, str]
) -> TorqueError | None:
    """qalter: `name`, `walltime`, `priority` as texts. A user cannot change the walltime of a job that runs."""
    job = _own(model, batch_id, user)
    if isinstance(job, TorqueError):
        return job
    walltime_s = job.walltime_s
    if "walltime" in changes:
        if job.state is Letter.RUNNING:
            return TorqueError(Pbse.PERM)
        wanted_s = parse_walltime(changes["walltime"])
        if wanted_s is None:
            return TorqueError(Pbse.BADATVAL, attribute="Resource_List.walltime")
        most_s = model.site.queues[job.queue].walltime_max_s
        if most_s is not None and wanted_s > most_s:
            return TorqueError(Pbse.EXCQRESC, "cannot satisfy queue max walltime requirement")
        walltime_s = wanted_s
    job.walltime_s = walltime_s
    job.resources = tuple(
        (name, render_walltime(walltime_s) if name == "walltime" else value) for name, value in job.resources
    )
    job.submission = replace(
        job.submission,
        name=changes.get("name", job.submission.name),
        priority=int(changes.get("priority", job.submission.priority)),
    )
    job.changed_at = now
    model.wake(now)
    return None


def move(model: TorqueModel, now: float, batch_id: str, user: str, queue: str) -> TorqueError | None:
    """qmove of a job that does not run to another queue, under that queue's limits."""
    job = _own(model, batch_id, user)
    if isinstance(job, TorqueError):
        return job
    if job.state is Letter.RUNNING:
        return TorqueError(Pbse.BADSTATE)
    no = model.queue_refuses(queue, job.submission, job.parts, job.walltime_s)
    if no is not None:
        return TorqueError(no.number)
    job.queue, job.changed_at = queue, now
    model.wake(now)
    return None


def send_signal(model: TorqueModel, now: float, batch_id: str, user: str, name: str) -> TorqueError | None:
    """qsig. Only signals that end a script do something: it ends as after qdel, without its delay for SIGKILL."""
    job = _own(model, batch_id, user)
    if isinstance(job, TorqueError):
        return job
    if name not in SIGNALS:
        return TorqueError(Pbse.UNKSIG)
    if job.state is not Letter.RUNNING:
        return TorqueError(Pbse.BADSTATE)
    if name in _ENDING:
        return model.delete(now, batch_id, user, kill=name == "SIGKILL")
    return None


def _own(model: TorqueModel, batch_id: str, user: str) -> BatchJob | TorqueError:
    job = model.jobs.get(batch_id)
    if job is None:
        return TorqueError(Pbse.UNKJOBID)
    if job.submission.owner != user:
        return TorqueError(Pbse.PERM, "operation not permitted")
    if job.state is Letter.COMPLETE:
        return TorqueError(Pbse.BADSTATE, "invalid state for job - COMPLETE")
    return job
