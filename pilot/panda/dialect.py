"""Chooses the client of a server's dialect: as the config says, or found out from the server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from pilot.panda.legacy import PandaLegacy
from pilot.panda.transport import Authority, Transport
from pilot.panda.v1 import JSON, PandaV1, parse_envelope
from pilot.ports import Ack, Failure, Fetched, JobSource, PandaId, Refused, ServerStatus, Unavailable, Update

NOT_V1 = ("404", "403")


def make_job_source(
    dialect: str,
    url: str,
    *,
    timeout_s: float,
    prod_source_label: str,
    credential: Authority | None = None,
    ca: str | None = None,
    packed: bool = False,
) -> JobSource:
    """The client for "v1", "legacy" (`packed`: gzipped JSON requests) or "auto"; anything else is a ValueError."""
    transport = Transport(url, timeout_s, credential, ca)
    if dialect == "v1":
        return PandaV1(transport, prod_source_label)
    if dialect == "legacy":
        return PandaLegacy(transport, prod_source_label, packed)
    if dialect == "auto":
        return FoundOut(transport, prod_source_label)
    raise ValueError(f"dialect {dialect!r}")


def find_dialect(transport: Transport) -> str | Failure:
    """Which dialect the server speaks: v1 where it lives, legacy where v1 is definitely not there and legacy lives.

    A server that does not answer, or refuses the credential, tells nothing: the next call asks again.
    """
    text = transport.get("/api/v1/system/is_alive", JSON)
    if isinstance(text, str):
        envelope = parse_envelope(text)
        if isinstance(envelope, dict):
            return "v1" if envelope["success"] else Unavailable("is_alive of v1 says success=false")
    elif not (isinstance(text, Refused) and text.code in NOT_V1) or "authentication" in text.reason:
        return text
    older = transport.get("/server/panda/isAlive", {})
    if not isinstance(older, str):
        return older
    return "legacy" if older.strip() == "alive=yes" else Unavailable("neither dialect of PanDA lives there")


@dataclass(slots=True)
class FoundOut:
    """Implements `ports.JobSource` in the dialect that the server was found to speak; asked once, at the first call."""

    transport: Transport
    prod_source_label: str
    _source: list[JobSource] = field(default_factory=list)

    def _found(self) -> JobSource | Failure:
        if not self._source:
            dialect = find_dialect(self.transport)
            if not isinstance(dialect, str):
                return dialect
            kind = PandaV1 if dialect == "v1" else PandaLegacy
            self._source.append(kind(self.transport, self.prod_source_label))
        return self._source[0]

    def fetch(self, panda_queue: str, n: int) -> Fetched | Failure:
        """As `PandaV1` or `PandaLegacy`."""
        source = self._found()
        return source if isinstance(source, Failure) else source.fetch(panda_queue, n)

    def report(self, updates: Sequence[Update]) -> tuple[Ack, ...] | Failure:
        """As `PandaV1` or `PandaLegacy`."""
        source = self._found()
        return source if isinstance(source, Failure) else source.report(updates)

    def status(self, ids: Sequence[PandaId]) -> tuple[ServerStatus, ...] | Failure:
        """As `PandaV1` or `PandaLegacy`."""
        source = self._found()
        return source if isinstance(source, Failure) else source.status(ids)

    def queue_depth(self, panda_queue: str) -> int | Failure:
        """As `PandaV1` or `PandaLegacy`."""
        source = self._found()
        return source if isinstance(source, Failure) else source.queue_depth(panda_queue)
