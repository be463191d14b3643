"""Events to journal records and back. A record is a JSON object with the event's name under "e".

The version stands in the journal's segment header; a field may be added with a default, never change its meaning.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from pydantic import TypeAdapter, ValidationError

from pilot.multijob.events import Event

_KINDS: dict[str, type] = {kind.__name__: kind for kind in get_args(Event)}
_ADAPTERS: dict[str, TypeAdapter[Any]] = {name: TypeAdapter(kind) for name, kind in _KINDS.items()}


class UnreadableEvent(Exception):
    """A journal record that is no event of this version."""


def encode(event: Event) -> dict[str, Any]:
    """The record of one event: plain JSON values."""
    name = type(event).__name__
    record: dict[str, Any] = _ADAPTERS[name].dump_python(event, mode="json")
    record["e"] = name
    return record


def decode(record: Mapping[str, Any]) -> Event:
    """The event of one record; raises UnreadableEvent with the reason."""
    name = record.get("e")
    adapter = _ADAPTERS.get(name) if isinstance(name, str) else None
    if adapter is None:
        raise UnreadableEvent(f"unknown event {name!r}")
    try:
        event: Event = adapter.validate_python({k: v for k, v in record.items() if k != "e"})
    except ValidationError as error:
        raise UnreadableEvent(f"{name}: {error.errors()[0]['msg']}") from error
    return event
