"""What goes wrong with a running server when whoever runs the site says so: hung commands, lost answers, outages.

Pure: the server asks before each command what becomes of it. Times are those of the server's clock.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from random import Random

FOR_EVER_S = 1e9


class Fate(StrEnum):
    """What becomes of one command."""

    ANSWERED = "answered"
    HELD = "held"
    """Nothing happens until the trouble is over; then it is worked, although its command may have given up."""
    LOST = "lost"
    """Worked, and the answer never arrives."""
    REFUSED = "refused"
    """Not worked, and no answer arrives."""


@dataclass(slots=True)
class Troubles:
    """Hung verbs with the time at which each goes on, answers still to be lost by verb, the end of an outage.

    `failing` is the share of all commands that fail by chance, half of them after their work.
    """

    random: Random = field(default_factory=lambda: Random(8))
    failing: float = 0.0
    away_until: float | None = None
    _hung: dict[str, float] = field(default_factory=dict)
    _lost: dict[str, int] = field(default_factory=dict)

    def hang(self, verb: str, until: float) -> None:
        """Commands of this name get no answer before `until`."""
        self._hung[verb] = until

    def lose(self, verb: str, count: int) -> None:
        """The next answers to commands of this name are lost."""
        self._lost[verb] = self._lost.get(verb, 0) + count

    def mend(self) -> None:
        """Nothing is wrong any more."""
        self.away_until, self.failing = None, 0.0
        self._hung.clear()
        self._lost.clear()

    def fate(self, verb: str, now: float) -> Fate:
        """What becomes of a command that arrives now; a lost answer is counted down."""
        if self._hung.get(verb, now) > now:
            return Fate.HELD
        if self._lost.get(verb, 0) > 0:
            self._lost[verb] -= 1
            return Fate.LOST
        if self.failing and self.random.random() < self.failing:
            return self.random.choice((Fate.LOST, Fate.REFUSED))
        return Fate.ANSWERED

    def next_at(self, now: float) -> float | None:
        """When the next trouble ends by itself."""
        ends = [until for until in self._hung.values() if until > now]
        if self.away_until is not None:
            ends.append(self.away_until)
        return min(ends, default=None)
