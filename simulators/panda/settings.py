"""Settings of a simulated server and who calls it. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from simulators.panda.flavour import FLAVOURS, Flavour
from simulators.panda.identity import roles_of, token_subject
from simulators.panda.rules import PandaTimes

QUEUE_STATUSES = ("online", "test")
_PRODUCTION = re.compile(r"/[^/]+/Role=production")


class BadSettings(Exception):
    """A setting that makes no sense; the text says which, what was found and what is expected."""


@dataclass(frozen=True, slots=True)
class Settings:
    """`require_role`: calls need an identity; over plain HTTP it comes in the headers X-Test-DN and X-Test-FQAN.

    With `tls` (cert, key, ca: files) it comes from the caller's certificate instead, else from a token; `roles` has the
    VOMS attributes of each subject.
    `per_job_s`: how long a connection waits for each job of its call (a real server: 0.019).
    """

    times: PandaTimes = field(default_factory=PandaTimes)
    flavour: Flavour = FLAVOURS["both"]
    queues: Mapping[str, str] = field(default_factory=dict)
    require_role: bool = False
    pilot_owners: frozenset[str] = frozenset()
    per_job_s: float = 0.0
    queuedata: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    roles: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    tls: Mapping[str, str] = field(default_factory=dict)


def parse_settings(value: Any) -> Settings:
    """Settings of one flat JSON object: names of PandaTimes (seconds), flavour, queues, require_role, pilot_owners."""
    if not isinstance(value, Mapping):
        raise BadSettings(f"found {type(value).__name__}, expected an object")
    times = {item.name for item in fields(PandaTimes)}
    others = {"flavour", "queues", "require_role", "pilot_owners", "per_job_s", "queuedata", "roles", "tls"}
    for name in value:
        if name not in times | others:
            raise BadSettings(f"{name}: unknown, expected one of {', '.join(sorted(times | others))}")
    return Settings(
        PandaTimes(**{name: _seconds(name, value[name]) for name in times & value.keys()}),
        _flavour(value.get("flavour", "both")),
        _queues(value.get("queues", {})),
        _flag("require_role", value.get("require_role", False)),
        frozenset(_texts("pilot_owners", value.get("pilot_owners", []))),
        _seconds("per_job_s", value.get("per_job_s", 0.0)),
        _queuedata(value.get("queuedata", {})),
        _roles(value.get("roles", {})),
        _tls(value.get("tls", {})),
    )


def _seconds(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e9:
        raise BadSettings(f"{name}: found {value!r:.60}, expected seconds from 0")
    return float(value)


def _flavour(value: Any) -> Flavour:
    if value not in FLAVOURS:
        raise BadSettings(f"flavour: found {value!r:.60}, expected one of {', '.join(FLAVOURS)}")
    return FLAVOURS[value]


def _queues(value: Any) -> Mapping[str, str]:
    if not isinstance(value, Mapping) or not all(status in QUEUE_STATUSES for status in value.values()):
        raise BadSettings(f"queues: found {value!r:.60}, expected names with {' or '.join(QUEUE_STATUSES)}")
    return {str(name): status for name, status in value.items()}


def _roles(value: Any) -> Mapping[str, tuple[str, ...]]:
    if not isinstance(value, Mapping):
        raise BadSettings(f"roles: found {value!r:.60}, expected subjects with lists of texts")
    return {str(subject): tuple(_texts("roles", found)) for subject, found in value.items()}


def _tls(value: Any) -> Mapping[str, str]:
    if not isinstance(value, Mapping) or (value and set(value) != {"cert", "key", "ca"}):
        raise BadSettings(f"tls: found {value!r:.60}, expected cert, key and ca")
    return {name: str(path) for name, path in value.items()}


def _queuedata(value: Any) -> Mapping[str, Mapping[str, Any]]:
    if not isinstance(value, Mapping) or not all(isinstance(item, Mapping) for item in value.values()):
        raise BadSettings(f"queuedata: found {value!r:.60}, expected queues with objects")
    return value


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise BadSettings(f"{name}: found {value!r:.60}, expected true or false")
    return value


def _texts(name: str, value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise BadSettings(f"{name}: found {value!r:.60}, expected a list of texts")
    return value


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls: subject of the certificate (None: no certificate) and VOMS attributes. `trusted`: not looked at."""

    subject: str | None = None
    attributes: tuple[str, ...] = ()
    trusted: bool = False
    owner: bool = False

    @property
    def secure(self) -> bool:
        """Whether v1 takes the connection for secure: a subject that is no limited proxy."""
        return self.trusted or (self.subject is not None and "/CN=limited proxy" not in self.subject)

    @property
    def production(self) -> bool:
        """The production role, all that v1 takes."""
        return self.trusted or any(_PRODUCTION.fullmatch(item) for item in self.attributes)

    @property
    def pilot(self) -> bool:
        """What the legacy dialect takes: production, the pilot role of ATLAS, or an owner of pilots."""
        return self.production or self.owner or "/atlas/Role=pilot" in self.attributes


def caller_of(settings: Settings, headers: Mapping[str, str]) -> Caller:
    """The caller by the headers of a request (names in lower case)."""
    if not settings.require_role:
        return Caller(trusted=True)
    shown = headers.get("x-subject") or token_subject(headers)
    if shown is not None:
        return Caller(shown, roles_of(settings.roles, shown), owner=shown in settings.pilot_owners)
    if settings.tls:
        return Caller()
    subject, attribute = headers.get("x-test-dn", "none"), headers.get("x-test-fqan", "none")
    return Caller(
        None if subject == "none" else subject,
        () if "none" in (subject, attribute) else (attribute,),
        owner=subject in settings.pilot_owners,
    )
