"""End of life of proxies and tokens. The certificates are made here, byte by byte, so that each can have its fault."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilot.lifetime import NoEnd, end_of_token, end_of_x509

END = datetime(2026, 12, 1, 12, 30, 15, tzinfo=UTC)


def der(tag: int, content: bytes) -> bytes:
    size = len(content)
    length = bytes([size]) if size < 128 else bytes([0x82]) + size.to_bytes(2, "big")
    return bytes([tag]) + length + content


def time_of(at: datetime) -> bytes:
    if at.year < 2050:
        return der(0x17, at.strftime("%y%m%d%H%M%SZ").encode())
    return der(0x18, at.strftime("%Y%m%d%H%M%SZ").encode())


def certificate(end: datetime, *, version: bool = True, issuer: bytes = b"x" * 200) -> str:
    fields = der(0xA0, der(0x02, b"\x02")) if version else b""
    fields += der(0x02, b"\x05") + der(0x30, b"alg") + der(0x30, issuer)
    fields += der(0x30, time_of(END - timedelta(days=900)) + time_of(end)) + der(0x30, b"subject")
    return pem(der(0x30, der(0x30, fields) + der(0x30, b"alg") + der(0x03, b"signature")))


def pem(content: bytes) -> str:
    text = base64.encodebytes(content).decode()
    return f"-----BEGIN CERTIFICATE-----\n{text}-----END CERTIFICATE-----\n"


def token(claims: object) -> str:
    middle = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"eyJhbGciOiJub25lIn0.{middle}.c2ln\n"


KEY = "-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----\n"


def test_a_proxy_ends_with_the_first_certificate_of_its_chain() -> None:
    chain = (
        certificate(END + timedelta(hours=5)) + KEY + certificate(END) + certificate(END + timedelta(days=9))
    )
    assert end_of_x509(chain) == END


@pytest.mark.parametrize("version", [True, False])
@pytest.mark.parametrize("end", [END, datetime(2049, 1, 1, tzinfo=UTC), datetime(2061, 2, 3, tzinfo=UTC)])
def test_both_forms_of_time_and_both_versions_are_read(end: datetime, version: bool) -> None:
    assert end_of_x509(certificate(end, version=version)) == end


@pytest.mark.parametrize(
    "text", ["", KEY, pem(b""), pem(b"\x30\x80"), pem(der(0x30, b"")), pem(b"\x30\x84" + b"\xff" * 9)]
)
def test_what_is_no_certificate_has_no_end(text: str) -> None:
    with pytest.raises(NoEnd):
        end_of_x509(text)


@given(st.integers(0, 400), st.binary(min_size=0, max_size=3))
def test_a_damaged_certificate_never_raises_anything_else(at: int, change: bytes) -> None:
    whole = base64.b64decode("".join(certificate(END).splitlines()[1:-1]))
    try:
        end_of_x509(pem(whole[:at] + change + whole[at + len(change) :]))
    except NoEnd:
        pass


def test_a_token_ends_with_its_claim() -> None:
    assert end_of_token(token({"exp": END.timestamp(), "sub": "x"})) == END


@pytest.mark.parametrize(
    "text",
    [
        "",
        "abc",
        "a.b",
        "a.b.c",
        "a.@.c",
        token([]),
        token({}),
        token({"exp": "1"}),
        token({"exp": True}),
        token({"exp": 1e99}),
    ],
)
def test_a_token_without_an_end_is_refused(text: str) -> None:
    with pytest.raises(NoEnd) as caught:
        end_of_token(text)
    assert text.strip() == "" or text.strip() not in str(caught.value)
