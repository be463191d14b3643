"""The batch system of the virtual world: production's own commands adapter over the simulated commands' texts.

argv goes in, texts and an exit code come out. What may go wrong on the way is asked of `BatchWire.spoil`; a wrong
value is not shown here (`World.shown` bends what was read).
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from pilot.batch import torque
from pilot.batch.cli import BatchCli
from pilot.command import CommandOutcome, Completed, NotStarted, TimedOut
from simulators.torque.port import TorqueCommands
from simulators.world.truth import Truth

Work = Callable[[], CommandOutcome]


class Hung(Exception):
    """The command does not return: it is ended after its time-out, whatever it did by then."""


@dataclass(slots=True)
class BatchWire:
    """Every command of the daemons. `spoil(argv, work)` may do anything in place of `work()`, and may raise Hung."""

    commands: TorqueCommands
    truth: Truth
    note: Callable[[str], None]
    spoil: Callable[[tuple[str, ...], Work], CommandOutcome] = field(default=lambda argv, work: work())

    def client(self) -> BatchCli:
        """The pilot's adapter, reading Torque's dialect."""
        return BatchCli(torque, self.commands.model.site.server_name, {}, run=self.run)

    def run(
        self, argv: Sequence[str], *, timeout_s: float, environment: Mapping[str, str], cwd: str | None = None
    ) -> CommandOutcome:
        """In place of `pilot.command.run_command`; takes no virtual time: the lanes do."""
        words = tuple(argv)

        def work() -> CommandOutcome:
            done = self.commands(words, timeout_s=timeout_s, environment=environment, cwd=cwd)
            self._submitted(words, done)
            return done

        try:
            outcome = self.spoil(words, work)
        except Hung:
            outcome = TimedOut(timeout_s, "", "")
        self.note(f"{' '.join(words)} -> {_told(outcome)}")
        return outcome

    def _submitted(self, argv: tuple[str, ...], done: CommandOutcome) -> None:
        """The truth knows of every batch job that a qsub made, whether its client heard of it or not."""
        if argv[0] == "qsub" and isinstance(done, Completed) and done.exit_code == 0:
            name = argv[argv.index("-N") + 1]
            self.truth.submissions.append((self.commands.now(), name, done.stdout.strip()))


def _told(outcome: CommandOutcome) -> str:
    match outcome:
        case Completed(code, stdout, stderr):
            return f"{code} {zlib.crc32(stdout.encode()):08x} {zlib.crc32(stderr.encode()):08x}"
        case TimedOut() | NotStarted():
            return repr(outcome)
        case _:
            return type(outcome).__name__
