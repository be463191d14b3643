"""What mDST and histogram files share: written whole, a mark of completeness as last object, read with one error.

A ROOT file whose writer has not closed it, or was cut short, may open and show entries. So the last object written is
a string `complete` with the number of objects or entries, and readers insist on it.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

COMPLETE = "complete"

# what uproot lets through when the bytes of a file make no sense
PARSE_ERRORS = (
    OSError,
    ValueError,
    KeyError,
    IndexError,
    TypeError,
    AttributeError,
    AssertionError,
    NotImplementedError,
    RuntimeError,
    MemoryError,
    struct.error,
    zlib.error,
)


class RootFileError(Exception):
    """The ROOT file is incomplete, unreadable or not what it should be. The message has path, found and expected."""


@contextmanager
def reading(path: Path | str) -> Iterator[Any]:
    """Open a ROOT file with uproot. Bad bytes are a RootFileError; a missing file is an OSError."""
    import uproot

    with open(path, "rb") as stream:
        size = os.fstat(stream.fileno()).st_size
    try:
        with uproot.open(path) as opened:
            if opened.file.fEND != size:
                raise RootFileError(f"{path}: truncated: {size} bytes, its header says {opened.file.fEND}")
            yield opened
    except (*PARSE_ERRORS, uproot.DeserializationError) as error:
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise RootFileError(f"{path}: not a readable ROOT file: {reason}") from error


def check_complete(opened: Any, path: Path | str, found: int) -> None:
    """Compare the mark of completeness with what was found. Raises RootFileError."""
    keys = {key.partition(";")[0] for key in opened.keys(recursive=False)}
    if COMPLETE not in keys:
        raise RootFileError(f"{path}: incomplete: no `{COMPLETE}` at its end")
    if str(opened[COMPLETE]) != str(found):
        raise RootFileError(
            f"{path}: {found} found, its mark of completeness says {str(opened[COMPLETE])[:40]!r}"
        )
