"""A PanDA server as a pure model: jobs, their states, the adder, the watcher. Time enters by `advance(now_s)`.

Rules: panda-jobmodel sections 2 and 5, and what real servers were seen to do (panda-server-observed). Nothing here
knows who asks; texts and encodings are in legacy.py and v1.py. Times are seconds of any clock; `epoch_s` is the UTC
epoch time of its zero, for what is shown and for times that pilots report.
Not modelled: JEDI, brokerage, event service, transfers after the adder, merging.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from simulators.kernel import Timers
from simulators.panda.adder import judge, store
from simulators.panda.flavour import FLAVOURS, BatchIdRule, Flavour
from simulators.panda.job import FINAL, PandaJob, guid_of, utc_text
from simulators.panda.jobspec import SubmittedJob
from simulators.panda.rules import (
    CANDIDATES,
    DEFINED,
    END_CODES,
    HIGH_PRIORITY,
    INVALID_BATCH_ID,
    LABELS,
    MIN_TIMEOUT_S,
    NULL_COMMAND,
    NUMBER,
    REWRITTEN,
    SUBMIT_MAX,
    DatabaseTrouble,
    EndCode,
    PandaTimes,
    Wish,
    held_by_a_rival,
)
from simulators.panda.told import ORDER, Ledger, Told
from simulators.panda.watcher import end_of_silence


@dataclass(slots=True)
class PandaModel:
    """All jobs of one server. `advance` must have been called up to the time of a call. `ledger`: what it was told."""

    times: PandaTimes = field(default_factory=PandaTimes)
    flavour: Flavour = field(default_factory=lambda: FLAVOURS["both"])
    queues: Mapping[str, str] = field(default_factory=dict)
    next_id: int = 1001
    now_s: float = 0.0
    epoch_s: float = 0.0
    updates_received: int = 0
    rivals: int = 0  # other getJobs of the same queue that are under way
    fetches: int = 0
    ledger: Ledger = field(default_factory=Ledger)
    jobs: dict[int, PandaJob] = field(default_factory=dict)
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    _waiting: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    _tasks: dict[int, list[int]] = field(default_factory=dict)
    _timers: Timers[int] = field(default_factory=Timers)

    # --- the server's own daemons -----------------------------------------------------------------------------

    def advance(self, now_s: float) -> None:
        """Let activation, adder and watcher work, each at its own time up to `now_s`."""
        while (due := self._timers.pop_due(now_s)) is not None:
            at_s, panda_id = due
            job = self.jobs[panda_id]
            if job.timer_s != at_s:
                continue
            job.timer_s = None
            self.now_s = max(self.now_s, at_s)
            due_s = self._due(job)
            if due_s is not None and due_s <= at_s:
                self._act(job)
            self._arm(job)
        self.now_s = max(self.now_s, now_s)

    def _arm(self, job: PandaJob) -> None:
        due_s = self._due(job)
        if due_s is not None and (job.timer_s is None or due_s < job.timer_s):
            job.timer_s = due_s
            self._timers.set(due_s, job.panda_id)

    def _due(self, job: PandaJob) -> float | None:
        """When a daemon of the server takes this job next."""
        if job.status == "defined":
            return job.since_s + self.times.activate_s
        if job.status == "activated":
            return float(job.attributes["creationTime"]) + self.times.activated_max_s
        if self._has_report(job):
            return job.since_s + self.times.adder_s
        limit_s = self._patience_s(job)
        return None if limit_s is None else self._silent_s(job) + limit_s

    @staticmethod
    def _has_report(job: PandaJob) -> bool:
        """Whether the adder finds the final report: not one that was stored under another attempt."""
        return (
            job.status == "holding" and job.final_state is not None and job.report_attempt == job.attempt_nr
        )

    @staticmethod
    def _silent_s(job: PandaJob) -> float:
        """Since when the watcher has heard nothing: the last update, or the reported end where that is earlier."""
        ended_s: float | None = job.attributes.get("endTime")
        return job.heard_s if ended_s is None else min(job.heard_s, ended_s)

    def _patience_s(self, job: PandaJob) -> float | None:
        """How long the watcher waits for an update. None: for ever."""
        user = job.label in ("user", "panda")
        match job.status:
            case "sent":
                return self.times.sent_max_s
            case "starting" | "running":
                return self.times.heartbeat_max_s
            case "holding" if user or job.priority > HIGH_PRIORITY:
                return self.times.holding_high_max_s
            case "holding":
                return self.times.holding_max_s
            case "transferring" if user or job.attributes.get("jobSubStatus"):
                return self.times.heartbeat_max_s
            case _:
                return None

    def _act(self, job: PandaJob) -> None:
        match job.status:
            case "defined":
                self._move(job, "activated")
                heapq.heappush(self._waiting.setdefault(job.queue, []), (-job.priority, job.panda_id))
            case "activated":
                self.order_end(job.panda_id, "2", "watcher")
            case "holding" if self._has_report(job):
                self._add(job)
            case _:
                self._give_up(job)

    def _add(self, job: PandaJob) -> None:
        """The adder; a job with the command to be killed that failed ends as cancelled."""
        judgement = judge(job)
        store(job, judgement)
        job.attributes.setdefault("endTime", self.now_s)
        cancelled = judgement.status == "failed" and job.command == "tobekilled"
        self._archive(job, "cancelled" if cancelled else judgement.status)

    def _give_up(self, job: PandaJob) -> None:
        """The watcher: no update for too long."""
        code, diag = end_of_silence(job, self._patience_s(job) or 0, self.epoch_s)
        job.attributes |= {"jobDispatcherErrorCode": code, "jobDispatcherErrorDiag": diag}
        job.attributes.setdefault("endTime", job.heard_s)
        self._fail_files(job)
        self._archive(job, "failed")

    @staticmethod
    def _fail_files(job: PandaJob) -> None:
        for entry in job.files:
            if entry.get("type") in ("output", "log"):
                entry["status"] = "failed"

    def _archive(self, job: PandaJob, status: str) -> None:
        self._move(job, status)
        job.heard_s = job.archived_s = self.now_s

    def _move(self, job: PandaJob, status: str) -> None:
        site = self.counts.setdefault(job.queue, {})
        if job.history:
            site[job.status] -= 1
        if status not in FINAL:
            site[status] = site.get(status, 0) + 1
        job.status, job.since_s = status, self.now_s
        job.attributes["jobStatus"] = status
        job.history.append((self.now_s, status))

    # --- submitter ---------------------------------------------------------------------------------------------

    def submit(self, jobs: Sequence[SubmittedJob], user: str | None = None) -> list[tuple[int, int, str]]:
        """Store jobs; more than 5,000 are cut silently. Gives (PandaID, jobDefinitionID, jobName) of each."""
        stored = []
        for item in jobs[:SUBMIT_MAX]:
            job = self._new_job(item, user)
            self.jobs[job.panda_id] = job
            self._move(job, "defined")
            self._arm(job)
            task = job.attributes.get("jediTaskID")
            if isinstance(task, int):
                self._tasks.setdefault(task, []).append(job.panda_id)
            attributes = job.attributes
            stored.append(
                (job.panda_id, int(attributes.get("jobDefinitionID") or 0), str(attributes.get("jobName")))
            )
        return stored

    def _new_job(self, item: SubmittedJob, user: str | None) -> PandaJob:
        panda_id = self.next_id
        self.next_id += 1
        attributes = dict(item.attributes)
        attributes |= {"PandaID": panda_id, "creationTime": self.now_s, "prodDBUpdateTime": self.now_s}
        attributes.setdefault("attemptNr", 0)
        if attributes.get("assignedPriority") is not None:
            attributes["currentPriority"] = attributes["assignedPriority"]
        if user is not None:
            attributes.setdefault("prodUserID", user)
        files: list[dict[str, Any]] = []
        for number, entry in enumerate(item.files):
            row: dict[str, Any] = {**entry, "PandaID": panda_id, "row_ID": panda_id * 100 + number}
            row.setdefault("fsize", 0)
            row.setdefault("status", "ready" if row.get("type") == "input" else "unknown")
            if row.get("type") == "log":
                row.setdefault("GUID", guid_of(panda_id, str(row["lfn"])))
            files.append(row)
        return PandaJob(panda_id, attributes, files, "defined", self.now_s, self.now_s)

    def order_end(self, panda_id: int, code: str | None = None, user: str = "prodsys") -> bool:
        """job/kill: a job that is not `running` is archived at once; a running one is told at its next report.

        False: unknown, archived, or already ordered (some codes order again).
        """
        job = self.jobs.get(panda_id)
        if job is None or job.archived:
            return False
        rule = END_CODES.get(code or "", EndCode())
        if job.command == "tobekilled" and not rule.again:
            return False
        self.ledger.add(Told(self.now_s, panda_id, ORDER, user=user))
        job.attributes |= {"commandToPilot": "tobekilled", "taskBufferErrorDiag": f"killed by {user}"}
        label = job.label
        production = label is None or label in ("managed",) or "test" in label
        forced = (production and code in ("9", "52")) or code == "99"
        if job.status != "running" or forced:
            self._close(job, rule, user)
        return True

    def _close(self, job: PandaJob, rule: EndCode, user: str) -> None:
        since = utc_text(job.since_s + self.epoch_s).replace("T", " ")
        diag = rule.diag.format(user=user, old=job.status, since=since)
        job.attributes.setdefault("endTime", self.now_s)
        if job.status == "starting":
            job.attributes["startTime"] = job.attributes["endTime"]
        job.attributes |= {"taskBufferErrorCode": rule.error, "taskBufferErrorDiag": diag}
        if rule.sub_status is not None:
            job.attributes["jobSubStatus"] = rule.sub_status
        self._fail_files(job)
        self._archive(job, rule.status)

    def set_command(self, panda_id: int, command: str) -> bool:
        """job/set_command; refused if the job is not active or already to be killed."""
        job = self.jobs.get(panda_id)
        if job is None or job.archived or (job.command and "tobekilled" in job.command):
            return False
        self.ledger.add(Told(self.now_s, panda_id, ORDER, user="set_command"))
        job.attributes["commandToPilot"] = command
        return True

    def ids_of_task(self, number: int) -> list[int]:
        """Jobs whose submitter set this jediTaskID, ascending."""
        return list(self._tasks.get(number, ()))

    # --- pilot -------------------------------------------------------------------------------------------------

    def hand_out(self, wish: Wish) -> list[PandaJob]:
        """getJob: best priority first, then lowest PandaID. A time-out of 10 s and less never gives a job."""
        if wish.count <= 0 or wish.timeout_s <= MIN_TIMEOUT_S:
            return []
        heap = self._waiting.get(wish.queue, [])
        taken: list[PandaJob] = []
        passed: list[tuple[int, int]] = []
        self.fetches += 1
        misses = 0
        while heap and len(taken) < wish.count and misses < CANDIDATES:
            entry = heapq.heappop(heap)
            job = self.jobs[entry[1]]
            if job.status != "activated":
                continue
            if self._fits(job, wish):
                if held_by_a_rival(job.panda_id, self.fetches, self.rivals):
                    misses += 1
                    passed.append(entry)
                    continue
                misses = 0
                taken.append(job)
                self._send(job, wish)
            else:
                passed.append(entry)
        for entry in passed:
            heapq.heappush(heap, entry)
        return taken

    def _fits(self, job: PandaJob, wish: Wish) -> bool:
        label = wish.label
        if self.queues.get(wish.queue) == "test" and label in REWRITTEN:
            label = "test"
        wanted = LABELS.get(label, frozenset({label} if label else ()))
        value = job.attributes.get
        walltime_s = value("maxWalltime")
        return (
            (wanted is None or job.label in wanted)
            and (wish.task is None or value("jediTaskID") == wish.task)
            and (wish.memory_mb <= 0 or float(value("minRamCount") or 0) <= wish.memory_mb)
            and (wish.disk_mb <= 0 or float(value("maxDiskCount") or 0) <= wish.disk_mb)
            and (wish.remaining_s is None or walltime_s is None or int(walltime_s) <= wish.remaining_s)
        )

    def _send(self, job: PandaJob, wish: Wish) -> None:
        self._move(job, "sent")
        job.heard_s = job.attributes["startTime"] = self.now_s
        for name, value in (
            ("modificationHost", wish.node),
            ("computingElement", wish.computing_element),
            ("schedulerID", wish.scheduler),
        ):
            if value:
                job.attributes[name] = value
        self._arm(job)

    def update(self, panda_id: int, state: str, attempt_nr: int | None, fields: Mapping[str, Any]) -> str:
        """One report of a pilot (state is one of PILOT_STATES; `fields` by attribute, "report" apart).

        Returns the command for the pilot. Raises DatabaseTrouble: nothing stored.
        """
        self.updates_received += 1
        self.ledger.add(Told(self.now_s, panda_id, state, attempt_nr, fields.get("batchID")))
        job = self.jobs.get(panda_id)
        if job is None or job.archived or job.status in DEFINED:
            return "tobekilled"
        if attempt_nr is not None and attempt_nr != job.attempt_nr:
            return "tobekilled"
        final = state in ("finished", "failed")
        stored = "holding" if final else state
        if job.status == "holding" and job.final_state is not None and final:
            return "alreadydone"
        if job.status == "transferring" and stored == "holding":
            return "alreadydone"
        command = job.command or NULL_COMMAND
        if job.status in ("holding", "transferring") and stored in ("starting", "running"):
            return command
        if job.status == "holding" and not final:
            return command
        if self._impostor(job, fields.get("batchID")):
            return "tobekilled"
        self._store(job, stored, fields)
        if final:
            job.final_state, job.report = state, fields.get("report")
            job.report_attempt = 0 if attempt_nr is None else attempt_nr
        job.updates[state] = job.updates.get(state, 0) + 1
        self._arm(job)
        return command

    def _impostor(self, job: PandaJob, new: str | None) -> bool:
        """Another batchID, and neither is a number (two digits and more) as the server sees it."""
        old = job.attributes.get("batchID")
        if not old or not new or old == new or NUMBER.fullmatch(str(old)) or NUMBER.fullmatch(str(new)):
            return False
        match self.flavour.batch_id:
            case BatchIdRule.ABSENT:
                return False
            case BatchIdRule.FAILS:
                raise DatabaseTrouble("batchID")
            case BatchIdRule.ENDS:
                job.attributes |= {
                    "supErrorCode": INVALID_BATCH_ID,
                    "supErrorDiag": f"got an update request with invalid batchID={new}",
                }
                return True

    def _store(self, job: PandaJob, stored: str, fields: Mapping[str, Any]) -> None:
        old = job.status
        for name, value in fields.items():
            if name in ("startTime", "endTime") and value is not None:
                job.attributes[name] = value - self.epoch_s
            elif name != "report" and value is not None:
                job.attributes[name] = value
        job.attributes.pop("computingElement", None)
        job.heard_s = self.now_s
        if stored == "holding" or (stored == "transferring" and old == "running"):
            job.attributes.setdefault("endTime", self.now_s)
        if old in ("sent", "starting") and stored == "running" and fields.get("startTime") is None:
            job.attributes["startTime"] = self.now_s
        if stored != old and not (old == "running" and stored == "starting"):
            self._move(job, stored)
        elif stored == "holding":
            job.since_s = self.now_s

    # --- what is asked -----------------------------------------------------------------------------------------

    def shown(self, panda_id: int) -> PandaJob | None:
        """A job that job/get_status still shows: active, or archived during the last hour."""
        job = self.jobs.get(panda_id)
        if job is None or job.archived_s is None:
            return job
        return job if self.now_s - job.archived_s <= self.times.archive_visible_s else None

    def for_pilot(self, panda_id: int) -> PandaJob | None:
        """A job that pilot/get_job_status shows: active or archived, not a defined one."""
        job = self.jobs.get(panda_id)
        return None if job is None or job.status in DEFINED else job

    def depth(self, queue: str) -> int:
        """Activated jobs of a queue."""
        return self.counts.get(queue, {}).get("activated", 0)
