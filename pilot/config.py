"""The pilot's configuration: one YAML file, checked whole before anything is done (docs/architecture/configuration.md).

Every error names file, line, key, what was found and what is expected; all are listed at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

CONFIG_MAX_BYTES = 1024 * 1024


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
    return text if text.startswith("$") and text[1:].isidentifier() else _absolute(text)


AbsolutePath = Annotated[str, AfterValidator(_absolute)]
LocalDir = Annotated[str, AfterValidator(_local)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Seconds = Annotated[float, Field(ge=0, le=10_000_000)]
PositiveSeconds = Annotated[float, Field(gt=0, le=10_000_000)]


class Section(BaseModel):
    """Base of all sections: unknown keys are errors, types are not converted."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


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

    dialect: Literal["torque"] = "torque"
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
    usable_memory_mib: Annotated[int, Field(gt=0)] | None = None
    quick_failures: Annotated[int, Field(ge=1, le=1000)] = 3
    quick_failure_s: Seconds = 60.0
    heartbeat_s: PositiveSeconds = 300.0
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
    dialect: Literal["v1", "legacy"]
    chunk: Annotated[int, Field(ge=1, le=1000)] | None = None
    timeout_s: Annotated[float, Field(gt=10, le=3600)] = 120.0
    credentials: AbsolutePath | None = None


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
    walltime: WalltimeSection = WalltimeSection()


class ReportingSection(Section):
    """Heartbeats: the server fails a job 2 h after its last one, a `sent` job after 30 min."""

    heartbeat_s: Annotated[float, Field(gt=0, le=6000)] = 2700.0
    heartbeat_spread_s: Seconds = 300.0
    urgent_s: Annotated[float, Field(gt=0, le=7000)] = 4500.0


class RetentionSection(Section):
    """How long the directory of a settled bundle is kept."""

    ok_h: Annotated[float, Field(ge=0)] = 24.0
    failed_d: Annotated[float, Field(ge=0)] = 14.0


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


@dataclass(frozen=True, slots=True)
class _Marks:
    """Line of every key and item, by its path."""

    lines: Mapping[tuple[str | int, ...], int]

    def line(self, path: tuple[str | int, ...]) -> int:
        """Line of the deepest part of `path` that stands in the file."""
        for length in range(len(path), -1, -1):
            if path[:length] in self.lines:
                return self.lines[path[:length]]
        return 1


def load_config(path: Path) -> Config:
    """The configuration in `path`; raises ConfigError with every error, and nothing else has happened."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read: {error.strerror}"]) from error
    if len(text) > CONFIG_MAX_BYTES:
        raise ConfigError([f"{path}: {len(text)} bytes, expected at most {CONFIG_MAX_BYTES}"])
    return parse_config(text.decode("utf-8", "replace"), str(path))


def parse_config(text: str, name: str) -> Config:
    """The configuration of this text; `name` stands for the file in messages."""
    lines: dict[tuple[str | int, ...], int] = {}
    errors: list[str] = []
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else 1
        problem = getattr(error, "problem", None) or str(error)
        raise ConfigError([f"{name}:{line}: not YAML: {problem}"]) from error
    _mark(node, (), lines, errors, name)
    if not isinstance(value, dict):
        raise ConfigError([f"{name}:1: expected a mapping of keys, found {type(value).__name__}"])
    marks = _Marks(lines)
    config: Config | None = None
    try:
        config = Config.model_validate(value)
    except ValidationError as error:
        errors.extend(_message(name, marks, item) for item in error.errors())
    if config is not None:
        errors.extend(f"{name}:{marks.line(where)}: {what}" for where, what in _cross_checks(config))
    if errors or config is None:
        raise ConfigError(errors)
    return config


def _mark(
    node: Any,
    path: tuple[str | int, ...],
    lines: dict[tuple[str | int, ...], int],
    errors: list[str],
    name: str,
) -> None:
    if node is None:
        return
    lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if key.value in seen:
                errors.append(
                    f"{name}:{key.start_mark.line + 1}: {_dotted((*path, key.value))}: key stands twice"
                )
            seen.add(key.value)
            lines[(*path, key.value)] = key.start_mark.line + 1
            _mark(value, (*path, key.value), lines, errors, name)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _mark(item, (*path, index), lines, errors, name)


def _dotted(path: tuple[str | int, ...]) -> str:
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else (f".{part}" if text else part)
    return text


def _message(name: str, marks: _Marks, item: Any) -> str:
    where = tuple(part for part in item["loc"] if isinstance(part, str | int))
    key, line = _dotted(where), marks.line(where)
    if item["type"] == "extra_forbidden":
        return f"{name}:{line}: {key}: unknown key"
    if item["type"] == "missing":
        return f"{name}:{line}: {key}: missing"
    message = item["msg"].removeprefix("Value error, ")
    return f"{name}:{line}: {key}: found {item['input']!r:.120}, {message[:1].lower()}{message[1:]}"


def _cross_checks(config: Config) -> list[tuple[tuple[str | int, ...], str]]:
    found: list[tuple[tuple[str | int, ...], str]] = []
    named = {
        "servers": [server.name for server in config.servers],
        "queues": [queue.name for queue in config.queues],
    }
    for kind, names in named.items():
        counts = Counter(names)
        for index, name in enumerate(names):
            if counts[name] > 1:
                found.append(((kind, index, "name"), f"{kind}[{index}].name: {name!r} stands twice"))
    servers = {server.name for server in config.servers}
    for index, queue in enumerate(config.queues):
        if queue.server not in servers:
            expected = ", ".join(sorted(servers))
            text = f"queues[{index}].server: found {queue.server!r}, expected one of {expected}"
            found.append((("queues", index, "server"), text))
        if queue.walltime.min_s > queue.walltime.max_s:
            text = f"queues[{index}].walltime.min_s: found {queue.walltime.min_s}, expected at most max_s"
            found.append((("queues", index, "walltime"), text))
    if config.reporting.urgent_s < config.reporting.heartbeat_s:
        text = "reporting.urgent_s: expected at least heartbeat_s"
        found.append((("reporting", "urgent_s"), text))
    return found
