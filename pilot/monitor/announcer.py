"""A small heartbeat of the daemon itself to a URL of the config (off by default), from a thread that nobody waits for.

The newest document is offered without blocking; the thread posts it every so often. A receiver that hangs, drips or
refuses costs this thread its time and nobody else's; what was not sent is forgotten.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import requests
import urllib3

from pilot.log import escaped

LOG = logging.getLogger("pilot")


@dataclass(slots=True)
class Announcer:
    """Posts the document offered last to `url`, at most every `every_s`; each try may take `timeout_s`."""

    url: str
    every_s: float
    timeout_s: float
    _latest: Mapping[str, Any] | None = None
    _closed: threading.Event = field(default_factory=threading.Event)
    _failing: bool = False

    def start(self) -> None:
        """Begin; the thread ends with the process at the latest."""
        threading.Thread(target=self._run, name="announcer", daemon=True).start()

    def offer(self, document: Mapping[str, Any]) -> None:
        """The newest document. Never blocks."""
        self._latest = document

    def close(self) -> None:
        """Ask the thread to end; not waited for."""
        self._closed.set()

    def _run(self) -> None:
        while True:
            document, self._latest = self._latest, None
            if document is not None:
                self._note(self._post(document))
            if self._closed.wait(self.every_s):
                return

    def _post(self, document: Mapping[str, Any]) -> str | None:
        """Why it was not taken, None if it was. The answer's body is not read."""
        try:
            with requests.Session() as session:
                session.trust_env = False
                with session.post(
                    self.url,
                    data=json.dumps(document).encode(),
                    headers={"Content-Type": "application/json"},
                    timeout=self.timeout_s,
                    allow_redirects=False,
                    stream=True,
                ) as answer:
                    return None if answer.status_code < 300 else f"HTTP {answer.status_code}"
        # urllib3 raises its own for a host name that is none; the thread must outlive whatever the URL is.
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            return f"{type(error).__name__}: {error}"

    def _note(self, reason: str | None) -> None:
        """Log on change only."""
        if reason is not None and not self._failing:
            LOG.warning("status heartbeat not taken: %s", escaped(reason)[:300])
        elif reason is None and self._failing:
            LOG.info("status heartbeat is taken again")
        self._failing = reason is not None
