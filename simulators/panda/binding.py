"""How v1 takes arguments: strict names and types, casts of query texts. Pure.

Source: captured refusals N17 to N26, N55 to N58, N68, N72, N73 in `tests/data/panda-samples`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

NEEDED = object()


class ArgumentProblem(Exception):
    """An argument that the server refuses; the text is its message."""


@dataclass(frozen=True, slots=True)
class Argument:
    """Name, type and default of one argument (NEEDED: none). `shown`: the type's name in the server's messages."""

    name: str
    kind: type
    default: Any = None
    shown: str = ""

    @property
    def kind_name(self) -> str:
        """The type as messages spell it."""
        return self.shown or self.kind.__name__


def bind(signature: tuple[Argument, ...], given: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments by name with their defaults. Raises ArgumentProblem."""
    known = {argument.name for argument in signature}
    for argument in signature:
        if argument.default is NEEDED and argument.name not in given:
            raise ArgumentProblem(f"Argument error: missing a required argument: '{argument.name}'")
    for name in given:
        if name not in known:
            raise ArgumentProblem(f"Argument error: got an unexpected keyword argument '{name}'")
    return {argument.name: _checked(argument, given) for argument in signature}


def _checked(argument: Argument, given: Mapping[str, Any]) -> Any:
    if argument.name not in given:
        return argument.default
    value = given[argument.name]
    if argument.default is not NEEDED and value == argument.default and not isinstance(value, bool):
        return value
    if type(value) is not argument.kind:
        found = type(value).__name__
        raise ArgumentProblem(
            f"Type error: '{argument.name}' must be of type {argument.kind_name}, got {found}."
        )
    return value


def cast_query(signature: tuple[Argument, ...], query: Mapping[str, list[str]]) -> dict[str, Any]:
    """Values of a query by the types of the signature. Raises ArgumentProblem."""
    kinds = {argument.name: argument for argument in signature}
    return {
        name: _cast(kinds[name], values) if name in kinds else values[0] for name, values in query.items()
    }


def _cast(argument: Argument, values: list[str]) -> Any:
    try:
        if argument.kind is list:
            return [int(item) for item in values]
        if argument.kind is bool:
            return values[0].lower() in ("true", "1")
        if argument.kind is int:
            return int(float(values[0]))
        return argument.kind(values[0])
    except ValueError as error:
        given: Any = values if argument.kind is list else values[0]
        raise ArgumentProblem(
            f"Type error: '{argument.name}' with value '{given}' could not be casted to type "
            f"{argument.kind_name} from {type(given).__name__}."
        ) from error
