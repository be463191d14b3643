"""A PanDA server as a pure model: jobs, their states, the adder, the watcher. Time enters by `advance(now_s)`.

Rules: panda-jobmodel sections 2 and 5, and what real servers were seen to do (panda-server-observed). Nothing here
knows who asks; texts and encodings are in legacy.py and v1.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from simulators.panda.jobspec import SubmittedJob

PILOT_STATES = frozenset({"running", "starting", "holding", "transferring", "finished", "failed"})
FINAL = frozenset({"finished", "failed", "cancelled", "closed"})
ACTIVE = frozenset({"activated", "sent", "starting", "running", "holding", "transferring"})
CLOSING_CODES = frozenset({2, 4, 10, 51, 55, 60})
LABELS: Mapping[str | None, frozenset[str] | None] = {
    None: frozenset({"managed", "test", "prod_test", "install"}),
    "managed": frozenset({"managed", "test", "prod_test", "install"}),
    "user": frozenset({"user", "panda", "install"}),
    "unified": None,
}
MIN_TIMEOUT_S = 10.0
SUBMIT_MAX, DESCRIBE_MAX = 5000, 5500
NULL_COMMAND = "NULL"
NO_REPORT = "Could not get GUID/LFN/MD5/FSIZE/SURL from pilot JSON"


@dataclass(frozen=True, slots=True)
class PandaTimes:
    """The server's own times in seconds (real ones by default; the demo shortens the adder's)."""

    activate_s: float = 1.0
    adder_s: float = 10.0
    sent_max_s: float = 1800.0
    heartbeat_max_s: float = 7200.0
    holding_max_s: float = 10800.0
    activated_max_s: float = 7 * 86400.0
    archive_visible_s: float = 3600.0


@dataclass(slots=True)
class PandaJob:
    """One PanDA job. `history` is every state with its time; `updates` counts accepted reports by state."""

    panda_id: int
    attributes: dict[str, Any]
    files: tuple[dict[str, Any], ...]
    status: str
    since_s: float
    heard_s: float
    final_state: str | None = None
    report: str | None = None
    attempt_of_report: int = 0
    command: str | None = None
    archived_s: float | None = None
    history: list[tuple[float, str]] = field(default_factory=list)
    updates: dict[str, int] = field(default_factory=dict)

    @property
    def attempt_nr(self) -> int:
        """The attempt that updates must name."""
        return int(self.attributes.get("attemptNr") or 0)

    @property
    def archived(self) -> bool:
        """Whether it left the active table."""
        return self.archived_s is not None


@dataclass(slots=True)
class PandaModel:
    """All jobs of one server. Every method takes the time; `advance` must have been called up to it."""

    times: PandaTimes = field(default_factory=PandaTimes)
    next_id: int = 1001
    jobs: dict[int, PandaJob] = field(default_factory=dict)
    now_s: float = 0.0
    updates_received: int = 0
    by_queue: dict[str, set[int]] = field(default_factory=dict)
    open_ids: set[int] = field(default_factory=set)

    def advance(self, now_s: float) -> None:
        """Let the server's own daemons work: activation, adder, watcher."""
        self.now_s = max(self.now_s, now_s)
        for panda_id in sorted(self.open_ids):
            self._daemon(self.jobs[panda_id])

    def _daemon(self, job: PandaJob) -> None:
        age_s, silent_s = self.now_s - job.since_s, self.now_s - job.heard_s
        times = self.times
        if job.status == "defined" and age_s >= times.activate_s:
            self._move(job, "activated")
            self.by_queue.setdefault(str(job.attributes["computingSite"]), set()).add(job.panda_id)
        elif job.status == "holding" and job.final_state is not None:
            if age_s >= times.adder_s and job.attempt_of_report == job.attempt_nr:
                self._add(job)
        elif job.status == "sent" and silent_s >= times.sent_max_s:
            self._give_up(job, 102, "Sent job didn't receive reply from pilot within 30 min")
        elif job.status in ("starting", "running") and silent_s >= times.heartbeat_max_s:
            self._give_up(job, 100, "lost heartbeat")
        elif job.status == "holding" and silent_s >= times.holding_max_s:
            self._give_up(job, 103, "not received final update")
        elif job.status == "activated" and age_s >= times.activated_max_s:
            self._archive(job, "closed")

    def _add(self, job: PandaJob) -> None:
        """The adder: judge the output report of a finished job; a killed one ends as cancelled."""
        if job.command is not None and "tobekilled" in job.command:
            self._archive(job, "cancelled")
            return
        problem = report_problem(job) if job.final_state == "finished" else None
        if problem is not None:
            job.attributes["ddmErrorCode"], job.attributes["ddmErrorDiag"] = 200, problem
        elif job.final_state == "finished":
            self._store_report(job)
        self._archive(job, "failed" if problem is not None else str(job.final_state))

    def _store_report(self, job: PandaJob) -> None:
        report = json.loads(job.report or "{}")
        for entry in job.files:
            facts = report.get(entry["lfn"], {})
            entry["fsize"], entry["checksum"] = facts.get("fsize"), f"ad:{facts.get('adler32')}"
            entry["GUID"], entry["status"] = facts.get("guid"), "ready"

    def _give_up(self, job: PandaJob, code: int, text: str) -> None:
        job.attributes["jobDispatcherErrorCode"], job.attributes["jobDispatcherErrorDiag"] = code, text
        self._archive(job, "failed")

    def _archive(self, job: PandaJob, status: str) -> None:
        self._move(job, status)
        job.archived_s = self.now_s
        self.open_ids.discard(job.panda_id)

    def _move(self, job: PandaJob, status: str) -> None:
        if job.status == "activated":
            self.by_queue.get(str(job.attributes["computingSite"]), set()).discard(job.panda_id)
        job.status, job.since_s = status, self.now_s
        job.attributes["jobStatus"] = status
        job.history.append((self.now_s, status))

    # --- submitter -------------------------------------------------------------------------------------------

    def submit(self, jobs: Sequence[SubmittedJob]) -> list[tuple[int, int, str]]:
        """Store jobs; more than 5,000 are cut silently."""
        stored = []
        for item in jobs[:SUBMIT_MAX]:
            panda_id = self.next_id
            self.next_id += 1
            attributes = dict(item.attributes)
            attributes |= {"PandaID": panda_id, "jobStatus": "defined"}
            if attributes.get("assignedPriority") is not None:
                attributes["currentPriority"] = attributes["assignedPriority"]
            files = tuple({**entry, "PandaID": panda_id} for entry in item.files)
            job = PandaJob(panda_id, attributes, files, "defined", self.now_s, self.now_s)
            job.history.append((self.now_s, "defined"))
            self.jobs[panda_id] = job
            self.open_ids.add(panda_id)
            stored.append((panda_id, int(attributes.get("jobDefinitionID") or 0), str(attributes["jobName"])))
        return stored

    def order_end(self, panda_id: int, code: int | None = None) -> bool:
        """job/kill: not running -> archived at once; running -> the pilot is told at its next report."""
        job = self.jobs.get(panda_id)
        if job is None or job.archived:
            return False
        job.command = "tobekilled"
        job.attributes["commandToPilot"] = "tobekilled"
        job.attributes["taskBufferErrorCode"] = 100
        forced = code in (9, 52, 99)
        if job.status not in ("running", "holding", "transferring") or forced:
            self._archive(job, "closed" if code in CLOSING_CODES else "cancelled")
        return True

    def set_command(self, panda_id: int, command: str) -> bool:
        """job/set_command; refused if the job is already to be killed or not active."""
        job = self.jobs.get(panda_id)
        if job is None or job.archived or (job.command and "tobekilled" in job.command):
            return False
        job.command = job.attributes["commandToPilot"] = command
        return True

    def with_task(self, number: int) -> Iterator[PandaJob]:
        """Jobs whose submitter set this jediTaskID."""
        return (job for job in self.jobs.values() if job.attributes.get("jediTaskID") == number)

    # --- pilot -----------------------------------------------------------------------------------------------

    def hand_out(
        self,
        queue: str,
        count: int,
        *,
        label: str | None = None,
        timeout_s: float = 60.0,
        task: int | None = None,
    ) -> list[PandaJob]:
        """getJob: best priority first, then lowest PandaID. A time-out of 10 s and less never gives a job."""
        if count <= 0 or timeout_s <= MIN_TIMEOUT_S:
            return []
        wanted = LABELS.get(label, frozenset({label} if label else ()))
        candidates = [self.jobs[panda_id] for panda_id in self.by_queue.get(queue, ())]
        fitting = [
            job
            for job in candidates
            if (wanted is None or job.attributes.get("prodSourceLabel") in wanted)
            and (task is None or job.attributes.get("jediTaskID") == task)
        ]
        fitting.sort(key=lambda job: (-int(job.attributes.get("currentPriority") or 0), job.panda_id))
        for job in fitting[:count]:
            self._move(job, "sent")
            job.heard_s = self.now_s
        return fitting[:count]

    def update(self, panda_id: int, state: str, attempt_nr: int | None, fields: Mapping[str, Any]) -> str:
        """One report of a pilot (state is one of PILOT_STATES). Returns the command for the pilot."""
        self.updates_received += 1
        job = self.jobs.get(panda_id)
        if job is None or job.archived or job.status == "defined":
            return "tobekilled"
        if attempt_nr is not None and attempt_nr != job.attempt_nr:
            return "tobekilled"
        job.updates[state] = job.updates.get(state, 0) + 1
        if job.final_state is not None and state in ("finished", "failed"):
            return "alreadydone"
        command = job.command or NULL_COMMAND
        if job.status == "holding" and (job.final_state is not None or state not in ("finished", "failed")):
            return command
        self._store(job, fields)
        job.heard_s = self.now_s
        if state in ("finished", "failed"):
            job.final_state, job.report = state, fields.get("report")
            job.attempt_of_report = attempt_nr if attempt_nr is not None else 0
            self._move(job, "holding")
        elif not (job.status == "running" and state == "starting") and job.status != state:
            self._move(job, state)
        return command

    def _store(self, job: PandaJob, fields: Mapping[str, Any]) -> None:
        for name, value in fields.items():
            if name != "report" and value is not None:
                job.attributes[name] = value

    # --- what is asked ---------------------------------------------------------------------------------------

    def active(self, panda_id: int) -> PandaJob | None:
        """A job that `get_status` still shows: active, or archived during the last hour."""
        job = self.jobs.get(panda_id)
        if job is None:
            return None
        recent = job.archived_s is None or self.now_s - job.archived_s <= self.times.archive_visible_s
        return job if recent else None

    def counts(self) -> dict[str, dict[str, int]]:
        """Active jobs by queue and status."""
        found: dict[str, dict[str, int]] = {}
        for panda_id in self.open_ids:
            job = self.jobs[panda_id]
            site = found.setdefault(str(job.attributes["computingSite"]), {})
            site[job.status] = site.get(job.status, 0) + 1
        return found


