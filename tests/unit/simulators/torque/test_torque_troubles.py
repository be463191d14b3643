"""Troubles of a running batch server: what becomes of each command."""

from __future__ import annotations

from collections import Counter
from random import Random

from simulators.torque.troubles import Fate, Troubles


def test_a_hung_command_is_held_until_its_time_and_others_are_not() -> None:
    troubles = Troubles()
    troubles.hang("qstat", 10.0)
    assert (troubles.fate("qstat", 9.9), troubles.fate("qsub", 9.9)) == (Fate.HELD, Fate.ANSWERED)
    assert (troubles.next_at(9.9), troubles.fate("qstat", 10.0)) == (10.0, Fate.ANSWERED)
    assert troubles.next_at(10.0) is None


def test_only_the_next_answers_are_lost() -> None:
    troubles = Troubles()
    troubles.lose("qsub", 2)
    assert [troubles.fate("qsub", 0.0) for _ in range(3)] == [Fate.LOST, Fate.LOST, Fate.ANSWERED]


def test_a_share_fails_some_before_and_some_after_the_work() -> None:
    troubles = Troubles(Random(1), failing=0.05)
    fates = Counter(troubles.fate("qstat", 0.0) for _ in range(4000))
    assert 150 < fates[Fate.LOST] + fates[Fate.REFUSED] < 250
    assert fates[Fate.LOST] > 50 and fates[Fate.REFUSED] > 50


def test_mending_ends_everything() -> None:
    troubles = Troubles(failing=1.0)
    troubles.hang("qstat", 1e9)
    troubles.lose("qsub", 5)
    troubles.away_until = 7.0
    troubles.mend()
    assert {troubles.fate(verb, 0.0) for verb in ("qstat", "qsub")} == {Fate.ANSWERED}
    assert (troubles.away_until, troubles.next_at(0.0)) == (None, None)
