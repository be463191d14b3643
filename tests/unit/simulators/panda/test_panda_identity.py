"""Who a caller is: subjects of certificates and tokens, and their roles."""

from __future__ import annotations

import base64
import json

import pytest

from simulators.panda.identity import roles_of, subject_of, token_subject
from simulators.panda.settings import BadSettings, Settings, caller_of, parse_settings

ROBOT = "/DC=ch/CN=robot"
ROLES = {ROBOT: ("/compass/Role=production",), "token-user": ("/compass/Role=production",)}


def token(claims: object) -> dict[str, str]:
    parts = (json.dumps(part).encode() for part in ({"alg": "none"}, claims))
    text = ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)
    return {"authorization": f"Bearer {text}.sig", "origin": "compass"}


def test_a_subject_is_written_as_grid_middleware_does() -> None:
    shown = {"subject": ((("domainComponent", "ch"),), (("commonName", "robot"),), (("emailAddress", "x"),))}
    assert subject_of(shown) == "/DC=ch/CN=robot/emailAddress=x"
    assert subject_of({}) is subject_of(None) is None


@pytest.mark.parametrize("added", ["", "/CN=123456", "/CN=proxy", "/CN=limited proxy/CN=9"])
def test_a_proxy_has_the_roles_of_its_user(added: str) -> None:
    assert roles_of(ROLES, ROBOT + added) == ROLES[ROBOT]


@pytest.mark.parametrize("subject", [f"{ROBOT}/CN=mallory", f"/CN=x{ROBOT}", "", "/CN=123"])
def test_another_subject_has_none(subject: str) -> None:
    assert roles_of(ROLES, subject) == ()


def test_a_certificate_counts_before_a_token_and_a_token_before_test_headers() -> None:
    settings = Settings(require_role=True, roles=ROLES)
    shown = caller_of(settings, {"x-subject": f"{ROBOT}/CN=7", **token({"sub": "nobody"})})
    assert (shown.subject, shown.production) == (f"{ROBOT}/CN=7", True)
    assert caller_of(settings, token({"sub": "token-user"})).production
    assert not caller_of(settings, {**token({"sub": "nobody"}), "x-test-dn": ROBOT}).production
    assert not caller_of(Settings(require_role=True, tls={"cert": "c"}), {"x-test-dn": ROBOT}).secure


@pytest.mark.parametrize("claims", [{}, {"sub": 5}, [], "x"])
def test_a_token_without_a_subject_is_nobody(claims: object) -> None:
    assert token_subject(token(claims)) is None


def test_settings_of_identity_are_checked() -> None:
    settings = parse_settings({"roles": {"a": ["b"]}, "tls": {"cert": "c", "key": "k", "ca": "a"}})
    assert (settings.roles, settings.tls["ca"]) == ({"a": ("b",)}, "a")
    for bad in ({"tls": {"cert": "c"}}, {"roles": {"a": "b"}}, {"roles": ["a"]}):
        with pytest.raises(BadSettings):
            parse_settings(bad)
