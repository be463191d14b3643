"""The model behind `ports.JobSource`, in one process: for the virtual world."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pilot.panda.v1 import parse_item, render_update
from pilot.panda.wire import parse_jobs
from pilot.ports import Ack, Failure, Fetched, PandaId, ServerStatus, Update
from simulators.panda.model import PandaModel, job_dictionary
from simulators.panda.v1 import ArgumentProblem, envelope, update_one


@dataclass(frozen=True, slots=True)
class ModelJobSource:
    """Implements `ports.JobSource`. The caller advances the model."""

    model: PandaModel
    prod_source_label: str = "managed"

    def fetch(self, panda_queue: str, n: int) -> Fetched | Failure:
        """Hand out up to n jobs."""
        jobs = self.model.hand_out(panda_queue, n, label=self.prod_source_label)
        return parse_jobs([job_dictionary(job) for job in jobs], panda_queue)

    def report(self, updates: Sequence[Update]) -> tuple[Ack, ...] | Failure:
        """Apply updates one by one as the v1 bulk call does."""
        return tuple(parse_item(update, self._one(update)) for update in updates)

    def _one(self, update: Update) -> dict[str, object]:
        try:
            return update_one(self.model, render_update(update))
        except ArgumentProblem as problem:
            return envelope(False, str(problem))

    def status(self, ids: Sequence[PandaId]) -> tuple[ServerStatus, ...] | Failure:
        """Status and command of these jobs."""
        found = []
        for panda_id in ids:
            job = self.model.active(panda_id)
            if job is None:
                found.append(ServerStatus(panda_id, 0, "unknown", "tobekilled"))
            else:
                found.append(ServerStatus(panda_id, job.attempt_nr, job.status, job.command or ""))
        return tuple(found)

    def queue_depth(self, panda_queue: str) -> int | Failure:
        """Activated jobs of the queue."""
        return len(self.model.by_queue.get(panda_queue, ()))
