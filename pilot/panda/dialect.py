"""Chooses the client of a server's dialect."""

from __future__ import annotations

from pilot.panda.legacy import PandaLegacy
from pilot.panda.transport import Authority, Transport
from pilot.panda.v1 import PandaV1
from pilot.ports import JobSource


def make_job_source(
    dialect: str,
    url: str,
    *,
    timeout_s: float,
    prod_source_label: str,
    credential: Authority | None = None,
    ca: str | None = None,
) -> JobSource:
    """The client for "v1" or "legacy"; anything else is a ValueError."""
    transport = Transport(url, timeout_s, credential, ca)
    if dialect == "v1":
        return PandaV1(transport, prod_source_label)
    if dialect == "legacy":
        return PandaLegacy(transport, prod_source_label)
    raise ValueError(f"dialect {dialect!r}")
