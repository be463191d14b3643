"""Torque's commands in this process: a `Runner` of pilot/batch/cli.py over the model, on any clock.

What the pilot asks is an argv and what it hears are the texts and the exit code of the simulated commands, so its own
rendering and reading work here as they do over a subprocess.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pilot.command import CommandOutcome, Completed, NotStarted
from simulators.torque import commands
from simulators.torque.job import Output
from simulators.torque.model import TorqueModel
from simulators.torque.request import Reply, Request


@dataclass(frozen=True, slots=True)
class TorqueCommands:
    """The commands of one user. `now` is epoch seconds; `carry_out` gets what the model wants done.

    `read_script(path)` raises OSError where the file cannot be read.
    """

    model: TorqueModel
    now: Callable[[], float]
    read_script: Callable[[str], str]
    carry_out: Callable[[tuple[Output, ...]], None]
    user: str = "alice"

    def __call__(
        self, argv: Sequence[str], *, timeout_s: float, environment: Mapping[str, str], cwd: str | None = None
    ) -> CommandOutcome:
        """In place of `pilot.command.run_command`."""
        verb, *words = argv
        if verb != "qsub" and verb not in commands.VERBS:
            return NotStarted(f"cannot start {verb!r}: not found on PATH")
        reply = self.answer(verb, tuple(words), environment, cwd or "/")
        return Completed(reply.exit_code, reply.stdout, reply.stderr, 0.0)

    def answer(self, verb: str, words: tuple[str, ...], environment: Mapping[str, str], cwd: str) -> Reply:
        """What the command prints and exits with. What is due before and after it is carried out."""
        now = self.now()
        self.carry_out(self.model.advance(now))
        request = Request(
            words, user=self.user, cwd=cwd, host=self.model.site.server_name, environment=environment
        )
        reply = (
            self._qsub(request, now) if verb == "qsub" else commands.answer(self.model, verb, request, now)
        )
        self.carry_out(self.model.advance(now))
        return reply

    def _qsub(self, request: Request, now: float) -> Reply:
        path = commands.script_wanted(self.model, request)
        if isinstance(path, Reply):
            return path
        script = ""  # the pilot's commands have an empty standard input
        if path is not None:
            try:
                script = self.read_script(os.path.join(request.cwd, path))
            except OSError as error:
                return commands.unreadable(path, os.strerror(error.errno or 0))
        return commands.answer(self.model, "qsub", request, now, script)
