"""Facts of a node -> verdict of a job, by tables. Success is never a default.

`finished` needs exit code 0, the experiment's end marker, every declared output placed with size and checksum,
and the expected number of events where it is known. Everything else is a failure with a code.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from pilot.experiments.words import Code, Experiment, Kind
from pilot.multijob.events import JobJudged
from pilot.multijob.model import NO_OUTCOME, JobRecord, Outcome, Verdict
from pilot.ports import FileReport, Job, JobStatus

# Why an agent ended a payload -> code name of the experiment.
ENDED_BY: Mapping[str, str] = {
    "deadline": "time-limit",
    "killed": "killed",
    "closed": "lost",
    "terminated": "lost",
    "limit-rss": "out-of-memory",
    "limit-stdout": "stdout-too-large",
    "limit-wall": "looping",
    "limit-quiet": "looping",
    "caldb-lost": "caldb",
    "no-input": "input-missing",
    "stage-in": "stage-in",
}

# Signal that ended the payload -> code name.
SIGNALS: Mapping[int, str] = {
    7: "sigbus",
    9: "killed-payload",
    11: "sigsegv",
    15: "sigterm",
    24: "sigxcpu",
    25: "output-too-large",
}


def judge(
    job: Job, n_events: int | None, facts: Mapping[str, Any], experiment: Experiment
) -> tuple[Verdict, Outcome]:
    """The verdict of one `job_ended` line. `n_events`: expected events, None if unknown. Never raises."""
    outcome = _outcome(job, facts)
    kind = experiment.kinds.get(job.transformation)
    code, reason = _failure(job, n_events, facts, experiment, kind)
    if code is None:
        return Verdict(JobStatus.FINISHED, 0, "", "own"), outcome
    return failed(code, reason), outcome


def failed(code: Code, reason: str = "") -> Verdict:
    """A failure verdict of this code."""
    return Verdict(
        JobStatus.FAILED, code.number, f"{code.text}: {reason}" if reason else code.text, code.charge
    )


def _failure(
    job: Job, n_events: int | None, facts: Mapping[str, Any], experiment: Experiment, kind: Kind | None
) -> tuple[Code | None, str]:
    codes = experiment.codes
    if kind is None:
        return codes["malformed-job"], f"unknown kind of work {job.transformation[:60]!a}"
    ended_by = facts.get("ended_by")
    if ended_by is not None:
        why = f": {facts['trouble']!s:.200}" if facts.get("trouble") else ""
        return codes[
            ENDED_BY.get(str(ended_by), "unknown-payload")
        ], f"ended by the agent ({ended_by!s:.40}){why}"
    for name in kind.patterns:
        if name in facts.get("patterns", ()):
            pattern = experiment.patterns[name]
            return Code(pattern.code, name, pattern.charge, pattern.text), "found in " + pattern.where
    code, reason = _step_failure(facts, experiment)
    if code is None:
        code, reason = _end_failure(facts, experiment)
    if code is not None:
        return code, reason
    if facts.get("trouble"):
        # The node could not look at what the payload wrote: that says nothing about the job.
        return codes["stage-out"], f"{facts['trouble']!s:.200}"
    if kind.marker_text is not None and facts.get("marker") is not True:
        return codes["no-end-marker"], f"{kind.marker_text!r} not found"
    return _outputs_or_events(job, n_events, facts, experiment, kind)


def _step_failure(facts: Mapping[str, Any], experiment: Experiment) -> tuple[Code | None, str]:
    """Of a payload of several steps the first one that failed says why, whatever those after it did."""
    steps = facts.get("steps")
    for step in steps if isinstance(steps, list) else ():
        code, reason = _end_failure(step, experiment)
        if code is None and step.get("marker") is False:
            code, reason = experiment.codes["no-end-marker"], "its end marker was not found"
        if code is not None:
            return code, f"step {str(step.get('name'))[:60]!a}: {reason}"
    return None, ""


def _end_failure(end: Mapping[str, Any], experiment: Experiment) -> tuple[Code | None, str]:
    """What exit code or signal of a payload or a step say."""
    codes, signal, exit_code = experiment.codes, end.get("signal"), end.get("exit_code")
    if isinstance(signal, int):
        return codes[SIGNALS.get(signal, "unknown-payload")], f"signal {signal}"
    if not isinstance(exit_code, int):
        return codes["unknown-payload"], "no exit code"
    if exit_code != 0:
        return experiment.exit_codes.get(exit_code, codes["payload-failed"]), f"exit code {exit_code}"
    return None, ""


def _outputs_or_events(
    job: Job, n_events: int | None, facts: Mapping[str, Any], experiment: Experiment, kind: Kind
) -> tuple[Code | None, str]:
    codes = experiment.codes
    files = {item.get("lfn"): item for item in facts.get("files", ()) if isinstance(item, Mapping)}
    declared = (*job.outputs, *((job.log_lfn,) if job.log_lfn else ()))
    for lfn in declared:
        found = files.get(lfn)
        if found is None or found.get("size") is None:
            return codes["output-missing"], f"{lfn[:120]}"
        if found["size"] == 0:
            # No right output is empty, an event dump without events least of all (docs/facts/compass.md, rule 12).
            return codes["output-missing"], f"{lfn[:120]} is empty"
    for lfn in declared:
        if files[lfn].get("placed") is not True or not files[lfn].get("adler32"):
            return codes["stage-out"], f"{lfn[:120]}: {str(files[lfn].get('reason'))[:120]}"
    if kind.counts_events:
        read, written = facts.get("events_read"), facts.get("events_written")
        if not isinstance(read, int) or not isinstance(written, int):
            return codes["events-differ"], "no event count in stdout"
        if n_events is not None and read != n_events:
            return codes["events-differ"], f"read {read}, expected {n_events}"
    return None, ""


def _outcome(job: Job, facts: Mapping[str, Any]) -> Outcome:
    declared = {*job.outputs, job.log_lfn}
    report = tuple(
        FileReport(str(f["lfn"]), file_guid(job, str(f["lfn"])), int(f["size"]), str(f["adler32"]))
        for f in facts.get("files", ())
        if isinstance(f, Mapping)
        and f.get("placed") is True
        and f.get("adler32")
        and f.get("lfn") in declared
    )
    written, read = facts.get("events_written"), facts.get("events_read")
    events = read if isinstance(read, int) else written if isinstance(written, int) else None
    return Outcome(
        _integer(facts.get("exit_code")),
        events,
        _real(facts.get("wall_s")),
        _real(facts.get("cpu_s")),
        _real(facts.get("rss_mib")),
        report,
        _integer(written),
    )


def _integer(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _real(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def judged(record: JobRecord, verdict: Verdict, utc: str, outcome: Outcome = NO_OUTCOME) -> JobJudged:
    """The event that this job has its verdict."""
    return JobJudged(utc, record.panda_id, record.attempt_nr, verdict, outcome, record.server)


def file_guid(job: Job, lfn: str) -> str:
    """uuid5 of PandaID, attemptNr and name: the same in every repetition of a report."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"panda:{job.panda_id}:{job.attempt_nr}:{lfn}"))
