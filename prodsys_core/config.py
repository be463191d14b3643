"""Configuration of prodsys: one YAML file, named by PRODSYS_CONFIG. Unknown keys are refused.

Every limit has its unit in its name and its reason beside it.
"""

import os
import re
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)

from prodsys_core.lifecycle import MERGES, StepKind
from prodsys_core.naming import command_problem
from prodsys_core.yamlfile import BadFile, load_yaml

ENVIRONMENT_NAME = "PRODSYS_CONFIG"
FILTERING = "DDD filtering"
"""Task type that has a command of its own: it writes dumps only."""
COMMAND_NAMES: dict[str, frozenset[str]] = {
    StepKind.RECONSTRUCT: frozenset({"raw", "template", "run", "chunk", "mdst", "hist", "dump", "log"}),
    **dict.fromkeys(MERGES, frozenset({"inputs", "out"})),
    FILTERING: frozenset({"raw", "template", "run", "chunk", "dump", "log"}),
}


def text_like(pattern: str | re.Pattern[str], expected: str) -> AfterValidator:
    """A text that matches as a whole; `expected` is what its error says."""

    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(f"expected {expected}")
        return text

    return AfterValidator(check)


AbsolutePath = Annotated[
    str, text_like(r"(?!(.*/)?\.\.(/|$))/[^\x00-\x1f]*", "an absolute path without '..'")
]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,49}$")]
Time = Annotated[
    AwareDatetime,
    BeforeValidator(lambda time: datetime.fromisoformat(time) if isinstance(time, str) else time),
]
Url = Annotated[
    str,
    text_like(r"https?://[A-Za-z0-9.\-\[\]:]+(/[A-Za-z0-9./_-]*)?", "http(s)://host[:port]"),
    AfterValidator(lambda url: url.rstrip("/")),
]


class Section(BaseModel):
    """A mapping of the file: no unknown keys, no silent conversion of types."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Sqlite(Section):
    """One host. WAL, writes begin with the write lock."""

    engine: Literal["sqlite"]
    path: AbsolutePath
    busy_s: int = Field(default=30, ge=1, le=600)  # how long a writer waits for another one


class MariaDb(Section):
    """Several hosts, through mysql-connector-python. A socket, or host and port; the password stands in a file."""

    engine: Literal["mariadb"]
    name: Name = "prodsys"
    user: Name = "prodsys"
    password_file: AbsolutePath | None = None
    socket: AbsolutePath | None = None
    host: str = "127.0.0.1"
    port: int = Field(default=3306, ge=1, le=65535)


class X509(Section):
    """A proxy file with certificate and key."""

    kind: Literal["x509"]
    proxy: AbsolutePath
    ca_bundle: AbsolutePath | None = None


class Oidc(Section):
    """A bearer token in a file, read for each call. `origin` is `<vo>:<role>`."""

    kind: Literal["oidc"]
    token_file: AbsolutePath
    origin: str = Field(pattern=r"^[A-Za-z0-9._-]+[:.][A-Za-z0-9._-]+$")
    ca_bundle: AbsolutePath | None = None


class BatchNumbers(Section):
    """Reserved range of jediTaskID: must not meet real tasks of the same server."""

    first: int = Field(default=900_000_000, ge=1, le=2**53)
    last: int = Field(default=999_999_999, ge=1, le=2**53)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.last < self.first:
            raise ValueError("expected last not below first")
        return self


class Panda(Section):
    """The workload server, v1 calls."""

    url: Url
    timeout_s: float = Field(default=120.0, gt=0, le=3600)  # the server stores a job in 15 to 110 ms
    submit_chunk: int = Field(default=200, ge=1, le=5000)  # jobs a call; the server cuts at 5000, silently
    commit_batches: int = Field(default=8, ge=1, le=100)  # what a dead tick leaves to be looked for
    status_chunk: int = Field(default=300, ge=1, le=450)  # ids in a URL; Apache takes 8190 bytes
    record_chunk: int = Field(default=1000, ge=1, le=5500)  # full records a call; the server cuts at 5500
    settle_s: float = Field(default=900.0, ge=0, le=86400)  # an unchanged list this much later is final
    status_every_s: float = Field(default=60.0, ge=0, le=86400)  # between two looks at the same jobs
    active_max: int = Field(default=10_000, ge=1, le=1_000_000)  # our jobs in one PanDA queue
    queue_days: float = Field(default=2.0, gt=0, le=30)  # days of a queue's own pace that may wait in it
    waiting_min: int = Field(default=2_000, ge=1, le=1_000_000)  # may wait in a queue that is new
    batch_numbers: BatchNumbers = BatchNumbers()
    legacy_package: Literal["taskbuffer", "pandaserver.taskbuffer"] | None = None  # pickles of its JobSpec
    prod_source_label: Name = "prod_test"
    vo: Name = "vo.compass.cern.ch"
    credentials: Annotated[X509 | Oidc, Field(discriminator="kind")] | None = None


class SiteFiles(Section):
    """The site's shared file system as this host sees it (same paths)."""

    root: AbsolutePath  # nothing is read, written or removed outside
    lists: AbsolutePath | None = None  # input lists of merge jobs; default <root>/prodsys-lists


