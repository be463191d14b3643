"""The state as plain JSON values and back, one record for each thing it knows: a snapshot of the journal. Pure.

Driven by the types of the fields of `State`. `SCHEMA` changes with any of them: a snapshot of another schema is not
read, the journal itself tells the same.
"""

from __future__ import annotations

import sys
import types
from array import array
from base64 import b64decode, b64encode
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from functools import cache, partial
from hashlib import blake2b
from typing import Any, Generic, TypeVar, Union, get_args, get_origin, get_type_hints

from pilot.multijob.model import NO_OUTCOME, State

Convert = Callable[[Any], Any]
_T = TypeVar("_T")


class _Array(Generic[_T]):
    """`array[int]`, which only type checkers know."""


# Texts up to this length stand in many records: names, times, ids.
SHARED_TEXT_MAX = 64


def render_state(state: State) -> Iterator[dict[str, Any]]:
    """Records {"s": field, "k": key, "v": value} from which `StateReader` makes the same state."""
    written: dict[bytes, int] = {}
    for name, (key, value) in _tables().items():
        write_key, write_value = _writer(key, written), _writer(value, written)
        table = getattr(state, name)
        for k, v in table.items() if isinstance(table, dict) else enumerate(table):
            yield {"s": name, "k": write_key(k), "v": write_value(v)}


class StateReader:
    """Makes a state from the records of `render_state`, in their order. Values that are equal become one object."""

    def __init__(self) -> None:
        self.state = State()
        self._shared: dict[Any, Any] = {NO_OUTCOME: NO_OUTCOME}
        self._long: list[bytes] = []
        read = {
            hint: _Reader(self._share, self._bytes).of(hint) for pair in _tables().values() for hint in pair
        }
        self._tables = {
            name: (getattr(self.state, name), read[key], read[value])
            for name, (key, value) in _tables().items()
        }

    def take(self, record: Mapping[str, Any]) -> None:
        """One record more. Raises ValueError, KeyError, TypeError for one that is none."""
        table, read_key, read_value = self._tables[record["s"]]
        if isinstance(table, dict):
            table[read_key(record["k"])] = read_value(record["v"])
        else:
            table.append(read_value(record["v"]))

    def _share(self, value: Any) -> Any:
        return self._shared.setdefault(value, value)

    def _bytes(self, value: str | int) -> bytes:
        if isinstance(value, int):
            return self._long[value]
        found = b64decode(value)
        if len(found) <= SHARED_TEXT_MAX:
            return bytes(self._share(found))
        self._long.append(found)
        return found


@cache
def _tables() -> Mapping[str, tuple[Any, Any]]:
    """Fields of `State`: types of their keys and values. A list is known by its places."""
    hints = _hints(State)
    kinds = {field.name: hints[field.name] for field in fields(State)}
    return {
        name: get_args(kind) if get_origin(kind) is dict else (int, get_args(kind)[0])
        for name, kind in kinds.items()
    }


def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind, localns={"array": _Array})


def _plain(hint: Any) -> Any:
    """A NewType's own type."""
    while hasattr(hint, "__supertype__"):
        hint = hint.__supertype__
    return hint


def _members(hint: Any) -> list[tuple[str, Any]] | None:
    """Names and types of the fields of a dataclass or a named tuple, None for anything else."""
    if is_dataclass(hint) and isinstance(hint, type):
        hints = _hints(hint)
        return [(field.name, hints[field.name]) for field in fields(hint)]
    if isinstance(hint, type) and issubclass(hint, tuple) and hasattr(hint, "_fields"):
        hints = _hints(hint)
        return [(name, hints[name]) for name in hint._fields]
    return None


def _is_value(hint: Any) -> bool:
    """Whether equal ones of this type may be one object: it never changes."""
    hint = _plain(hint)
    members = _members(hint)
    if members is not None:
        frozen = issubclass(hint, tuple) or hint.__dataclass_params__.frozen
        return bool(frozen) and all(_is_value(kind) for _, kind in members)
    if get_origin(hint) in (dict, Mapping, list, set, deque, _Array):
        return False
    return all(isinstance(kind, types.EllipsisType) or _is_value(kind) for kind in get_args(hint))


def _choices(hint: Any) -> list[Any] | None:
    """Types of a union without None, None for anything else."""
    if get_origin(hint) in (Union, types.UnionType):
        return [choice for choice in get_args(hint) if choice is not types.NoneType]
    return None


