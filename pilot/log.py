"""Logging of the edge: one line a record, untrusted text escaped, to a file or stderr."""

from __future__ import annotations

import logging
import sys
import time

LINE_MAX = 2000


def escaped(text: object, at_most: int = LINE_MAX) -> str:
    """Text without control characters or line breaks, cut to `at_most` characters."""
    raw = str(text)
    clean = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in raw[:at_most])
    return clean + ("..." if len(raw) > at_most else "")


class LineFormatter(logging.Formatter):
    """UTC time, level, message; everything on one line."""

    converter = staticmethod(time.gmtime)

    def format(self, record: logging.LogRecord) -> str:
        """One line; a traceback is appended with its line breaks escaped."""
        return escaped(super().format(record), at_most=20000)


def set_up_log(path: str | None, level: int = logging.INFO) -> None:
    """Send the records of `pilot` to `path` (created 0644, appended) or stderr. Raises OSError."""
    target: logging.Handler = logging.FileHandler(path) if path else logging.StreamHandler(sys.stderr)
    target.setFormatter(LineFormatter("%(asctime)sZ %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S"))
    root = logging.getLogger("pilot")
    root.handlers[:] = [target]
    root.setLevel(level)
    root.propagate = False
