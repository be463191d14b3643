"""The processes of a demo: each with a log, recorded before anything depends on it, ended in reverse order."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from pilot.lease import process_start

END_S = 20.0


class Stopped(BaseException):
    """A signal asked the demo to end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Interrupts:
    """Turns the first signal into `Stopped`, but never between a start and its record: there it waits."""

    def __init__(self) -> None:
        self._holding = 0
        self._pending: int | None = None

    def install(self) -> None:
        """Take SIGINT, SIGTERM and SIGHUP."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._arrived)

    def _arrived(self, number: int, frame: FrameType | None) -> None:
        for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(each, signal.SIG_IGN)
        if self._holding:
            self._pending = number
        else:
            raise Stopped(number)

    @contextmanager
    def held(self) -> Iterator[None]:
        """No `Stopped` inside; one that came is raised at the end."""
        self._holding += 1
        try:
            yield
        finally:
            self._holding -= 1
            if self._pending is not None and not self._holding:
                number, self._pending = self._pending, None
                raise Stopped(number)


class PartError(Exception):
    """A part did not start or ended early; the text names it and its log."""


@dataclass(slots=True)
class Part:
    """One running component."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path


@dataclass(slots=True)
class Parts:
    """All components of one demo. `run_file` lists them for `make clean`."""

    run_file: Path
    logs: Path
    directories: list[str]
    environment: dict[str, str]
    interrupts: Interrupts = field(default_factory=Interrupts)
    running: list[Part] = field(default_factory=list)
    extra: list[dict[str, int | str | None]] = field(default_factory=list)

    def record(self) -> None:
        """Write who runs, by rename."""
        found = [
            {"name": part.name, "pid": part.process.pid, "start": process_start(part.process.pid)}
            for part in self.running
        ]
        own = {"name": "demo", "pid": os.getpid(), "start": process_start(os.getpid())}
        private = self.run_file.with_suffix(".new")
        text = json.dumps(
            {"processes": [own, *found, *self.extra], "directories": self.directories}, indent=1
        )
        private.write_text(text)
        os.rename(private, self.run_file)

    def start(self, name: str, argv: Sequence[str], more: Mapping[str, str] | None = None) -> Part:
        """Start a component in its own session; stdout and stderr go to its log."""
        log = self.logs / f"{name}.log"
        with self.interrupts.held(), open(log, "ab") as sink:
            process = subprocess.Popen(
                list(argv),
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                env={**self.environment, **(more or {})},
                start_new_session=True,
            )
            part = Part(name, process, log)
            self.running.append(part)
            self.record()
        return part

    def run(self, name: str, argv: Sequence[str], more: Mapping[str, str] | None = None) -> None:
        """Run a component to its end; anything but exit code 0 raises PartError with its last words."""
        part = self.start(name, argv, more)
        code = part.process.wait()
        self.running.remove(part)
        if code != 0:
            raise PartError(f"{name} ended with code {code}: {last_words(part.log)} (log: {part.log})")

    def wait_for(self, part: Part, there: Callable[[], bool], limit_s: float) -> None:
        """Wait until `there`; the part's early end or the limit raises PartError."""
        ends = time.monotonic() + limit_s
        while not there():
            if part.process.poll() is not None:
                raise PartError(f"{part.name} did not start: {last_words(part.log)} (log: {part.log})")
            if time.monotonic() > ends:
                raise PartError(f"{part.name} was not ready within {limit_s:.0f} s (log: {part.log})")
            time.sleep(0.02)

    def check(self) -> None:
        """Raise PartError if a component has ended that should run."""
        for part in self.running:
            code = part.process.poll()
            if code is not None:
                raise PartError(
                    f"{part.name} ended early with code {code}: {last_words(part.log)} (log: {part.log})"
                )

    def end(self, part: Part, limit_s: float = END_S) -> None:
        """SIGTERM, then SIGKILL to its session."""
        if part.process.poll() is None:
            part.process.terminate()
            try:
                part.process.wait(limit_s)
            except subprocess.TimeoutExpired:
                os.killpg(part.process.pid, signal.SIGKILL)
                part.process.wait()
        if part in self.running:
            self.running.remove(part)

    def end_all(self) -> None:
        """End everything, the last started first."""
        for part in reversed(list(self.running)):
            self.end(part)
        self.record()


def last_words(log: Path) -> str:
    """The last line that says something, safe for a terminal."""
    try:
        lines = log.read_text(errors="replace").strip().splitlines()
    except OSError:
        return "no log"
    text = lines[-1] if lines else "it said nothing"
    return "".join(c if c.isprintable() else " " for c in text)[:300]
