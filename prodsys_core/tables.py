"""Reads the package's data files once and turns them into the values that the pure modules take."""

from collections.abc import Mapping
from functools import cache
from typing import Any

from prodsys_core.lifecycle import ChainLink, Edges, Role
from prodsys_core.naming import ProductTable
from prodsys_core.verdicts import CodeTable, PandaWords
from prodsys_core.yamlfile import load_table


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