def _writer(hint: Any, written: dict[bytes, int]) -> Convert:
    hint, origin = _plain(hint), get_origin(_plain(hint))
    choices, members = _choices(hint), _members(hint)
    if choices is not None:
        return _union_writer(choices, written)
    if members is not None:
        writers = [(name, _writer(kind, written)) for name, kind in members]
        return lambda value: [write(getattr(value, name)) for name, write in writers]
    if hint is bytes:
        return partial(_write_bytes, written)
    if origin is dict or origin is Mapping:
        key, item = (_writer(kind, written) for kind in get_args(hint))
        return lambda value: [[key(k), item(v)] for k, v in value.items()]
    if origin is deque:
        element = _writer(get_args(hint)[0], written)
        return lambda value: [value.maxlen, [element(x) for x in value]]
    if origin is _Array:
        return lambda value: [value.typecode, b64encode(value.tobytes()).decode()]
    if origin is tuple and get_args(hint)[-1] is not Ellipsis:
        kinds = [_writer(kind, written) for kind in get_args(hint)]
        return lambda value: [write(x) for write, x in zip(kinds, value, strict=True)]
    if origin in (tuple, set):
        element = _writer(get_args(hint)[0], written)
        return lambda value: [element(x) for x in value]
    return _same


def _union_writer(choices: list[Any], written: dict[bytes, int]) -> Convert:
    if len(choices) == 1:
        write = _writer(choices[0], written)
        return lambda value: None if value is None else write(value)
    writers = {kind: (index, _writer(kind, written)) for index, kind in enumerate(choices)}

    def tagged(value: Any) -> Any:
        if value is None:
            return None
        index, write = writers[type(value)]
        return [index, write(value)]

    return tagged


def _write_bytes(written: dict[bytes, int], value: bytes) -> str | int:
    """Long ones are what the jobs of a task are kept against: once in full, then by their number."""
    if len(value) <= SHARED_TEXT_MAX:
        return b64encode(value).decode()
    if value in written:
        return written[value]
    written[value] = len(written)
    return b64encode(value).decode()


def _same(value: Any) -> Any:
    return value


@dataclass(frozen=True, slots=True)
class _Reader:
    """Makes the functions that read a type back. `share` gives the object that stands for all equal ones."""

    share: Convert
    read_bytes: Convert

    def of(self, hint: Any) -> Convert:
        """The function for one type."""
        hint, origin = _plain(hint), get_origin(_plain(hint))
        choices, members = _choices(hint), _members(hint)
        if choices is not None:
            return self._union(choices)
        if members is not None:
            return self._class(hint, [self.of(kind) for _, kind in members])
        if isinstance(hint, type) and issubclass(hint, Enum):
            return hint
        if hint is bytes:
            return self.read_bytes
        share = self.share
        if hint is str:
            return lambda value: share(value) if len(value) <= SHARED_TEXT_MAX else value
        if hint is int:
            return lambda value: share(value) if value > 256 else value
        return _same if origin is None else self._container(get_args(hint), origin)

    def _class(self, hint: Any, readers: list[Convert]) -> Convert:
        share = self.share
        if _is_value(hint):
            return lambda value: share(hint(*[read(x) for read, x in zip(readers, value, strict=True)]))
        return lambda value: hint(*[read(x) for read, x in zip(readers, value, strict=True)])

    def _container(self, arguments: tuple[Any, ...], origin: Any) -> Convert:
        if origin is dict or origin is Mapping:
            key, item = (self.of(kind) for kind in arguments)
            return lambda value: {key(k): item(v) for k, v in value}
        if origin is _Array:
            return lambda value: array(value[0], b64decode(value[1]))
        if origin is tuple and arguments[-1] is not Ellipsis:
            kinds = [self.of(kind) for kind in arguments]
            return lambda value: tuple([read(x) for read, x in zip(kinds, value, strict=True)])
        element = self.of(arguments[0])
        if origin is deque:
            return lambda value: deque((element(x) for x in value[1]), maxlen=value[0])
        if origin is set:
            return lambda value: {element(x) for x in value}
        return lambda value: tuple([element(x) for x in value])

    def _union(self, choices: list[Any]) -> Convert:
        readers = [self.of(kind) for kind in choices]
        if len(readers) == 1:
            only = readers[0]
            return lambda value: None if value is None else only(value)
        return lambda value: None if value is None else readers[value[0]](value[1])


def _told(hint: Any, seen: set[Any]) -> str:
    """The type in words, with the fields of every class in it."""
    hint = _plain(hint)
    words = [getattr(hint, "__name__", str(hint))]
    if hint in seen:
        return words[0]
    seen.add(hint)
    for name, kind in _members(hint) or ():
        words.append(f"{name}:{_told(kind, seen)}")
    for kind in get_args(hint):
        words.append(_told(kind, seen) if not isinstance(kind, types.EllipsisType) else "...")
    if isinstance(hint, type) and issubclass(hint, Enum):
        words += [str(member.value) for member in hint]
    return f"({' '.join(words)})"


# Arrays are written as they lie in memory.
SCHEMA = blake2b(f"{_told(State, set())} {sys.byteorder}".encode(), digest_size=8).hexdigest()
