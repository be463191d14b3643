"""The batch system of the virtual world: the same model behind the port of pilot/ports.py, in this process.

Submissions and cancels go through the commands' own texts and the pilot's reading of them; listings are built as
values, because a virtual day has thousands. A contract test holds them to what qstat's text is read as.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pilot.batch import torque
from pilot.batch.dialect import Reply
from pilot.ports import (
    BatchId,
    BatchJobSeen,
    BatchState,
    Broken,
    CancelResult,
    Failure,
    Hole,
    Listing,
    Unavailable,
)
from simulators.torque import commands
from simulators.torque.job import BatchJob, Output
from simulators.torque.model import TorqueModel
from simulators.torque.request import Request
from simulators.torque.texts import hosts, used_walltime_s


class TorquePort:
    """A `BatchSystem` over a model. `now` is epoch seconds; `carry_out` gets what the model wants done."""

    def __init__(
        self,
        model: TorqueModel,
        now: Callable[[], float],
        read_script: Callable[[str], str],
        carry_out: Callable[[tuple[Output, ...]], None],
        user: str = "alice",
    ) -> None:
        self._model, self._now, self._read_script, self._carry_out = model, now, read_script, carry_out
        self._user = user

    def submit(self, script: str, name: str) -> BatchId | Failure:
        """qsub of the script at this path."""
        words = torque.render_submit("qsub", script, name)[1:]
        reply = commands.answer(
            self._model, "qsub", self._request(words), self._now(), self._read_script(script)
        )
        self._carry_out(self._model.advance(self._now()))
        return torque.parse_submit(
            Reply(reply.exit_code, reply.stdout, reply.stderr), self._model.site.server_name
        )

    def list_jobs(self, ids: Sequence[BatchId] | None) -> Listing | Failure:
        """What qstat would show now."""
        self._carry_out(self._model.advance(self._now()))
        server, jobs, now = self._model.site.server_name, self._model.jobs, self._now()
        if ids is None:
            return Listing(server, tuple(self._seen(job, now) for job in jobs.values()))
        for batch_id in ids:
            if batch_id.partition(".")[2] != server:
                return Broken(f"expected ids of the server {server!r}", batch_id)
        return Listing(
            server,
            tuple(self._seen(jobs[batch_id], now) for batch_id in ids if batch_id in jobs),
            asked_ids=tuple(ids),
            unknown_ids=tuple(batch_id for batch_id in ids if batch_id not in jobs),
        )

    def cancel(self, batch_id: BatchId) -> CancelResult | Failure:
        """qdel."""
        words = torque.render_cancel("qdel", batch_id)[1:]
        reply = commands.answer(self._model, "qdel", self._request(words), self._now())
        self._carry_out(self._model.advance(self._now()))
        return torque.parse_cancel(Reply(reply.exit_code, reply.stdout, reply.stderr), batch_id)

    def holes(self) -> tuple[Hole, ...] | Failure:
        """This site has no command for backfill windows."""
        return Unavailable("no command for backfill windows is configured")

    def _request(self, words: tuple[str, ...]) -> Request:
        return Request(words, user=self._user, host=self._model.site.server_name)

    def _seen(self, job: BatchJob, now: float) -> BatchJobSeen:
        state = torque.STATES[job.state][0]
        return BatchJobSeen(
            batch_id=BatchId(job.batch_id),
            name=job.submission.name,
            state=state,
            queue=job.queue,
            owner=job.submission.owner,
            exit_status=job.exit_status if state is BatchState.OVER else None,
            walltime_s=job.walltime_s,
            used_walltime_s=used_walltime_s(job, now, self._model.site),
            start_count=job.start_count or None,
            exec_hosts=hosts(job.placement, self._model.site),
            comment=job.comment,
        )
