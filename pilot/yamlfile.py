"""YAML text to values, with the line of every key; errors as lines that name file, line, key, found and expected."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from pilot.log import escaped

# No section lies deeper and no site has so many keys: what aliases blow up ends here.
DEPTH_MAX = 20
NODES_MAX = 100_000
SHOWN_MAX = 120

Where = tuple[str | int, ...]

# pydantic's word for a kind of error -> what is expected, with the fields of its context.
_EXPECTED: Mapping[str, str] = {
    "missing": "missing: expected a value",
    "int_type": "an integer",
    "int_from_float": "an integer",
    "float_type": "a number",
    "finite_number": "a finite number",
    "string_type": "text",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a mapping of keys",
    "model_type": "a mapping of keys",
    "model_attributes_type": "a mapping of keys",
    "literal_error": "{expected}",
    "greater_than": "more than {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
    "too_short": "at least {min_length} of them",
    "string_pattern_mismatch": "text that matches {pattern}",
}


class NotYaml(Exception):
    """No usable YAML; `lines` are complete messages."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


@dataclass(frozen=True, slots=True)
class Marked:
    """A mapping read from YAML, the line of each of its keys and items, and keys that stand twice."""

    name: str
    value: Mapping[str, Any]
    lines: Mapping[Where, int]
    doubled: tuple[Where, ...]

    def message(self, where: Where, what: str) -> str:
        """`file:line: key: what`, the line being that of the deepest part of `where` that is in the file."""
        key = dotted(where)
        return f"{self.name}:{self.line(where)}: {key}: {what}" if key else f"{self.name}:1: {what}"

    def line(self, where: Where) -> int:
        """Line of the deepest part of `where` that is in the file."""
        found = next((where[:n] for n in range(len(where), -1, -1) if where[:n] in self.lines), ())
        return self.lines.get(found, 1)

    def explain(self, error: Mapping[str, Any], known: Iterable[str] = ()) -> str:
        """One error of pydantic as a message. `known`: keys that are possible where an unknown one was found."""
        where = tuple(part for part in error["loc"] if isinstance(part, str | int))
        if error["type"] == "missing":
            return self.message(where, "missing")
        if error["type"] == "extra_forbidden":
            close = difflib.get_close_matches(str(where[-1]), list(known), 1)
            expected = close[0] if close else "one of " + ", ".join(sorted(known))
            return self.message(where, f"unknown key, expected {expected}")
        form = _EXPECTED.get(error["type"])
        found = escaped(repr(error["input"]), at_most=SHOWN_MAX)
        if form is None:
            message = error["msg"].removeprefix("Value error, ")
            return self.message(where, f"found {found}, {message[:1].lower()}{message[1:]}")
        return self.message(where, f"found {found}, expected {form.format(**error.get('ctx', {}))}")


def dotted(where: Where) -> str:
    """`queues[0].walltime.min_s`"""
    text = ""
    for part in where:
        shown = escaped(part, at_most=SHOWN_MAX)
        text += f"[{part}]" if isinstance(part, int) else (f".{shown}" if text else shown)
    return text


def read_yaml(text: str, name: str) -> Marked:
    """The one mapping in `text`; `name` stands for the file in messages. Raises NotYaml."""
    lines: dict[Where, int] = {}
    doubled: list[Where] = []
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if node is not None:
            _mark(node, (), lines, doubled)
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or str(error).partition("\n")[0]
        raise NotYaml([f"{name}:{mark.line + 1 if mark else 1}: not YAML: {escaped(problem)}"]) from error
    except RecursionError as error:
        raise NotYaml([f"{name}:1: nested too deeply, expected at most {DEPTH_MAX} levels"]) from error
    if not isinstance(value, dict):
        raise NotYaml([f"{name}:1: found {type(value).__name__}, expected a mapping of keys"])
    return Marked(name, value, lines, tuple(doubled))


def _mark(node: yaml.Node, where: Where, lines: dict[Where, int], doubled: list[Where]) -> None:
    if len(where) > DEPTH_MAX or len(lines) > NODES_MAX:
        limit = f"{DEPTH_MAX} levels and {NODES_MAX} keys"
        raise yaml.MarkedYAMLError(problem=f"expected at most {limit}", problem_mark=node.start_mark)
    lines.setdefault(where, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            below = (*where, str(key.value))
            if below in lines:
                doubled.append(below)
            lines[below] = key.start_mark.line + 1
            _mark(value, below, lines, doubled)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _mark(item, (*where, index), lines, doubled)
