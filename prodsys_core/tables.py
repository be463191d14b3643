"""Reads the package's data files once and turns them into the values that the pure modules take."""

from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any, TypeVar

import yaml
from pydantic import TypeAdapter

from prodsys_core.lifecycle import ChainLink, Edges, Role
from prodsys_core.naming import ProductTable
from prodsys_core.verdicts import CodeTable, PandaWords

Value = TypeVar("Value")


def load_table(name: str, kind: type[Value]) -> Value:
    """A data file's values as `kind`; raises ValueError where they are others."""
    text = resources.files("prodsys_core").joinpath("data", name).read_text(encoding="utf-8")
    return TypeAdapter(kind).validate_python(yaml.safe_load(text))


@cache
def edges(subject: str) -> Edges:
    """Who may move a task, run or step from which status to which."""
    rows = load_table("edges.yaml", dict[str, Any])[subject]
    return {(old, new): frozenset(map(Role, who.split(" or "))) for old, new, who in rows}


@cache
def chains() -> Mapping[str, tuple[ChainLink, ...]]:
    """Kinds of work by task type."""
    return load_table("chains.yaml", dict[str, tuple[ChainLink, ...]])


@cache
def products() -> ProductTable:
    """Names, places, priorities."""
    return load_table("products.yaml", ProductTable)


@cache
def codes() -> CodeTable:
    """Error codes and what follows from them."""
    return load_table("codes.yaml", CodeTable)


@cache
def panda_words() -> PandaWords:
    """PanDA's statuses."""
    return load_table("panda.yaml", PandaWords)
