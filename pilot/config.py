"""The pilot's configuration: one YAML file, checked whole before anything is done (docs/architecture/configuration.md).

Every error names file, line, key, what was found and what is expected; all are listed at once.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from pilot.yamlfile import NotYaml, Where, read_yaml

CONFIG_MAX_BYTES = 1024 * 1024
# The socket of the calibration server, <local_dir>/ep-<uid>-<nonce>.db/s.sock, must fit into 107 bytes.
LOCAL_DIR_MAX_BYTES = 75


class ConfigError(Exception):
    """The configuration is unusable. `lines` are complete messages, one per error."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


def _absolute(text: str) -> str:
    path = Path(text)
    if not path.is_absolute() or ".." in path.parts or any(c in text for c in "\n\0"):
        raise ValueError("expected an absolute path without '..'")
    return text


def _local(text: str) -> str:
    if text.startswith("$"):
        variable, slash, below = text[1:].partition("/")
        if not variable.isascii() or not variable.isidentifier():
            raise ValueError("expected an absolute path, or $NAME or $NAME/below with a variable of the node")
        if slash:
            _absolute("/" + below)
    else:
        _absolute(text)
    if len(os.fsencode(text)) > LOCAL_DIR_MAX_BYTES:
        raise ValueError(
            f"expected at most {LOCAL_DIR_MAX_BYTES} bytes: a socket's path below it is limited to 107"
        )
    return text


