"""YAML files: the package's own; those that a person writes, with file, line and key of every problem."""

from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, TypeAdapter, ValidationError

Model = TypeVar("Model", bound=BaseModel)
Value = TypeVar("Value")
Key = tuple[int | str, ...]
FOUND_MAX = 60
"""Characters of a wrong value that are shown."""


class Loader(yaml.SafeLoader):
    """A value that is none (month 13) is a problem of its line."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep=deep)
        except ValueError as error:
            raise yaml.constructor.ConstructorError(None, None, str(error), node.start_mark) from error


class BadFile(Exception):
    """The file cannot be used. `problems`: one line each, `FILE:LINE: KEY: found ..., expected ...`."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


def load_table(name: str, kind: type[Value]) -> Value:
    """A file of the package's `data` as `kind`; raises ValueError where it holds something else."""
    text = resources.files("prodsys_core").joinpath("data", name).read_text(encoding="utf-8")
    return TypeAdapter(kind).validate_python(yaml.safe_load(text))


def load_yaml(path: Path, model: type[Model]) -> Model:
    """The file's values as `model`; raises BadFile with every problem that was found."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadFile([f"{path}: cannot be read: {error}"]) from error
    return parse_yaml(text, str(path), model)


def parse_yaml(text: str, label: str, model: type[Model]) -> Model:
    """Like `load_yaml`, of a text; `label` stands for the file's name."""
    lines: dict[Key, int] = {}
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        if root is None:
            raise BadFile([f"{label}:1: the file is empty, expected {_keys(model)}"])
        doubles = list(_walk(root, (), lines))
        values = yaml.load(text, Loader=Loader)  # noqa: S506  (a SafeLoader)
    except RecursionError as error:
        raise BadFile([f"{label}:1: not YAML that can be used: too deep, or a part of itself"]) from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else 1
        raise BadFile([f"{label}:{line}: not YAML: {getattr(error, 'problem', None) or error}"]) from error
    if doubles:
        raise BadFile([f"{label}:{lines[key]}: {_dotted(key)}: key given twice" for key in doubles])
    try:
        return model.model_validate(values)
    except ValidationError as error:
        problems = [_problem(label, lines, item, model) for item in error.errors(include_url=False)]
        raise BadFile(problems) from error


def _walk(node: yaml.Node, key: Key, lines: dict[Key, int]) -> Iterator[Key]:
    """Record the line of every key; yields keys that stand twice in one mapping."""
    lines.setdefault(key, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for name, value in node.value:
            child = (*key, str(name.value))
            lines[child] = name.start_mark.line + 1
            if child in seen:
                yield child
            seen.add(child)
            yield from _walk(value, child, lines)
    elif isinstance(node, yaml.SequenceNode):
        for number, value in enumerate(node.value):
            yield from _walk(value, (*key, number), lines)


def _problem(label: str, lines: dict[Key, int], item: Any, model: type[BaseModel]) -> str:
    written: Key = ()
    for part in item["loc"]:  # pydantic adds the names of union members, which no file holds
        if (*written, part) in lines or (*written, str(part)) in lines:
            written = (*written, part if (*written, part) in lines else str(part))
    place = f"{label}:{lines[written]}"
    if item["type"] == "extra_forbidden":
        return f"{place}: {_dotted(written)}: unknown key"
    if item["type"] == "missing":
        missing = (*written, item["loc"][-1])
        return f"{place}: {_dotted(missing)}: key is missing"
    text = item["msg"].removeprefix("Value error, ")
    expected = text[0].lower() + text[1:]
    key = item.get("ctx", {}).get("key")  # of a problem with several keys: the one to look at
    if key is not None:
        return f"{label}:{lines.get((*written, key), lines[written])}: {_dotted((*written, key))}: {expected}"
    kinds = {dict: "a mapping", list: "a list", type(None): "nothing"}
    found = kinds.get(type(item["input"])) or repr(item["input"])[:FOUND_MAX]
    return f"{place}: {_dotted(written) or _keys(model)}: found {found}, {expected}"


def _dotted(key: Key) -> str:
    text = ""
    for part in key:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def _keys(model: type[BaseModel]) -> str:
    return "keys " + ", ".join(model.model_fields)
