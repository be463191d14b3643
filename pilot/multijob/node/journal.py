"""Node journal: facts of one agent, one line each, with a crc (docs/architecture/files.md, section 3)."""

from __future__ import annotations

import functools
import json
import os
import time
import zlib
from typing import Any, Callable, Mapping

from pilot.multijob.node.files import SyncDirectory, perform, write_all

ESCAPED_MAX = 2000
_ENCODER = json.JSONEncoder(separators=(",", ":"))


def render_line(sequence: int, kind: str, utc: str, t_s: float, body: Mapping[str, Any]) -> bytes:
    """`<crc32 of the rest> <JSON>\\n`, the JSON in ASCII."""
    fact = {"n": sequence, "kind": kind, "utc": utc, "t_s": round(t_s, 3)}
    fact.update(body)
    text = _ENCODER.encode(fact).encode("ascii")
    return b"%08x %s\n" % (zlib.crc32(text), text)


def utc_text(epoch_s: float) -> str:
    """`YYYY-MM-DDTHH:MM:SS.mmmmmmZ` of seconds since 1970."""
    whole = int(epoch_s)
    return "%s.%06dZ" % (_utc_second(whole), (epoch_s - whole) * 1e6)


@functools.lru_cache(maxsize=8)
def _utc_second(whole: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole))


def escape(text: str, at_most: int = ESCAPED_MAX) -> str:
    """The last `at_most` characters, control and non-ASCII characters escaped: safe in any log."""
    return "".join(c if " " <= c <= "~" else ascii(c)[1:-1] for c in text)[-at_most:]


class JournalWriter:
    """Appends lines to an own new file. `clock` gives seconds since 1970, `elapsed` the agent's own monotonic ones.

    Raises OSError; a line is whole or the file ends with a torn one: after an error nothing more is written.
    """

    def __init__(self, path: str, clock: Callable[[], float], elapsed: Callable[[], float]) -> None:
        self.path = path
        self._clock, self._elapsed = clock, elapsed
        self._sequence = 0
        self._broken = False
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)
        perform(SyncDirectory(os.path.dirname(path)))

    def write(self, kind: str, body: Mapping[str, Any], sync: bool = True) -> None:
        """Append one line; `sync`: it is durable on return."""
        if self._broken:
            raise OSError("the journal is broken")
        self._sequence += 1
        try:
            write_all(
                self._fd,
                render_line(self._sequence, kind, utc_text(self._clock()), self._elapsed(), body),
            )
            if sync:
                os.fsync(self._fd)
        except OSError:
            self._broken = True
            raise

    def close(self) -> None:
        """No more lines."""
        self._broken = True
        os.close(self._fd)