AbsolutePath = Annotated[str, AfterValidator(_absolute)]
LocalDir = Annotated[str, AfterValidator(_local)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Seconds = Annotated[float, Field(ge=0, le=10_000_000)]
PositiveSeconds = Annotated[float, Field(gt=0, le=10_000_000)]


class Section(BaseModel):
    """Base of all sections: unknown keys are errors, types are not converted."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class BatchCommandNames(Section):
    """Commands of the batch system, looked up in PATH or absolute."""

    submit: str = "qsub"
    list: str = "qstat"
    cancel: str = "qdel"


class BatchTimes(Section):
    """How long a command of the batch system may take before it is ended (its effect is then unknown)."""

    submit_s: PositiveSeconds = 300.0
    list_s: PositiveSeconds = 120.0
    cancel_s: PositiveSeconds = 120.0


class BatchSection(Section):
    """The batch system."""

    dialect: Literal["torque", "slurm", "openpbs"] = "torque"
    server: Name
    commands: BatchCommandNames = BatchCommandNames()
    listing_every_s: PositiveSeconds = 60.0
    timeouts: BatchTimes = BatchTimes()
    account: Name | None = None
    flags: Name | None = None
    features: list[Name] = []


class LauncherSection(Section):
    """How one agent is started on one node."""

    kind: Literal["aprun", "srun", "mpiexec", "pbsdsh", "local"] = "aprun"
    argv: list[str] | None = None


class NodeSection(Section):
    """The compute node."""

    python: AbsolutePath = "/usr/bin/python3"
    local_dir: LocalDir = "/dev/shm"
    environment: dict[str, str] = {}
    quick_failures: Annotated[int, Field(ge=1, le=1000)] = 3
    quick_failure_s: Seconds = 60.0
    heartbeat_s: PositiveSeconds = 300.0
    silent_s: PositiveSeconds = 3600.0
    sample_s: PositiveSeconds = 5.0
    caldb_ready_s: PositiveSeconds = 120.0
    caldb_restarts: Annotated[int, Field(ge=0, le=100)] = 2
    stdout_max_mib: Annotated[int, Field(gt=0)] = 200
    rss_max_mib: Annotated[int, Field(gt=0)] | None = None


class ProtocolSection(Section):
    """Times of the submission protocol (DESIGN section 3)."""

    visible_s: Seconds = 30.0
    poll_s: PositiveSeconds = 120.0
    kill_s: PositiveSeconds = 30.0
    grace_s: Seconds = 300.0
    margin_s: Seconds = 300.0


class CaldbSection(Section):
    """The node snapshot of the calibration database; `<snapshot>.json` beside it holds its identity."""

    backend: Literal["mariadb", "sqlite"] = "mariadb"
    snapshot: AbsolutePath
    access: Literal["socket", "tcp"] = "socket"
    server: AbsolutePath | None = None


class ServerSection(Section):
    """A PanDA server in one dialect."""

    name: Name
    url: Annotated[str, Field(pattern=r"^https?://[A-Za-z0-9.\[\]:-]+(/[A-Za-z0-9._/-]*)?$")]
    dialect: Literal["v1", "legacy", "auto"]
    chunk: Annotated[int, Field(ge=1, le=1000)] | None = None
    timeout_s: Annotated[float, Field(gt=10, le=3600)] = 120.0
    ca: AbsolutePath | None = None
    credentials: AbsolutePath | None = None
    token: AbsolutePath | None = None
    origin: Name | None = None
    credential_look_s: PositiveSeconds = 60.0
    credential_warn_s: Seconds = 86400.0
    credential_renewed: bool = False
    credential_to_jobs: bool = False


class WalltimeSection(Section):
    """Predicted run times and the walltime asked for."""

    min_s: Annotated[int, Field(ge=1)] = 600
    max_s: Annotated[int, Field(ge=1)] = 64800
    startup_s: Seconds = 60.0
    per_event_s: Seconds = 1.0
    margin_s: Seconds = 300.0


class QueueSection(Section):
    """One PanDA queue and the batch queue that its bundles go to."""

    name: Name
    server: Name
    panda_queue: Name
    prod_source_label: Name = "managed"
    batch_queue: Name
    wanted: Annotated[int, Field(ge=0, le=100_000)] = 1
    queued_max: Annotated[int, Field(ge=1, le=100_000)] = 4
    nodes: Annotated[int, Field(ge=1, le=100_000)]
    slots: Annotated[int, Field(ge=1, le=4096)]
    jobs_per_slot: Annotated[int, Field(ge=1, le=100)] = 1
    pool_bundles: Annotated[int, Field(ge=1, le=4)] = 2
    fill_wait_s: Seconds = 600.0
    node_hours_day_max: Annotated[float, Field(gt=0, le=1_000_000_000)] | None = None
    node_hours_max: Annotated[float, Field(gt=0, le=1_000_000_000)] | None = None
    walltime: WalltimeSection = WalltimeSection()


class ReportingSection(Section):
    """Heartbeats: the server fails a job 2 h after its last one, a `sent` job after 30 min."""

    heartbeat_s: Annotated[float, Field(gt=0, le=6000)] = 2700.0
    heartbeat_spread_s: Seconds = 300.0
    urgent_s: Annotated[float, Field(gt=0, le=7000)] = 4500.0


class AnnounceSection(Section):
    """A small heartbeat of the daemon itself, for a monitor outside."""

    url: Annotated[str, Field(pattern=r"^https?://[A-Za-z0-9.\[\]:-]+(/[A-Za-z0-9._/-]*)?$")] | None = None
    every_s: Annotated[float, Field(ge=10, le=86400)] = 300.0
    timeout_s: Annotated[float, Field(gt=0, le=600)] = 20.0


class RetentionSection(Section):
    """How long the directory of a settled bundle is kept."""

    ok_h: Annotated[float, Field(ge=0)] = 24.0
    failed_d: Annotated[float, Field(ge=0)] = 14.0


class RotationSection(Section):
    """When pilots are started again."""

    fruitless_wait_s: PositiveSeconds = 60.0
    fruitless_wait_max_s: PositiveSeconds = 3600.0


class Config(Section):
    """The whole file."""

    site: Name
    state_dir: AbsolutePath
    shared_dir: AbsolutePath
    output_root: AbsolutePath
    log_file: AbsolutePath | None = None
    experiment: str = "compass"
    tick_s: Annotated[float, Field(gt=0, le=60)] = 1.0
    evidence_every_s: PositiveSeconds = 15.0
    batch: BatchSection
    launcher: LauncherSection = LauncherSection()
    node: NodeSection = NodeSection()
    protocol: ProtocolSection = ProtocolSection()
    caldb: CaldbSection | None = None
    servers: Annotated[list[ServerSection], Field(min_length=1)]
    queues: Annotated[list[QueueSection], Field(min_length=1)]
    reporting: ReportingSection = ReportingSection()
    retention: RetentionSection = RetentionSection()
    announce: AnnounceSection = AnnounceSection()
    rotation: RotationSection = RotationSection()


def load_config(path: Path) -> Config:
    """The configuration in `path`; raises ConfigError with every error, and nothing else has happened."""
    try:
        with open(path, "rb") as source:
            content = source.read(CONFIG_MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read: {error.strerror}"]) from error
    if len(content) > CONFIG_MAX_BYTES:
        raise ConfigError([f"{path}: more than {CONFIG_MAX_BYTES} bytes, the limit of a configuration"])
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        found = f"found byte 0x{content[error.start]:02x}, expected UTF-8"
        raise ConfigError([f"{path}:{line}: {found}"]) from error
    return parse_config(text, str(path))


def parse_config(text: str, name: str) -> Config:
    """The configuration of this text; `name` stands for the file in messages. Raises ConfigError."""
    try:
        marked = read_yaml(text, name)
    except NotYaml as error:
        raise ConfigError(error.lines) from error
    found: list[tuple[int, str]] = [
        (marked.line(where), marked.message(where, "key stands twice")) for where in marked.doubled
    ]
    config: Config | None = None
    try:
        config = Config.model_validate(marked.value)
    except ValidationError as error:
        for item in error.errors():
            where = tuple(part for part in item["loc"] if isinstance(part, str | int))
            found.append((marked.line(where), marked.explain(dict(item), _known_keys(where))))
    found += [
        (marked.line(where), marked.message(where, what)) for where, what in check_together(marked.value)
    ]
    if found or config is None:
        raise ConfigError([message for _, message in sorted(found, key=lambda item: item[0])])
    return config


def _known_keys(where: Where) -> Sequence[str]:
    """Keys of the section that holds `where`."""
    section: Any = Config
    for part in where[:-1]:
        if isinstance(part, str) and section is not None:
            section = (
                _section(section.model_fields[part].annotation) if part in section.model_fields else None
            )
    return sorted(section.model_fields) if section is not None else ()


def _section(annotation: Any) -> type[Section] | None:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    return next((found for arg in get_args(annotation) if (found := _section(arg)) is not None), None)


def check_together(value: Mapping[str, Any]) -> Iterator[tuple[Where, str]]:
    """What several keys must hold together, as (key, what is wrong). `value` may still break rules of single keys:
    what is not of its type is passed over here."""
    servers, queues = _items(value, "servers"), _items(value, "queues")
    for kind, items in (("servers", servers), ("queues", queues)):
        counts = Counter(name for _, item in items if isinstance(name := item.get("name"), str))
        for index, item in items:
            if isinstance(name := item.get("name"), str) and counts[name] > 1:
                yield (kind, index, "name"), f"found {name!a} twice, expected a name of its own"
    names = sorted({name for _, item in servers if isinstance(name := item.get("name"), str)})
    labels: dict[str, str] = {}
    for index, queue in queues:
        server = queue.get("server")
        if not isinstance(server, str):
            continue
        if server not in names:
            yield ("queues", index, "server"), f"found {server!a}, expected one of {', '.join(names)}"
        label = queue.get("prod_source_label", QueueSection.model_fields["prod_source_label"].default)
        if isinstance(label, str) and labels.setdefault(server, label) != label:
            expected = f"{labels[server]!a} as for the other queues of server {server!a}"
            yield ("queues", index, "prod_source_label"), f"found {label!a}, expected {expected}"
        yield from _check_walltime(value, index, queue)
    for index, server in servers:
        yield from _check_credential(index, server)
    yield from _check_reporting(value)
    yield from _check_silence(value)


def _check_credential(index: int, server: Mapping[str, Any]) -> Iterator[tuple[Where, str]]:
    """A proxy or a token, not both; a token comes with its origin; what is shown goes over TLS."""
    proxy, token = server.get("credentials"), server.get("token")
    if proxy is not None and token is not None:
        yield ("servers", index, "token"), "found a token beside credentials, expected one of both"
    if (token is None) != (server.get("origin") is None):
        yield ("servers", index, "origin"), "expected token and origin together, or neither"
    url = server.get("url")
    if token is not None and isinstance(url, str) and not url.startswith("https:"):
        yield ("servers", index, "url"), f"found {url!a}, expected https: a token is never sent in the clear"
    if server.get("credential_to_jobs") is True and proxy is None and token is None:
        yield ("servers", index, "credential_to_jobs"), "found true, expected credentials or token beside it"


def _check_walltime(
    value: Mapping[str, Any], index: int, queue: Mapping[str, Any]
) -> Iterator[tuple[Where, str]]:
    times = queue.get("walltime", {})
    least, most = _number(times, "min_s", WalltimeSection), _number(times, "max_s", WalltimeSection)
    kept = _number(value.get("protocol", {}), "margin_s", ProtocolSection)
    if least is None or most is None:
        return
    where: Where = ("queues", index, "walltime", "min_s")
    if least > most:
        yield where, f"found {least:g}, expected at most max_s, {most:g}"
    if kept is not None and least <= kept:
        yield (
            where,
            f"found {least:g}, expected more than protocol.margin_s, {kept:g}: no job would ever start",
        )


def _check_silence(value: Mapping[str, Any]) -> Iterator[tuple[Where, str]]:
    every = _number(value.get("node", {}), "heartbeat_s", NodeSection)
    silent = _number(value.get("node", {}), "silent_s", NodeSection)
    seen = _number(value.get("protocol", {}), "visible_s", ProtocolSection)
    if every is None or silent is None or seen is None:
        return
    least = 2 * every + seen
    if silent < least:
        expected = (
            f"at least 2 x heartbeat_s + protocol.visible_s, {least:g}: living agents would count as dead"
        )
        yield ("node", "silent_s"), f"found {silent:g}, expected {expected}"


def _check_reporting(value: Mapping[str, Any]) -> Iterator[tuple[Where, str]]:
    times = value.get("reporting", {})
    every = _number(times, "heartbeat_s", ReportingSection)
    spread = _number(times, "heartbeat_spread_s", ReportingSection)
    urgent = _number(times, "urgent_s", ReportingSection)
    if every is None or spread is None or urgent is None:
        return
    if urgent < every + spread:
        expected = (
            f"at least heartbeat_s + heartbeat_spread_s, {every + spread:g}: every heartbeat would be urgent"
        )
        yield ("reporting", "urgent_s"), f"found {urgent:g}, expected {expected}"


def _items(value: Mapping[str, Any], key: str) -> list[tuple[int, Mapping[str, Any]]]:
    items = value.get(key)
    return (
        [(n, item) for n, item in enumerate(items) if isinstance(item, dict)]
        if isinstance(items, list)
        else []
    )


def _number(section: Any, key: str, model: type[Section]) -> float | None:
    """A number of a section, its default if it is not there, None if it is no number."""
    found = section.get(key, model.model_fields[key].default) if isinstance(section, dict) else None
    return found if isinstance(found, int | float) and not isinstance(found, bool) else None
