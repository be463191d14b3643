"""The model behind `ports.JobSource`, in one process: for the virtual world. Judged by the same code as v1 answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pilot.panda.v1 import parse_item, render_update
from pilot.panda.wire import parse_jobs
from pilot.ports import Ack, Failure, Fetched, PandaId, ServerStatus, Update
from simulators.panda.job import job_dictionary
from simulators.panda.model import PandaModel
from simulators.panda.rules import Wish
from simulators.panda.settings import Caller
from simulators.panda.v1 import statuses, update_item

TRUSTED = Caller(trusted=True)


@dataclass(frozen=True, slots=True)
class ModelJobSource:
    """Implements `ports.JobSource`. The caller advances the model; a submitter calls the model itself."""

    model: PandaModel
    prod_source_label: str = "managed"

    def fetch(self, panda_queue: str, n: int) -> Fetched | Failure:
        """Hand out up to n jobs."""
        jobs = self.model.hand_out(Wish(panda_queue, n, self.prod_source_label))
        return parse_jobs([job_dictionary(job) for job in jobs], panda_queue)

    def report(self, updates: Sequence[Update]) -> tuple[Ack, ...] | Failure:
        """Apply updates one by one as the v1 bulk call does."""
        return tuple(
            parse_item(update, update_item(self.model, render_update(update), TRUSTED)) for update in updates
        )

    def status(self, ids: Sequence[PandaId]) -> tuple[ServerStatus, ...] | Failure:
        """Status and command of these jobs."""
        return tuple(
            ServerStatus(panda_id, 0, found["status"], found["command"] or "")
            for panda_id, found in zip(ids, statuses(self.model, ids), strict=True)
        )

    def queue_depth(self, panda_queue: str) -> int | Failure:
        """Activated jobs of the queue."""
        return self.model.depth(panda_queue)
