"""Outputs become visible when they are complete: temp name in the same directory, fsync, rename, fsync of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from simulators.payload.exits import Exit, PayloadError


@contextmanager
def new_file(target: Path) -> Iterator[Path]:
    """Give a temp path beside `target`; when the block ends well, the file there becomes `target`.

    When it ends badly, the temp file is removed and `target` is as before.
    Raises PayloadError(OUTPUT_FAILED) when the operating system refuses anything inside the block that is an
    output of this file: so the block must read its inputs under their own error clauses.
    """
    temp = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        # made here: a writer of ROOT files would make missing directories too, and work for nothing
        temp.touch(0o644)
        try:
            yield temp
            sync(temp)
            os.replace(temp, target)
        finally:
            temp.unlink(missing_ok=True)
        sync(target.parent)
    except OSError as error:
        raise PayloadError(Exit.OUTPUT_FAILED, f"cannot write {target}: {error.strerror or error}") from error


def sync(path: Path) -> None:
    """fsync a file or directory by its path."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
