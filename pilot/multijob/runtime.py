"""How long a job will run: start-up + events x seconds per event, from the config (a later part makes it learn)."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from pilot.multijob.model import WalltimePolicy


def predict_s(n_events: Sequence[int | None], policy: WalltimePolicy) -> tuple[float, ...]:
    """Predicted run times in seconds, in the order given; an unknown count takes the median of the known ones.

    None is longer than the longest walltime leaves: such a job is tried for as long as there is, once, and ends as
    time-limit where that is not enough. Predicted as it is it would fit nowhere and go back for ever.
    """
    longest_s = max(policy.max_s - policy.margin_s, 1.0)
    known = [count for count in n_events if count is not None]
    middle = median(known) if known else 0
    return tuple(
        min(policy.startup_s + policy.per_event_s * (count if count is not None else middle), longest_s)
        for count in n_events
    )
