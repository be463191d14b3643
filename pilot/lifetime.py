"""When a credential ends: X.509 proxies (PEM, the earliest end of the chain) and OIDC tokens (JWT, claim exp). Pure.

Nothing is verified here: the server does that. Only the end of life is read, so that nobody is surprised by it.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from datetime import UTC, datetime

_CERTIFICATE = re.compile(
    r"-----BEGIN CERTIFICATE-----\s+([A-Za-z0-9+/=\s]+?)-----END CERTIFICATE-----", re.ASCII
)
SEQUENCE, UTC_TIME, GENERALIZED_TIME, VERSION = 0x30, 0x17, 0x18, 0xA0


class NoEnd(ValueError):
    """The text has no end of life that can be read; says why, never what stood there."""


def end_of_x509(pem: str) -> datetime:
    """The first end among all certificates of a proxy file: a chain is worth no more than its shortest link."""
    blocks = _CERTIFICATE.findall(pem)
    if not blocks:
        raise NoEnd("no certificate in the file")
    try:
        return min(_not_after(base64.b64decode("".join(block.split()), validate=True)) for block in blocks)
    except (binascii.Error, IndexError) as error:
        raise NoEnd("a certificate that cannot be read") from error


def end_of_token(text: str) -> datetime:
    """Claim exp of a JWT in compact form."""
    parts = text.strip().split(".")
    if len(parts) != 3 or not re.fullmatch(r"[A-Za-z0-9_-]+", parts[1]):
        raise NoEnd("no JWT of three parts in the file")
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (ValueError, RecursionError) as error:
        raise NoEnd("the token's claims are no JSON") from error
    end = claims.get("exp") if isinstance(claims, dict) else None
    if isinstance(end, bool) or not isinstance(end, int | float):
        raise NoEnd("the token has no claim exp")
    try:
        return datetime.fromtimestamp(end, UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise NoEnd("the token's claim exp is no time") from error


def _not_after(der: bytes) -> datetime:
    """Certificate -> tbsCertificate -> validity -> notAfter (RFC 5280, 4.1)."""
    tag, at, _ = _element(der, 0)
    _expect(tag == SEQUENCE)
    tag, at, _ = _element(der, at)
    _expect(tag == SEQUENCE)
    tag, start, end = _element(der, at)
    if tag == VERSION:
        tag, start, end = _element(der, end)
    for _ in range(3):  # serial number, signature algorithm, issuer; then comes validity
        tag, start, end = _element(der, end)
    _expect(tag == SEQUENCE)
    _, _, end = _element(der, start)
    tag, start, end = _element(der, end)
    return _time(tag, der[start:end])


def _element(der: bytes, at: int) -> tuple[int, int, int]:
    """(tag, start of the content, its end) of the element that begins at `at`."""
    tag, length, at = der[at], der[at + 1], at + 2
    if length & 0x80:
        count = length & 0x7F
        _expect(1 <= count <= 4)
        length = int.from_bytes(der[at : at + count], "big")
        at += count
    _expect(at + length <= len(der))
    return tag, at, at + length


def _time(tag: int, content: bytes) -> datetime:
    _expect(tag in (UTC_TIME, GENERALIZED_TIME))
    text = content.decode("ascii", "replace")
    _expect(re.fullmatch(r"\d{12}Z" if tag == UTC_TIME else r"\d{14}Z", text) is not None)
    if tag == UTC_TIME:
        text = ("20" if int(text[:2]) < 50 else "19") + text
    try:
        return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)
    except ValueError as error:
        raise NoEnd("a certificate whose end is no time") from error


def _expect(holds: bool) -> None:
    if not holds:
        raise NoEnd("a certificate that cannot be read")
