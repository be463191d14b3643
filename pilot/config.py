"""The pilot's configuration: one YAML file, checked whole before anything is done (docs/architecture/configuration.md).

Every error names file, line, key, what was found and what is expected; all are listed at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from pilot.configkeys import (
    Config,
    NodeSection,
    ProtocolSection,
    QueueSection,
    ReportingSection,
    RotationSection,
    Section,
    WalltimeSection,
)
from pilot.yamlfile import NotYaml, Where, read_yaml

CONFIG_MAX_BYTES = 1024 * 1024


class ConfigError(Exception):
    """The configuration is unusable. `lines` are complete messages, one per error."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


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
    yield from _check_fencing(value)
    yield from _check_tasks(value)
    yield from _check_inputs(value)
    yield from _check_snapshots(value)


def _check_snapshots(value: Mapping[str, Any]) -> Iterator[tuple[Where, str]]:
    """A queue's own snapshot is served as `caldb` says."""
    for index, queue in _items(value, "queues"):
        if queue.get("caldb_snapshot") is not None and value.get("caldb") is None:
            yield (
                ("queues", index, "caldb_snapshot"),
                "found a snapshot, expected a section caldb that says how it is served",
            )


def _check_inputs(value: Mapping[str, Any]) -> Iterator[tuple[Where, str]]:
    """A command is there where one is asked for, and says where it reads and writes."""
    section = value.get("inputs", {})
    if not isinstance(section, dict) or not isinstance(section.get("command", []), list):
        return
    command = section.get("command", [])
    methods = [section.get("method"), *(queue.get("inputs_method") for _, queue in _items(value, "queues"))]
    wanted = "command" in methods
    missing = [name for name in ("{source}", "{target}") if not any(name in str(word) for word in command)]
    if wanted and (missing or not command):
        yield ("inputs", "command"), f"found {command!a}, expected words with {{source}} and {{target}}"
    if command and not wanted:
        yield ("inputs", "command"), "found a command that nothing uses, expected method: command"


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


def _check_fencing(value: Mapping[str, Any]) -> Iterator[tuple[Where, str]]:
    section = value.get("protocol", {})
    if isinstance(section, dict) and section.get("fencing") == "weak":
        if _number(section, "visible_s", ProtocolSection) == 0:
            yield (
                ("protocol", "visible_s"),
                "found 0, expected more with weak fencing: nobody would wait for marks",
            )


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


def _check_tasks(value: Mapping[str, Any]) -> Iterator[tuple[Where, str]]:
    section = value.get("rotation", {})
    window = _number(section, "task_window", RotationSection)
    most = _number(section, "task_failed_max", RotationSection)
    if window is not None and most is not None and most > window:
        expected = f"at most task_window, {window:g}: no task would ever be stopped"
        yield ("rotation", "task_failed_max"), f"found {most:g}, expected {expected}"


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
