"""What ends an agent's wait early: a child that ended, a signal, a thread that has a result."""

from __future__ import annotations

import os
import select
import signal
from typing import List, Sequence

ASKS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Wake:
    """Signals become values: `asked_to_end` is set by SIGTERM, SIGINT or SIGHUP, and a wait returns at once."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)
        self.asked_to_end = False
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in ASKS:
            signal.signal(number, self._ask)
        # Blocked by the warden before its fork, so that none is lost before there is someone to hear it.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ASKS)

    def _ask(self, *_: object) -> None:
        self.asked_to_end = True

    def call(self) -> None:
        """From any thread: end the wait."""
        try:
            os.write(self._writer, b"c")
        except BlockingIOError:
            pass  # a full buffer wakes as well

    def wait(self, timeout_s: float, fds: Sequence[int] = ()) -> List[int]:
        """Sleep until something happens or the time is over; returns those of `fds` that can be read."""
        ready, _, _ = select.select([self._reader, *fds], [], [], max(0.0, timeout_s))
        try:
            while os.read(self._reader, 4096):
                pass
        except BlockingIOError:
            pass
        return [fd for fd in fds if fd in ready]
