"""Submission to PanDA servers that take pickles only: protocol 0, two classes by name, written by hand. Pure.

What is written names JobSpec and FileSpec and what rebuilds them, as panda-client does. What is read may name nothing:
an answer is numbers, texts and lists. Source: docs/facts, panda-protocol section 4.1, and captured texts.
"""

from __future__ import annotations

import io
import pickle  # read only by `_Reader`, which knows no class
from collections.abc import Sequence
from typing import Any

from prodsys_core.ports import Broken, Failure, Refused, Submitted, Unavailable
from prodsys_core.wire import excerpt, http_failure, parse_submitted

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


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"names {module[:40]}.{name[:40]}")


def parse_pickled_answer(status: int, content: bytes) -> tuple[Submitted, ...] | Failure:
    """Answer of `submitJobs`. False: no TLS or role. A text: it failed somewhere, some jobs may be stored."""
    text = excerpt(content[:300].decode("latin-1"), 300)
    if status != 200:
        return http_failure(status, text)
    try:
        value = _Reader(io.BytesIO(content), encoding="latin-1").load()
    except Exception as error:  # a hostile text can make the reader raise anything
        return Broken(f"not a pickle of plain values: {type(error).__name__}: {error}"[:200], text)
    if value is False:
        return Refused("the server says False: no TLS, or no role that may submit")
    return Unavailable(excerpt(value, 300)) if isinstance(value, str) else parse_submitted(value)
