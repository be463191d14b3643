"""What the server's watcher writes on a job from which no update came for too long. Pure."""

from __future__ import annotations

from simulators.panda.job import PandaJob, utc_text


def end_of_silence(job: PandaJob, patience_s: float, epoch_s: float) -> tuple[int, str]:
    """(jobDispatcherErrorCode, jobDispatcherErrorDiag) of a job that is given up after `patience_s`."""
    ended_s = job.attributes.get("endTime")
    if job.status == "sent":
        return 102, "Sent job didn't receive reply from pilot within 30 min"
    if job.attributes.get("exeErrorDiag") or job.attributes.get("pilotErrorDiag"):
        return 101, f"job recovery failed for {patience_s / 3600} hours"
    if ended_s is None:
        return 100, f"lost heartbeat : {utc_text(job.heard_s + epoch_s).replace('T', ' ')}"
    code = {"holding": 103, "transferring": 104}.get(job.status, 105)
    last = utc_text(ended_s + epoch_s).replace("T", " ")
    return code, f"timeout in {job.status} : last heartbeat at {last}"