def report_problem(job: PandaJob) -> str | None:
    """Why the adder fails a finished job: every output and the log must stand in the JSON report, and nothing else."""
    try:
        report = json.loads(job.report or "")
    except ValueError:
        return NO_REPORT
    if not isinstance(report, dict):
        return NO_REPORT
    for facts in report.values():
        has_sum = isinstance(facts, dict) and (facts.get("adler32") or facts.get("md5sum"))
        if not has_sum or facts.get("fsize") is None:
            return NO_REPORT
    expected = {str(entry["lfn"]) for entry in job.files if entry.get("type") in ("output", "log")}
    for lfn in sorted(expected - report.keys()):
        return f"expected output {lfn} is missing in pilot JSON"
    for lfn in sorted(report.keys() - expected):
        return f"pilot produced {lfn} inconsistently with jobdef"
    return None


def job_dictionary(job: PandaJob) -> dict[str, Any]:
    """What a pilot receives of a job: no event count, absent values as the string "NULL"."""
    outputs = [entry for entry in job.files if entry.get("type") in ("output", "log")]
    inputs = [entry for entry in job.files if entry.get("type") == "input"]
    log = next((str(entry["lfn"]) for entry in outputs if entry.get("type") == "log"), "NULL")
    attributes = job.attributes

    def value(name: str, default: Any = "NULL") -> Any:
        found = attributes.get(name)
        return default if found is None else found

    def column(name: str, entries: list[dict[str, Any]]) -> str:
        return ",".join("NULL" if entry.get(name) is None else str(entry[name]) for entry in entries)

    return {
        "StatusCode": 0,
        "PandaID": job.panda_id,
        "prodSourceLabel": value("prodSourceLabel"),
        "swRelease": value("AtlasRelease"),
        "homepackage": value("homepackage"),
        "transformation": value("transformation"),
        "jobName": value("jobName"),
        "jobDefinitionID": value("jobDefinitionID", 0),
        "cloud": value("cloud"),
        "inFiles": column("lfn", inputs),
        "outFiles": column("lfn", outputs),
        "destinationDblock": column("destinationDBlock", outputs),
        "fileDestinationSE": column("destinationSE", outputs),
        "logFile": log,
        "logGUID": "NULL",
        "jobPars": value("jobParameters"),
        "attemptNr": job.attempt_nr,
        "destinationSE": value("destinationSE"),
        "prodUserID": value("prodUserID"),
        "maxCpuCount": value("maxCpuCount", 0),
        "minRamCount": value("minRamCount", 0),
        "maxDiskCount": value("maxDiskCount", 0),
        "cmtConfig": value("cmtConfig"),
        "processingType": value("processingType"),
        "currentPriority": value("currentPriority", 0),
        "taskID": value("taskID"),
        "coreCount": value("coreCount", 1),
        "jobsetID": value("jobsetID"),
        "maxWalltime": value("maxWalltime"),
        "resource_type": value("resource_type"),
        "nSent": 1,
    }
