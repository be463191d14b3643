"""Logging of the edge: one line a record, untrusted text escaped, to a file or stderr.

Lines are written by a thread of its own: a log on a filesystem that hangs never holds up who logs.
"""

from __future__ import annotations

import atexit
import logging
import logging.handlers
import os
import queue
import sys
import threading
import time

LINE_MAX = 2000
# Lines that wait while the log cannot be written: some minutes of a busy daemon, some MiB. More are counted, not kept.
WAITING_MAX = 10_000
# At the end of the process, what waits may take so long.
CLOSING_S = 5.0


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


class LineQueue(logging.Handler):
    """Takes records and lets its thread write them to `target`; never blocks, never raises."""

    def __init__(self, target: logging.Handler) -> None:
        super().__init__()
        self._target = target
        self._waiting: queue.Queue[logging.LogRecord | None] = queue.Queue(WAITING_MAX)
        self._dropped = 0
        self._thread = threading.Thread(target=self._write, name="log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Queue one record; its text is made here, where its arguments are what they were."""
        try:
            record.msg, record.args = record.getMessage(), None
            self._waiting.put_nowait(record)
        except queue.Full:
            self._dropped += 1
        except Exception:
            self.handleError(record)

    def close(self) -> None:
        """Write what waits, for at most `CLOSING_S`."""
        try:
            self._waiting.put(None, timeout=CLOSING_S)
        except queue.Full:
            return
        self._thread.join(CLOSING_S)
        super().close()

    def _write(self) -> None:
        while (record := self._waiting.get()) is not None:
            if self._dropped:
                count, self._dropped = self._dropped, 0
                self._put(_note(f"{count} lines are missing: the log could not be written"))
            self._put(record)

    def _put(self, record: logging.LogRecord) -> None:
        try:
            self._target.handle(record)
        except OSError:
            self._dropped += 1


def _note(text: str) -> logging.LogRecord:
    return logging.LogRecord("pilot", logging.WARNING, __file__, 0, text, None, None)


class _LogFile(logging.handlers.WatchedFileHandler):
    """A file that may be rotated by renaming it. Errors go to `LineQueue`, which counts."""

    def handleError(self, record: logging.LogRecord) -> None:
        raise


def set_up_log(path: str | None, level: int = logging.INFO) -> None:
    """Send the records of `pilot` to `path` (appended; reopened when renamed; its directory is made) or stderr.

    Raises OSError.
    """
    if path:
        os.makedirs(os.path.dirname(path), exist_ok=True)
    target: logging.Handler = (
        _LogFile(path, encoding="utf-8", errors="backslashreplace")
        if path
        else logging.StreamHandler(sys.stderr)
    )
    target.setFormatter(LineFormatter("%(asctime)sZ %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S"))
    lines = LineQueue(target)
    atexit.register(lines.close)
    root = logging.getLogger("pilot")
    for older in root.handlers:
        older.close()
    root.handlers[:] = [lines]
    root.setLevel(level)
    root.propagate = False
