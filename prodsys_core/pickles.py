"""Submission to PanDA servers that take pickles only: protocol 0, two classes by name, written by hand. Pure.

What is written names JobSpec and FileSpec and what rebuilds them, as panda-client does. What is read may name nothing:
an answer is numbers, texts and lists; of job records those two classes and the parts of a time are known by name, and
stand-ins that keep or drop what they are given are made of them. Source: docs/facts, panda-protocol section 4.1, and
captured texts.
"""

import io
import pickle  # read only by `_Reader`, which knows no class
from collections.abc import Mapping, Sequence
from typing import Any

from prodsys_core.ports import Broken, Failure, Refused, Unavailable
from prodsys_core.wire import JOB_SPEC, UNSET, excerpt, http_failure, parse_submitted

SPEC = "ccopy_reg\n_reconstructor\n(c{package}.{name}\n{name}\nc__builtin__\nobject\nNtR"


def render_pickle(jobs: Sequence[Sequence[Any]], package: str) -> str:
    """Positional jobs, their positional files last, as JobSpecs of `package`; each file's last item is its job."""
    job_spec, file_spec = (SPEC.format(package=package, name=name) for name in ("JobSpec", "FileSpec"))
    text = ["(lp0\n"]
    for number, (*values, files) in enumerate(jobs, start=1):
        text.append(f"{job_spec}p{number}\n(l{_items(values)}(l")
        text += (f"{file_spec}(l{_items(file[:-1])}g{number}\naba" for file in files)
        text.append("aba")
    return "".join((*text, "."))


def _items(values: Sequence[Any]) -> str:
    return "".join(f"I{item}\na" if isinstance(item, int) else f"V{_escaped(item)}\na" for item in values)


def _escaped(text: str) -> str:
    """Printable ASCII without backslashes, as raw-unicode-escape reads it."""
    return "".join(c if " " <= c <= "~" and c != "\\" else f"\\U{ord(c):08x}" for c in text)


def render_ids(ids: Sequence[int]) -> str:
    """A list of PanDA ids."""
    return f"(lp0\n{_items(ids)}."


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"names {module[:40]}.{name[:40]}")


class _Spec:
    """In place of JobSpec and FileSpec: their positional state."""

    state: Any = ()

    def __setstate__(self, state: Any) -> None:
        self.state = state


def _drop(*_: Any) -> None:
    """In place of times and of their parts."""


STAND_INS: Mapping[tuple[str, str], Any] = {
    **{(name, "_reconstructor"): lambda kind, *_: _Spec() for name in ("copy_reg", "copyreg")},
    **{(name, "object"): _drop for name in ("__builtin__", "builtins")},
    ("datetime", "datetime"): _drop,
    ("_codecs", "encode"): _drop,
    ("decimal", "Decimal"): lambda text: text,
}


class _RecordReader(_Reader):
    def find_class(self, module: str, name: str) -> Any:
        of_spec = module.endswith(f"taskbuffer.{name}") and name in ("JobSpec", "FileSpec")
        return _drop if of_spec else STAND_INS.get((module, name)) or super().find_class(module, name)


def parse_pickled_answer(status: int, content: bytes) -> dict[str, int | None] | Failure:
    """Answer of `submitJobs`. False: no TLS or role. A text: it failed somewhere, some jobs may be stored."""
    value = load_answer(status, content)
    if isinstance(value, Failure):
        return value
    if value is False:
        return Refused("the server says False: no TLS, or no role that may submit")
    return Unavailable(excerpt(value, 300)) if isinstance(value, str) else parse_submitted(value)


def parse_pickled_records(status: int, content: bytes) -> list[dict[str, Any] | None] | Failure:
    """Answer of `getJobStatus` and `getFullJobStatus`: a record by name for each id in order, None where there is none.
    Attributes are only ever appended: an older server has the first ones."""
    value = load_answer(status, content, _RecordReader)
    if isinstance(value, Failure):
        return value
    try:
        return [None if item is None else _record(item.state) for item in value]
    except (AttributeError, TypeError, ValueError, IndexError):
        return Broken("not a list of job records", excerpt(repr(value), 300))


def _record(state: Sequence[Any]) -> dict[str, Any]:
    *values, files = state
    named = [dict(zip(JOB_SPEC.file, file.state, strict=False)) for file in files]
    known = {name: value for name, value in zip(JOB_SPEC.job, values, strict=False) if value != UNSET}
    return known | {"Files": named}


def load_answer(status: int, content: bytes, reader: type[_Reader] = _Reader) -> Any | Failure:
    """The value of an answer, or the failure it stands for."""
    text = excerpt(content[:300].decode("latin-1"), 300)
    if status != 200:
        return http_failure(status, text)
    try:
        return reader(io.BytesIO(content), encoding="latin-1").load()
    except Exception as error:  # a hostile text can make the reader raise anything
        return Broken(f"not a pickle of plain values: {type(error).__name__}: {error}"[:200], text)
