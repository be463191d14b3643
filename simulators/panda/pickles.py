"""Python pickles as old submitters send them and old servers answer them, read without trusting them. Pure.

Two classes and the function that rebuilds them are known by name, whatever module they claim to be of; any other name
ends the reading. Numbers, texts, lists and times are all that comes out.
"""

from __future__ import annotations

import io
import pickle  # only what `_Reader.find_class` knows can be made
from collections.abc import Sequence
from datetime import datetime
from typing import Any


class BadPickle(Exception):
    """No pickle, or one that names what is not known here."""


class _Record:
    """Stands for JobSpec: keeps the positional state."""

    state: list[Any]

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, list):
            raise BadPickle("a record without a positional state")
        self.state = state


class _FileRecord(_Record):
    """Stands for FileSpec; the last of its state is the job that owns it."""


class _Anything:
    """Stands for the class `object`."""


def _rebuild(kind: Any, base: Any, state: Any) -> _Record:
    """As copyreg has it, for records only."""
    if kind not in (_Record, _FileRecord) or base is not _Anything or state is not None:
        raise BadPickle("an object that is no record")
    record: _Record = kind()
    return record


def _encode(text: str, coding: str) -> bytes:
    """How protocol 0 writes bytes: the state of a time."""
    if coding != "latin1":
        raise BadPickle("bytes of an unknown coding")
    return text.encode("latin-1")


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        match module, name:
            case _, "JobSpec":
                return _Record
            case _, "FileSpec":
                return _FileRecord
            case "copy_reg" | "copyreg", "_reconstructor":
                return _rebuild
            case "__builtin__" | "builtins", "object":
                return _Anything
            case "datetime", "datetime":
                return datetime
            case "_codecs", "encode":
                return _encode
        raise BadPickle(f"names {module}.{name}")


def parse_pickle(text: str) -> Any:
    """Plain values; a record is its positional list with the files at its end. Raises BadPickle."""
    try:
        return _plain(_Reader(io.BytesIO(text.encode("latin-1"))).load())
    except BadPickle:
        raise
    except Exception as error:  # a hostile text can make the reader raise anything
        raise BadPickle(f"{type(error).__name__}") from error


def _plain(value: Any) -> Any:
    match value:
        case _FileRecord():
            return [*(_plain(item) for item in getattr(value, "state", [])[:-1]), None]
        case _Record():
            return [_plain(item) for item in getattr(value, "state", [])]
        case list() | tuple():
            return [_plain(item) for item in value]
        case datetime():
            return {"_datetime_object": value.isoformat()}
        case None | str() | int() | float():
            return value
    raise BadPickle(f"holds a {type(value).__name__}")


def render_records(records: Sequence[Sequence[Any] | None], package: str) -> str:
    """Positional records, their files last, as objects of the server's own package; None where there is none."""
    text = ["(l"]
    for number, record in enumerate(records):
        if record is None:
            text.append("Na")
            continue
        *values, files = record
        text.append(f"{_SPEC.format(package=package, name='JobSpec')}p{number}\n(l{_texts(values)}(l")
        for file in files:
            text.append(
                f"{_SPEC.format(package=package, name='FileSpec')}(l{_texts(file[:-1])}g{number}\naba"
            )
        text.append("aba")
    return "".join((*text, "."))


_SPEC = "ccopy_reg\n_reconstructor\n(c{package}.{name}\n{name}\nc__builtin__\nobject\nNtR"


def _texts(values: Sequence[Any]) -> str:
    return "".join(f"{_text(value)}a" for value in values)


def _text(value: Any) -> str:
    if isinstance(value, dict):
        at = datetime.fromisoformat(value["_datetime_object"])
        state = bytes([*divmod(at.year, 256), at.month, at.day, at.hour, at.minute, at.second, 0, 0, 0])
        return f"cdatetime\ndatetime\n(S{''.join(f'{chr(92)}x{byte:02x}' for byte in state)!r}\ntR".replace(
            "\\\\", "\\"
        )
    if isinstance(value, int | float):
        return f"I{int(value)}\n"
    escaped = "".join(c if " " <= c <= "~" and c != "\\" else f"\\u{ord(c):04x}" for c in str(value))
    return f"V{escaped}\n"


def render_pickle(value: Any) -> str:
    """Protocol 0, as servers answer: ASCII."""
    return pickle.dumps(value, protocol=0).decode("ascii")
