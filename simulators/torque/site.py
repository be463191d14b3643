"""What a simulated Torque site is: values, and their reading from a JSON document with clear errors."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,30}$")]
Seconds = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]


class SiteError(ValueError):
    """A site document that cannot be used; the text names file, field, what was expected and what was found."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class QueueSpec(_Strict):
    """One batch queue. A limit that is None does not exist; `keep_completed_s` None: as the server."""

    priority: int = 0
    walltime_max_s: Count | None = 172800
    walltime_default_s: Count = 1800
    nodes_max: Count | None = None
    user_jobs_max: Count | None = None
    jobs_max: Count | None = None
    enabled: bool = True
    started: bool = True
    users: tuple[str, ...] | None = None
    nodes_default: Annotated[str, Field(pattern=r"^\d+$")] | None = None
    keep_completed_s: Seconds | None = None


class TorqueSite(_Strict):
    """A machine and its batch server.

    `cray`: batch scripts run on a MOM node and whole nodes are reserved; else the script runs on the job's first
    node and nodes are shared slot by slot. `walltime_poll_s`: the walltime is looked at on this grid, so a job
    ends up to so much late (real: 45). `release_s`: between the script's end and C (the release of the
    reservation; minutes where ALPS is stuck). `kill_delay_s`: between SIGTERM and SIGKILL.
    `job_stat_s`: age at which a running job shows resources used. `features` are those of every node,
    `feature_nodes` those of a range (first and last number). `login_nodes`: MOM nodes of Cray mode.
    `node_check_s`: a dead node is shown as it was for so long (real: 150).
    `eligible_max`: of the jobs of a user beyond so many queued ones the scheduler looks at none (blocked).
    `script_cpu_max_s`: a batch script that takes more CPU itself runs its payload on the MOM node, outside aprun: a
    violation, which is logged.
    `convex_delay_s` (assumed, 0 switches it off): a job without flags=commtransparent starts so much later for
    each doubling of its nodes, because it waits for a convex place in the torus.
    """

    server_name: Annotated[str, Field(pattern=r"^[A-Za-z][\w.-]{0,60}$")] = "sim"
    nodes: Annotated[int, Field(ge=1, le=30000)] = 4
    slots: Annotated[int, Field(ge=1, le=1024)] = 4
    features: tuple[Name, ...] = ("xe",)
    feature_nodes: Mapping[Name, tuple[Count, Count]] = Field(default_factory=dict)
    queues: Mapping[Name, QueueSpec] = Field(
        default_factory=lambda: {"normal": QueueSpec(), "short": QueueSpec(priority=100, walltime_max_s=3600)}
    )
    default_queue: Name = "normal"
    cray: bool = True
    keep_completed_s: Seconds = 300.0
    scheduler_interval_s: Annotated[float, Field(gt=0)] = 0.2
    start_delay_s: Seconds = 0.0
    walltime_poll_s: Annotated[float, Field(gt=0)] = 1.0
    kill_delay_s: Seconds = 2.0
    release_s: Seconds = 0.0
    job_stat_s: Annotated[float, Field(gt=0)] = 45.0
    login_nodes: Count = 1
    node_check_s: Seconds = 0.0
    eligible_max: Count | None = None
    convex_delay_s: Seconds = 0.0
    first_sequence: Count = 1
    refuse_root: bool = False
    script_cpu_max_s: Seconds = 60.0
    first_address: str = "127.0.1.1"
    local_root: str | None = None

    @field_validator("first_address")
    @classmethod
    def _loopback(cls, value: str) -> str:
        if not ipaddress.IPv4Address(value).is_loopback:
            raise ValueError("expected an address in 127.0.0.0/8")
        return value

    @model_validator(mode="after")
    def _default_queue_exists(self) -> TorqueSite:
        if self.default_queue not in self.queues:
            raise ValueError(f"default_queue: expected one of {', '.join(self.queues)}")
        last = ipaddress.IPv4Address(self.first_address) + self.nodes - 1
        if not last.is_loopback:
            raise ValueError(f"first_address: no room for {self.nodes} addresses in 127.0.0.0/8")
        return self

    def features_of(self, number: int) -> tuple[str, ...]:
        """Features of a node, in the order in which pbsnodes shows them."""
        some = (name for name, (first, last) in self.feature_nodes.items() if first <= number <= last)
        return (*self.features, *some)

    def node_name(self, number: int) -> str:
        """Host name of a node (numbers start at 1)."""
        return f"nid{number:05d}"

    def node_address(self, number: int) -> str:
        """Loopback address of a node."""
        return str(ipaddress.IPv4Address(self.first_address) + number - 1)

    def node_number(self, name: str) -> int | None:
        """Number of the node of this name (`nid00003`, or `3` as Cray's pbsnodes has it); None if there is none."""
        digits = name.removeprefix("nid")
        number = int(digits) if digits.isdecimal() and len(digits) <= 9 else 0
        return number if 1 <= number <= self.nodes else None


def parse_site(text: str, file: str) -> TorqueSite:
    """The site of a JSON text. Raises SiteError, one line for each thing that is wrong."""
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        raise SiteError(f"{file}: line {error.lineno}: expected JSON, found {error.msg}") from None
    if not isinstance(document, dict):
        raise SiteError(f"{file}: expected a JSON object, found {type(document).__name__}")
    try:
        return TorqueSite.model_validate(document)
    except ValidationError as error:
        raise SiteError("\n".join(_line(file, item) for item in error.errors())) from None


def _line(file: str, item: Any) -> str:
    field = ".".join(str(part) for part in item["loc"]) or "site"
    if item["type"] == "extra_forbidden":
        return f"{file}: {field}: unknown key"
    found = "" if isinstance(item["input"], dict | TorqueSite) else f"; found {item['input']!r}"
    return f"{file}: {field}: {item['msg'].removeprefix('Value error, ')}{found}"
