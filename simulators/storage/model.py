"""What the tape does with files in its drop box. Pure: file names and seconds in, actions out.

A file that has lain in the drop box for `delay_s` without growing is written to tape, unless a fault is due for it: it
is lost (gone without a receipt) or shortened (kept without its last byte). A fault strikes a file name once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase


@dataclass(frozen=True, slots=True)
class Keep:
    """Write the file to tape and give a receipt."""

    path: str


@dataclass(frozen=True, slots=True)
class Shorten:
    """Write the file to tape without its last byte; the receipt tells what is on tape."""

    path: str


@dataclass(frozen=True, slots=True)
class Lose:
    """Remove the file, no receipt."""

    path: str


Action = Keep | Shorten | Lose


@dataclass(frozen=True, slots=True)
class TapeRules:
    """`delay_s`: mounting and writing. `lose`, `shorten`: name patterns (fnmatch) of the files that a fault strikes."""

    delay_s: float
    lose: tuple[str, ...] = ()
    shorten: tuple[str, ...] = ()


@dataclass(slots=True)
class TapeModel:
    """The drop box as seen so far: for each path its size and since when (seconds) it has that size."""

    rules: TapeRules
    waiting: dict[str, tuple[int, float]] = field(default_factory=dict)
    struck: set[str] = field(default_factory=set)

    def advance(self, seen: Mapping[str, int], now_s: float) -> tuple[Action, ...]:
        """Take a listing of the drop box (path -> size); what is to be done now, in the order of the paths."""
        self.waiting = {
            path: before if (before := self.waiting.get(path)) and before[0] == size else (size, now_s)
            for path, size in seen.items()
        }
        due = [path for path, (_, since) in self.waiting.items() if now_s - since >= self.rules.delay_s]
        return tuple(self._action(path) for path in sorted(due))

    def _action(self, path: str) -> Action:
        del self.waiting[path]
        if path in self.struck:
            return Keep(path)
        if _matches(path, self.rules.lose):
            self.struck.add(path)
            return Lose(path)
        if _matches(path, self.rules.shorten):
            self.struck.add(path)
            return Shorten(path)
        return Keep(path)


def _matches(path: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(path, pattern) for pattern in patterns)
