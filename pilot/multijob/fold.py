"""The state from the records of a journal, those of a snapshot first where there is one. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pilot.multijob.apply import apply
from pilot.multijob.codec import UnreadableEvent, decode
from pilot.multijob.model import State
from pilot.multijob.statecodec import StateReader


def fold(records: Iterable[Mapping[str, Any]]) -> State:
    """The state after these records, from nothing. Raises UnreadableEvent, ImpossibleEvent."""
    reader = StateReader()
    state = reader.state
    for record in records:
        if "s" not in record or "e" in record:
            apply(state, decode(record))
            continue
        try:
            reader.take(record)
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise UnreadableEvent(f"snapshot: {record['s']!r:.40}: {error!r:.200}") from error
    return state