class Tape(Section):
    """Long-term storage: a directory that is copied to, or a drop box of a tape system that writes receipts."""

    kind: Literal["directory", "dropbox"]
    root: AbsolutePath
    again_after_s: float = Field(3600.0, gt=0)  # a transfer not seen at all by then is asked for again


def _commands(commands: dict[str, str]) -> dict[str, str]:
    for kind, command in commands.items():
        if kind not in COMMAND_NAMES:
            raise ValueError(f"unknown kind of step {kind!r}; possible: {', '.join(COMMAND_NAMES)}")
        problem = command_problem(command, COMMAND_NAMES[kind])
        if problem:
            raise ValueError(f"command of {kind!r}: {problem}")
    return commands


class Downtime(Section):
    """From when to when a site is offline. Quotes around the times change nothing."""

    begins: Time
    ends: Time

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.ends <= self.begins:
            raise ValueError("expected ends after begins")
        return self


class Site(Section):
    """One site: its PanDA queues, its files, the commands its payloads are started with.

    `status`: online; test: only tasks of type test production; drain: nothing new, what it has runs on; offline: what
    waits in its queues is taken back, too.
    """

    name: Name
    status: Literal["online", "test", "drain", "offline"] = "online"
    downtimes: tuple[Downtime, ...] = Field(default=(), strict=False)
    panda_queue: Name
    merge_queue: Name
    files: SiteFiles
    tape: Tape | None = None  # null: merged files stay on the site
    commands: Annotated[dict[str, str], AfterValidator(_commands)]
    max_walltime_s: int | None = Field(default=None, ge=1)

    def queue_for(self, kind: str) -> str:
        """The PanDA queue of a kind of step: merges go to the short one."""
        return self.panda_queue if kind == StepKind.RECONSTRUCT else self.merge_queue

    def command_for(self, kind: str, task_type: str) -> str | None:
        """The command of a kind of step; filtering has its own, or one of `reconstruct` that names its outputs only."""
        command = self.commands.get(kind)
        if kind != StepKind.RECONSTRUCT or task_type != FILTERING:
            return command
        fits = command is not None and not command_problem(command, COMMAND_NAMES[FILTERING])
        return self.commands.get(FILTERING, command if fits else None)

    def status_at(self, now: datetime) -> str:
        """`status`, or offline during a downtime."""
        down = any(downtime.begins <= now < downtime.ends for downtime in self.downtimes)
        return "offline" if down else self.status

    def downtime_at(self, now: datetime) -> Downtime | None:
        """The downtime that is, else the next one that will be."""
        left = [downtime for downtime in self.downtimes if now < downtime.ends]
        return min(left, key=lambda downtime: downtime.begins, default=None)

    def takes(self, task_type: str, now: datetime) -> bool:
        """Whether new work of such a task may be sent to it."""
        status = self.status_at(now)
        return status == "online" or (status == "test" and task_type == "test production")


class Retry(Section):
    """When an attempt that ended badly is followed by another one; charged attempts: the task's max_attempts. Waits
    (`backoff_s`): after the 1st, 2nd, ... uncharged end; the last one repeats."""

    uncharged_max: int = Field(default=20, ge=1, le=1000)  # a site that fails for days must come to a person
    backoff_s: tuple[float, ...] = Field(
        default=(0.0, 60.0, 300.0, 900.0, 1800.0, 3600.0), min_length=1, strict=False
    )
    charged_wait_s: float = Field(default=0.0, ge=0)


class Web(Section):
    """`prodsys serve`: loopback only; put a TLS proxy in front."""

    host: Literal["127.0.0.1", "localhost", "::1"] = "127.0.0.1"
    port: int = Field(default=8080, ge=0, le=65535)
    names: tuple[str, ...] = Field(default=(), strict=False)  # further Host headers that are accepted


class Config(Section):
    """The whole file."""

    instance: Name = "prodsys"  # part of every work key: two systems on one PanDA queue need two names
    state_dir: AbsolutePath
    database: Annotated[Sqlite | MariaDb, Field(discriminator="engine")]
    panda: Panda
    sites: Annotated[list[Site], Field(min_length=1)]
    retry: Retry = Retry()
    web: Web = Web()
    lease_s: float = Field(default=120.0, ge=1, le=3600)  # a tick silent for so long is taken over

    @model_validator(mode="after")
    def _sites_differ(self) -> Self:
        names = [site.name for site in self.sites]
        if len(set(names)) != len(names):
            raise ValueError("expected different names of sites")
        return self

    def site(self, name: str) -> Site | None:
        """The site of this name."""
        return next((site for site in self.sites if site.name == name), None)

    def open_sites(self, names: Iterable[str], task_type: str, now: datetime) -> list[Site]:
        """Of these sites those that take new work of such a task, in the same order."""
        sites = (self.site(name) for name in names)
        return [site for site in sites if site is not None and site.takes(task_type, now)]


def load_config() -> Config:
    """The file named by PRODSYS_CONFIG; raises BadFile."""
    name = os.environ.get(ENVIRONMENT_NAME, "")
    if not name:
        raise BadFile([f"{ENVIRONMENT_NAME} is not set: it must name prodsys' YAML configuration file"])
    return load_yaml(Path(name), Config)
