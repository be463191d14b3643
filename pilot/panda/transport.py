"""One HTTP call to a PanDA server -> text or a failure. Keeps connections alive, one session per lane thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import requests
import urllib3

from pilot.ports import Broken, Failure, Refused, Unavailable

# A bulk getJob answer is about 2 kB a job: room for 30,000 jobs; more is not a PanDA answer.
ANSWER_MAX_BYTES = 64 * 1024 * 1024
EXCERPT_MAX = 500
PIECE_BYTES = 256 * 1024


def excerpt(text: str) -> str:
    """The start of an answer, fit for a log."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text[:EXCERPT_MAX])


class Authority(Protocol):
    """What a call is made with, looked at for each call (`pilot.credentials.FileCredentials`)."""

    def authority(self) -> tuple[str | None, Mapping[str, str]] | Failure:
        """Path of the client certificate with its key (None: none), and headers; a failure: no call is made."""
        ...


@dataclass(slots=True)
class Transport:
    """POST and GET below one base URL. `timeout_s` bounds a whole call, the reading of its answer included.

    `ca`: file or directory of the certificates that the server's is checked with; None: those of requests.
    """

    url: str
    timeout_s: float
    credential: Authority | None = None
    ca: str | None = None
    _local: threading.local = field(default_factory=threading.local)

    def _session(self) -> requests.Session:
        session: requests.Session | None = getattr(self._local, "session", None)
        if session is None:
            session = requests.Session()
            session.trust_env = False
            if self.ca is not None:
                session.verify = self.ca
            self._local.session = session
        return session

    def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> str | Failure:
        """The text of a 200 answer."""
        return self._call("POST", path, body, headers)

    def get(self, path: str, headers: Mapping[str, str]) -> str | Failure:
        """The text of a 200 answer."""
        return self._call("GET", path, None, headers)

    def _call(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> str | Failure:
        end_s = time.monotonic() + self.timeout_s
        certificate, shown = None, dict(headers)
        if self.credential is not None:
            found = self.credential.authority()
            if not isinstance(found, tuple):
                return found
            certificate, more = found
            shown.update(more)
        try:
            with self._session().request(
                method,
                self.url.rstrip("/") + path,
                data=body,
                headers=shown,
                cert=certificate,
                timeout=(min(30.0, self.timeout_s), self.timeout_s),
                allow_redirects=False,
                stream=True,
            ) as answer:
                content = _read(answer, end_s)
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            return Unavailable(f"{path}: {type(error).__name__}: {excerpt(str(error))}")
        if content is None:
            return Unavailable(f"{path.partition('?')[0]}: no whole answer within {self.timeout_s:g} s")
        return read_answer(path.partition("?")[0], answer.status_code, content)


def _read(answer: requests.Response, end_s: float) -> bytes | None:
    """The body, at most one piece more than ANSWER_MAX_BYTES; None when time is over."""
    content = bytearray()
    while piece := answer.raw.read1(PIECE_BYTES, decode_content=True):
        content += piece
        if time.monotonic() > end_s:
            return None
        if len(content) > ANSWER_MAX_BYTES:
            break
    return bytes(content)


def read_answer(path: str, status: int, content: bytes) -> str | Failure:
    """What an HTTP answer means before its text is looked at. Pure.

    PanDA answers 200 for every handled call; 403 is a definite no (method or token), 404 one of Apache; an HTML page
    is Apache or a proxy speaking, also with 200; every other status is a server in trouble.
    """
    if len(content) > ANSWER_MAX_BYTES:
        return Broken(f"{path}: answer of {len(content)} bytes")
    text = content.decode("utf-8", "replace")
    if status == 404:
        return Refused("404", excerpt(text))
    if text.lstrip()[:100].lower().startswith(("<html", "<!doctype")):
        return Unavailable(f"{path}: HTTP {status} with an HTML page")
    if status == 403:
        return Refused("403", excerpt(text))
    if status != 200:
        return Unavailable(f"{path}: HTTP {status}: {excerpt(text)}")
    return text
