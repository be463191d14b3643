"""The table of docs/architecture/configuration.md is exact: every key, default, limit and unit of configkeys.py."""

from __future__ import annotations

import json
import re
import typing
from collections.abc import Iterator
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import AfterValidator
from pydantic.fields import FieldInfo

from pilot.configkeys import (
    LOCAL_DIR_MAX_BYTES,
    AbsolutePath,
    Config,
    LocalDir,
    Name,
    NoStart,
    Pattern,
    Section,
    SetupScript,
)
from pilot.rotation.wiring import CHUNK

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/architecture/configuration.md").read_text()
UNITS = {"_s": "s", "_h": "h", "_d": "d", "_mib": "MiB"}
SPECIAL = {
    AbsolutePath: "absolute path",
    LocalDir: "absolute path or `$NAME`",
    Name: "name",
    NoStart: "window",
    Pattern: "pattern with a group",
    SetupScript: "absolute path with {NAMES}",
}
WORDS = {str: "text", dict[str, str]: "names with texts", int: "whole", float: "", bool: "true or false"}


def leaves(section: type[Section] = Config, before: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every key that holds a value and no section, with lists of sections flattened."""
    for name, field in section.model_fields.items():
        below = list(sections_in(field.annotation))
        for inner in below:
            yield from leaves(inner, f"{before}{name}.")
        if not below:
            yield before + name, field


def sections_in(annotation: Any) -> Iterator[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    for argument in get_args(annotation):
        yield from sections_in(argument)


def default_text(field: FieldInfo) -> str:
    return "**required**" if field.is_required() else f"`{json.dumps(field.default).strip(chr(34))}`"


def allowed_text(field: FieldInfo) -> str:
    annotation: Any = field.annotation
    for item in field.metadata:
        annotation = Annotated[annotation, item]
    for known, text in SPECIAL.items():
        if pattern_of(known) is not None and pattern_of(known) == pattern_of(annotation):
            return text
        if get_args(known) == get_args(annotation):
            return text
    return kind_text(annotation)


def pattern_of(annotation: Any) -> str | None:
    parts = [part for item in get_args(annotation)[1:] for part in getattr(item, "metadata", [item])]
    return next((part.pattern for part in parts if getattr(part, "pattern", None)), None)


def kind_text(annotation: Any) -> str:
    for known, text in SPECIAL.items():
        if annotation == known:
            return text
    arguments = get_args(annotation)
    if get_origin(annotation) is Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if NoneType in arguments:
        return f"{kind_text(next(a for a in arguments if a is not NoneType))}, or null"
    if get_origin(annotation) is list:
        return f"list of {kind_text(arguments[0])}s"
    if get_origin(annotation) is Annotated:
        return f"{kind_text(arguments[0])} {bounds_text(arguments[1:])}".strip()
    return WORDS[annotation]


def bounds_text(metadata: tuple[Any, ...]) -> str:
    found: dict[str, Any] = {}
    for item in metadata:
        assert not isinstance(item, AfterValidator), item
        for part in getattr(item, "metadata", [item]):
            for name in ("ge", "gt", "le", "pattern"):
                if getattr(part, name, None) is not None:
                    found[name] = getattr(part, name)
    if "pattern" in found:
        return "(http or https)"
    low = f"from {found['ge']:g}" if "ge" in found else f"above {found['gt']:g}"
    return f"{low} to {found['le']:,.0f}" if "le" in found else low


def table() -> dict[str, list[str]]:
    rows = re.findall(r"^\| `([a-z_.]+)` \| (.*) \|$", PAGE, re.MULTILINE)
    assert len({key for key, _ in rows}) == len(rows)
    return {key: [cell.strip() for cell in rest.split(" | ")] for key, rest in rows}


def test_every_key_is_in_the_table_and_no_other() -> None:
    assert sorted(table()) == sorted(key for key, _ in leaves())


def test_defaults_are_those_of_the_code() -> None:
    rows = table()
    assert {key: rows[key][0] for key, _ in leaves()} == {key: default_text(f) for key, f in leaves()}


def test_limits_are_those_of_the_code() -> None:
    rows = table()
    assert {key: rows[key][1] for key, _ in leaves()} == {key: allowed_text(f) for key, f in leaves()}


def test_every_number_has_its_unit_and_every_key_its_reason() -> None:
    rows = table()
    for key, field in leaves():
        unit = next((text for end, text in UNITS.items() if key.endswith(end)), None)
        hints = str(typing.get_args(field.annotation) or field.annotation)
        if unit is not None:
            assert rows[key][2] == unit, key
        elif "int" in hints and "list" not in hints:
            assert rows[key][2] != "", key
        assert len(rows[key][3]) > 8, key


def test_numbers_in_the_reasons_are_those_of_the_code() -> None:
    rows = table()
    assert f"v1 {CHUNK['v1']}, legacy {CHUNK['legacy']}" in rows["servers.chunk"][3]
    assert f"{LOCAL_DIR_MAX_BYTES} bytes" in rows["node.local_dir"][3]
