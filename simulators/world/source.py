"""A small `ports.JobSource` for directed scenarios: it hands out jobs once and remembers every report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from pilot.ports import Ack, Failure, Fetched, Job, JobStatus, PandaId, ServerStatus, Update

FINAL = (JobStatus.FINISHED, JobStatus.FAILED)


@dataclass(frozen=True, slots=True)
class Reported:
    """One accepted update and when it came."""

    at_s: float
    update: Update


@dataclass(slots=True)
class Source:
    """Jobs that wait, that are handed out, and what was reported."""

    now: Callable[[], float]
    waiting: list[Job]
    handed_out: dict[PandaId, Job] = field(default_factory=dict)
    reports: list[Reported] = field(default_factory=list)
    finals: dict[PandaId, Reported] = field(default_factory=dict)

    def fetch(self, panda_queue: str, n: int) -> Fetched | Failure:
        """Hand out up to n jobs of this queue."""
        given = [job for job in self.waiting if job.panda_queue == panda_queue][:n]
        self.waiting = [job for job in self.waiting if job not in given]
        self.handed_out.update((job.panda_id, job) for job in given)
        return Fetched(tuple(given))

    def report(self, updates: Sequence[Update]) -> tuple[Ack, ...] | Failure:
        """Accept every update; the first final one of a job stays."""
        acks = []
        for update in updates:
            reported = Reported(self.now(), update)
            self.reports.append(reported)
            late = update.panda_id in self.finals
            if update.status in FINAL:
                self.finals.setdefault(update.panda_id, reported)
            acks.append(Ack(update.panda_id, update.attempt_nr, True, "alreadydone" if late else ""))
        return tuple(acks)

    def status(self, ids: Sequence[PandaId]) -> tuple[ServerStatus, ...] | Failure:
        """What the server has of these jobs."""
        return tuple(ServerStatus(panda_id, 0, self._word(panda_id)) for panda_id in ids)

    def queue_depth(self, panda_queue: str) -> int | Failure:
        """Jobs that wait in this queue."""
        return sum(job.panda_queue == panda_queue for job in self.waiting)

    def _word(self, panda_id: PandaId) -> str:
        if panda_id in self.finals:
            return str(self.finals[panda_id].update.status)
        return "running" if panda_id in self.handed_out else "unknown"
