"""The batch system behind its commands: one adapter for all dialects. It runs, the dialect renders and reads."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from pilot.batch import openpbs, slurm, torque
from pilot.batch.dialect import Dialect, Reply
from pilot.batch.queues import BatchQueueSeen, parse_queues, render_queues
from pilot.command import CommandOutcome, Completed, NotStarted, TimedOut, TooMuchOutput, run_command
from pilot.ports import BatchId, CancelResult, Failure, Hole, Listing, Unavailable

DIALECTS: Mapping[str, Dialect] = {"torque": torque, "slurm": slurm, "openpbs": openpbs}


@dataclass(frozen=True, slots=True)
class BatchCommands:
    """Names (looked up on the PATH of the adapter's environment) or paths. `holes` None: the site has none."""

    submit: str = "qsub"
    list: str = "qstat"
    cancel: str = "qdel"
    holes: str | None = None


@dataclass(frozen=True, slots=True)
class BatchTimeouts:
    """Seconds until a command is ended. A stopped server never answers, so each needs one."""

    submit_s: float = 300.0
    list_s: float = 120.0
    cancel_s: float = 120.0
    holes_s: float = 60.0


class Runner(Protocol):
    """`pilot.command.run_command`, or a test's."""

    def __call__(
        self, argv: Sequence[str], *, timeout_s: float, environment: Mapping[str, str], cwd: str | None = None
    ) -> CommandOutcome: ...


class BatchCli:
    """A `BatchSystem` (pilot/ports.py) over commands. Blocks for at most the time-out of the command.

    `server` is the name that ids must end in; an id of another server is `Broken`.
    """

    def __init__(
        self,
        dialect: Dialect,
        server: str,
        environment: Mapping[str, str],
        commands: BatchCommands | None = None,
        timeouts: BatchTimeouts | None = None,
        run: Runner = run_command,
    ) -> None:
        self._dialect = dialect
        self._server = server
        self._environment = dict(environment)
        self._commands = commands or BatchCommands()
        self._timeouts = timeouts or BatchTimeouts()
        self._run = run

    def submit(self, script: str, name: str) -> BatchId | Failure:
        """Submit the script at this path. `Unavailable` leaves open whether a batch job exists."""
        argv = self._dialect.render_submit(self._commands.submit, script, name)
        reply = self._ask(argv, self._timeouts.submit_s, os.path.dirname(script) or None)
        return reply if isinstance(reply, Unavailable) else self._dialect.parse_submit(reply, self._server)

    def list_jobs(self, ids: Sequence[BatchId] | None) -> Listing | Failure:
        """All jobs in one question, or one question for each id; the first failure ends the questions."""
        if ids is None:
            return self._list(None)
        answers: list[Listing] = []
        for batch_id in ids:
            answer = self._list(batch_id)
            if not isinstance(answer, Listing):
                return answer
            answers.append(answer)
        return Listing(
            self._server,
            tuple(job for answer in answers for job in answer.jobs),
            asked_ids=tuple(ids),
            unknown_ids=tuple(unknown for answer in answers for unknown in answer.unknown_ids),
        )

    def cancel(self, batch_id: BatchId) -> CancelResult | Failure:
        """Ask for the end of one batch job; that it was asked says nothing about its end."""
        reply = self._ask(
            self._dialect.render_cancel(self._commands.cancel, batch_id), self._timeouts.cancel_s
        )
        return reply if isinstance(reply, Unavailable) else self._dialect.parse_cancel(reply, batch_id)

    def holes(self) -> tuple[Hole, ...] | Failure:
        """Backfill windows, where the site has a command for them."""
        if self._commands.holes is None:
            return Unavailable("no command for backfill windows is configured")
        reply = self._ask(self._dialect.render_holes(self._commands.holes), self._timeouts.holes_s)
        return reply if isinstance(reply, Unavailable) else self._dialect.parse_holes(reply)

    def list_queues(self) -> tuple[BatchQueueSeen, ...] | Failure:
        """All batch queues with their limits (for `pilot check`)."""
        reply = self._ask(render_queues(self._commands.list), self._timeouts.list_s)
        return reply if isinstance(reply, Unavailable) else parse_queues(reply)

    def _list(self, batch_id: BatchId | None) -> Listing | Failure:
        reply = self._ask(self._dialect.render_list(self._commands.list, batch_id), self._timeouts.list_s)
        if isinstance(reply, Unavailable):
            return reply
        return self._dialect.parse_listing(reply, self._server, batch_id)

    def _ask(self, argv: Sequence[str], timeout_s: float, cwd: str | None = None) -> Reply | Unavailable:
        match self._run(argv, timeout_s=timeout_s, environment=self._environment, cwd=cwd):
            case Completed(exit_code, stdout, stderr):
                return Reply(exit_code, stdout, stderr)
            case TimedOut(limit_s):
                return Unavailable(f"{argv[0]} gave no answer within {limit_s:g} s and was ended")
            case TooMuchOutput(limit_bytes):
                return Unavailable(f"{argv[0]} printed more than {limit_bytes} bytes and was ended")
            case NotStarted(reason):
                return Unavailable(reason)
