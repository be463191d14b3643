"""Predicted run times: start-up and events, the median for unknown counts, never longer than a walltime allows."""

from __future__ import annotations

from pilot.multijob.model import WalltimePolicy
from pilot.multijob.runtime import predict_s

POLICY = WalltimePolicy(min_s=600, max_s=7200, startup_s=10.0, per_event_s=2.0, margin_s=600.0)


def test_an_unknown_count_takes_the_median_of_the_known_ones() -> None:
    assert predict_s([100, None, 300, 200], POLICY) == (210.0, 410.0, 610.0, 410.0)
    assert predict_s([None, None], POLICY) == (10.0, 10.0)


def test_a_job_longer_than_any_walltime_is_tried_for_as_long_as_there_is() -> None:
    assert predict_s([100_000], POLICY) == (6600.0,)
