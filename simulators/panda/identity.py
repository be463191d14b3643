"""Who a caller is: the subject of a certificate or token, and the roles that the server's settings give it. Pure."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

# Names as OpenSSL has them -> as a subject line does.
_SHORT = {
    "commonName": "CN",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "domainComponent": "DC",
    "countryName": "C",
}
# What a proxy adds to its user's subject.
_PROXY = re.compile(r"(/CN=(\d+|proxy|limited proxy))+$")


def subject_of(certificate: Mapping[str, Any] | None) -> str | None:
    """The subject line of a certificate as ssl gives it; None: no certificate."""
    if not certificate:
        return None
    pairs = [pair for group in certificate.get("subject", ()) for pair in group]
    return "".join(f"/{_SHORT.get(name, name)}={value}" for name, value in pairs)


def token_subject(headers: Mapping[str, str]) -> str | None:
    """`sub` of a bearer token that can be read (its signature is not looked at); None: no token, no subject."""
    word, _, token = headers.get("authorization", "").partition(" ")
    parts = token.split(".")
    if word != "Bearer" or len(parts) != 3:
        return None
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (binascii.Error, ValueError):
        return None
    subject = claims.get("sub") if isinstance(claims, dict) else None
    return subject if isinstance(subject, str) else None


def roles_of(roles: Mapping[str, Sequence[str]], subject: str) -> tuple[str, ...]:
    """What a subject may do; a proxy may do what its user may."""
    found = roles.get(subject)
    return tuple(roles.get(_PROXY.sub("", subject), ()) if found is None else found)
