"""What both dialects share: job dictionaries, file reports, times, cut lengths. Pure.

Source: docs/facts/panda.md (observed on panda-server 0.8.1 and 1.0.4).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from pilot.ports import PANDA_ID_MAX, Fetched, Job, JobStatus, MalformedJob, PandaId, Update

DIAG_MAX, NODE_MAX, METRICS_MAX, SUB_STATUS_MAX = 250, 128, 500, 80
# Servers take a batch id for a number from two digits on.
_DIGITS = re.compile(r"[0-9]{2,}")


def parse_jobs(items: Sequence[Any], panda_queue: str) -> Fetched:
    """The jobs of a bulk answer; an item that is no job becomes a MalformedJob and harms nobody else."""
    jobs: list[Job] = []
    malformed: list[MalformedJob] = []
    for item in items:
        found = parse_job(item, panda_queue)
        if isinstance(found, Job):
            jobs.append(found)
        else:
            malformed.append(found)
    return Fetched(tuple(jobs), tuple(malformed))


def parse_job(item: Any, panda_queue: str) -> Job | MalformedJob:
    """One job dictionary (numbers may be text in the flat form answer; "NULL" is absent)."""
    if not isinstance(item, Mapping):
        return MalformedJob(None, None, f"job is a {type(item).__name__}, expected an object")
    panda_id, attempt_nr = _integer(item.get("PandaID")), _integer(item.get("attemptNr"))
    if panda_id is None or not 0 < panda_id <= PANDA_ID_MAX:
        reason = f"PandaID {item.get('PandaID')!r:.60} is no positive integer below 2**48"
        return MalformedJob(None, attempt_nr, reason)
    identity = PandaId(panda_id)
    if attempt_nr is None or attempt_nr < 0:
        return MalformedJob(identity, None, f"attemptNr {item.get('attemptNr')!r:.60} is no integer")
    texts = {
        name: _text(item.get(name))
        for name in ("jobName", "transformation", "jobPars", "outFiles", "logFile")
    }
    for name in ("transformation", "jobPars", "outFiles"):
        if texts[name] is None:
            return MalformedJob(identity, attempt_nr, f"{name} is missing or no text")
    log_lfn = texts["logFile"]
    lfns = [lfn.strip() for lfn in (texts["outFiles"] or "").split(",") if lfn.strip()]
    if len(set(lfns)) != len(lfns):
        return MalformedJob(identity, attempt_nr, "outFiles names a file twice")
    return Job(
        identity,
        attempt_nr,
        panda_queue,
        texts["jobName"] or "",
        texts["transformation"] or "",
        texts["jobPars"] or "",
        tuple(lfn for lfn in lfns if lfn != log_lfn),
        log_lfn,
        priority=_integer(item.get("currentPriority")) or 0,
        prod_source_label=_text(item.get("prodSourceLabel")) or "",
        max_walltime_s=_integer(item.get("maxWalltime")),
        core_count=_integer(item.get("coreCount")) or 1,
    )


def _integer(value: Any) -> int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    return int(value) if isinstance(value, str) and re.fullmatch(r"-?\d{1,18}", value) else None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value != "NULL" else None


def numeric_batch_id(update: Update) -> str | None:
    """Only the number of the batch id, and only from `running` on: a changed non-numeric one is an impostor's."""
    if update.batch_id is None or update.status is JobStatus.STARTING:
        return None
    match = _DIGITS.match(update.batch_id)
    return match.group(0) if match else None


def plain(text: str | None, limit: int) -> str | None:
    """Text that every database takes (a NUL loses the whole update): printable ASCII, the rest escaped, cut."""
    shown = "".join(c if c.isascii() and c.isprintable() else ascii(c)[1:-1] for c in (text or "")[:limit])
    return shown[:limit] or None


def parse_json(text: str) -> Any:
    """The value of a JSON text; ValueError for what is none, too deep a nesting included."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def render_time(at: datetime) -> str:
    """The only form that the server reads; anything else is silently dropped."""
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")


def render_report(update: Update) -> str | None:
    """Output report of a final update: every output and the log by name. None for others.

    Of a failed job an empty one is not sent: the server would add ddmErrorCode 200 for the missing log.
    """
    if not is_final(update) or (update.status is JobStatus.FAILED and not update.report):
        return None
    files = {
        item.lfn: {"guid": item.guid, "fsize": item.size, "adler32": item.adler32} for item in update.report
    }
    return json.dumps(files, sort_keys=True)


def is_final(update: Update) -> bool:
    """Whether this is the last report of the attempt."""
    return update.status in (JobStatus.FINISHED, JobStatus.FAILED)


def shared_fields(update: Update) -> dict[str, tuple[str, str, Any]]:
    """Fields of an update by our name: (legacy name, v1 name, value); absent ones are not sent."""
    final = is_final(update)
    fields: dict[str, tuple[str, str, Any]] = {
        "attempt_nr": ("attemptNr", "attempt_nr", update.attempt_nr),
        "site": ("siteName", "site_name", update.panda_queue),
        "node": ("node", "node", plain(update.node, NODE_MAX)),
        "batch_id": ("batchID", "batch_id", numeric_batch_id(update)),
        "start": ("startTime", "start_time", update.start_time and render_time(update.start_time)),
        "sub_status": ("jobSubStatus", "job_sub_status", plain(update.sub_status, SUB_STATUS_MAX)),
        "metrics": ("jobMetrics", "job_metrics", plain(update.job_metrics, METRICS_MAX)),
        "cpu": ("cpuConsumptionTime", "cpu_consumption_time", update.cpu_s),
        "rss": ("maxRSS", "max_rss", update.max_rss_kib),
    }
    if final:
        fields |= {
            "end": ("endTime", "end_time", update.end_time and render_time(update.end_time)),
            "exit": ("transExitCode", "trans_exit_code", update.trans_exit_code),
            "code": ("pilotErrorCode", "pilot_error_code", update.pilot_error_code),
            "diag": ("pilotErrorDiag", "pilot_error_diag", plain(update.pilot_error_diag, DIAG_MAX)),
            "events": ("nEvents", "n_events", update.n_events),
            "report": ("xml", "job_output_report", render_report(update)),
        }
    return {name: item for name, item in fields.items() if item[2] is not None}
