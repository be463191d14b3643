"""Progress of a demo: a bar per stage on a terminal, plain lines in a pipe."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Protocol

STAGES = ("input", "submitted", "reconstructed", "merged", "on tape")


class Progress(Protocol):
    """Shows how far each stage is."""

    def say(self, text: str) -> None: ...

    def stage(self, name: str, done: int, total: int) -> None: ...

    def __enter__(self) -> Progress: ...

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class LineProgress:
    """One line for each change, with the seconds since the start."""

    def __init__(self) -> None:
        self._start_s = time.monotonic()
        self._last: dict[str, tuple[int, int]] = {}

    def say(self, text: str) -> None:
        """A line."""
        print(f"[{time.monotonic() - self._start_s:6.1f} s] {text}", flush=True)

    def stage(self, name: str, done: int, total: int) -> None:
        """A line if the numbers changed."""
        if self._last.get(name) != (done, total):
            self._last[name] = (done, total)
            self.say(f"{name}: {done} of {total}")

    def __enter__(self) -> LineProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


class BarProgress:
    """Bars by rich."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as RichProgress

        self._bars = RichProgress(
            TextColumn("{task.description:14}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
        )
        self._ids = {name: self._bars.add_task(name, total=None) for name in STAGES}

    def say(self, text: str) -> None:
        """A line above the bars."""
        self._bars.console.print(text, markup=False, highlight=False)

    def stage(self, name: str, done: int, total: int) -> None:
        """Move a bar."""
        self._bars.update(self._ids[name], completed=done, total=total)

    def __enter__(self) -> BarProgress:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()


def make_progress() -> Progress:
    """Bars on a terminal, lines elsewhere."""
    return BarProgress() if sys.stdout.isatty() else LineProgress()
