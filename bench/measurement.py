"""What an area of measurements offers: a name of figures, how they are taken, and one run of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple


class Pair(NamedTuple):
    """One run of what is measured and one of its baseline, taken one after the other. The figure is their ratio."""

    measured: float
    baseline: float


Sample = float | Pair
# One run: its number (from 0; a pair with an odd one takes its baseline first) -> a sample of each figure.
Take = Callable[[int], Mapping[str, Sample]]


class CannotMeasure(Exception):
    """The figure cannot be had here; the text says why (a program that is missing, a wrong answer)."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """Figures that one run gives together.

    `how`: the shipped command that is run, in words that a reader can repeat. `prepare` gets an empty directory that
    is removed afterwards and gives `Take` for the time of its `with`.
    """

    figures: tuple[str, ...]
    how: str
    prepare: Callable[[Path], AbstractContextManager[Take]]


def in_turn(run: int, measured: Callable[[], float], baseline: Callable[[], float]) -> Pair:
    """A pair, the baseline first in every second run: what drifts meets both."""
    if run % 2:
        base = baseline()
        return Pair(measured(), base)
    value = measured()
    return Pair(value, baseline())
