"""The PanDA servers of the virtual world: the simulated server behind the clients' own seams, in one process.

The pilot's clients get a transport, prodsys' client a session; both hand paths, headers and bodies to the server and
get its text back. What may go wrong on the way is asked of `Wire.spoil`.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode, urlsplit

import requests

from pilot.panda.legacy import PandaLegacy
from pilot.panda.transport import read_answer
from pilot.panda.v1 import PandaV1
from pilot.ports import Failure, JobSource, Unavailable
from simulators.panda.dispatch import HttpReply, HttpRequest, respond
from simulators.panda.model import PandaModel
from simulators.panda.settings import Settings

TIMEOUT_S = 60.0
LABEL = "managed"
PILOT, PRODSYS = "pilot", "prodsys"


class NoAnswer(Exception):
    """The client hears nothing: request or answer were lost, or its time was over."""


@dataclass(slots=True)
class Wire:
    """One server and the way to it. `spoil(server, client, request, work)` may do anything in place of `work()`."""

    name: str
    model: PandaModel
    now: Callable[[], float]
    note: Callable[[str], None]
    settings: Settings = field(default_factory=Settings)
    spoil: Callable[[Wire, str, HttpRequest, Callable[[], HttpReply]], HttpReply] = field(
        default=lambda wire, client, request, work: work()
    )

    def call(self, client: str, request: HttpRequest) -> HttpReply:
        """One call as this client sees it. Raises NoAnswer."""
        asked = f"{self.name} {client} {request.method} {request.path}?{request.query} {zlib.crc32(request.body):08x}"
        try:
            reply = self.spoil(self, client, request, lambda: self.work(request))
        except NoAnswer:
            self.note(f"{asked} -> no answer")
            raise
        self.note(f"{asked} -> {reply.status} {zlib.crc32(reply.text.encode()):08x}")
        return reply

    def work(self, request: HttpRequest) -> HttpReply:
        """The server does what it is asked."""
        self.model.advance(self.now())
        return respond(self.model, self.settings, request)

    def client(self, dialect: str) -> JobSource:
        """The pilot's client of this server, over this wire."""
        transport: Any = PilotTransport(self, TIMEOUT_S)
        return PandaLegacy(transport, LABEL) if dialect == "legacy" else PandaV1(transport, LABEL)


@dataclass(frozen=True, slots=True)
class PilotTransport:
    """In place of `pilot.panda.transport.Transport`."""

    wire: Wire
    timeout_s: float

    def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> str | Failure:
        """The text of a 200 answer."""
        return self._call("POST", path, body, headers)

    def get(self, path: str, headers: Mapping[str, str]) -> str | Failure:
        """The text of a 200 answer."""
        return self._call("GET", path, b"", headers)

    def _call(self, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> str | Failure:
        parts = urlsplit(path)
        lower = {name.lower(): value for name, value in headers.items()}
        try:
            reply = self.wire.call(PILOT, HttpRequest(method, parts.path, parts.query, lower, body))
        except NoAnswer as error:
            return Unavailable(f"{parts.path}: {error}")
        return read_answer(parts.path, reply.status, reply.text.encode())


@dataclass(slots=True)
class ProdsysSession:
    """In place of the `requests.Session` of prodsys' client."""

    wire: Wire
    trust_env: bool = False
    headers: dict[str, str] = field(default_factory=dict)

    def request(
        self,
        method: str,
        url: str,
        params: Mapping[str, Any] | None = None,
        json: Mapping[str, Any] | None = None,
        **_: Any,
    ) -> requests.Response:
        """One call. Raises requests.RequestException where there is no answer."""
        body = b"" if json is None else _dumped(json)
        headers = {name.lower(): value for name, value in self.headers.items()}
        if json is not None:
            headers["content-type"] = "application/json"
        request = HttpRequest(method, urlsplit(url).path, urlencode(params or {}, doseq=True), headers, body)
        try:
            reply = self.wire.call(PRODSYS, request)
        except NoAnswer as error:
            raise requests.ReadTimeout(str(error)) from error
        answer = requests.Response()
        answer.status_code = reply.status
        answer._content = reply.text.encode()
        answer.encoding = "utf-8"
        return answer


def _dumped(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value).encode()
