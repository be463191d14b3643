"""Reads the package's data files once and turns them into the values that the pure modules take."""

from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

import yaml

from prodsys_core.lifecycle import ChainLink, Edges, Role, StepKind
from prodsys_core.naming import ProductNames, ProductTable
from prodsys_core.verdicts import CodeRule, CodeTable, PandaWords


def load_table(name: str) -> Any:
    """A data file's plain values."""
    return yaml.safe_load(resources.files("prodsys_core").joinpath("data", name).read_text(encoding="utf-8"))


@cache
def edges(subject: str) -> Edges:
    """Who may move a task, run or step from which status to which."""
    rows = load_table("edges.yaml")[subject]
    return {(old, new): frozenset(map(Role, who.split(" or "))) for old, new, who in rows}


def _kinds(words: str | list[str]) -> StepKind | tuple[StepKind, ...]:
    return StepKind(words) if isinstance(words, str) else tuple(map(StepKind, words))


@cache
def chains() -> Mapping[str, tuple[ChainLink, ...]]:
    """Kinds of work by task type."""
    return {
        task_type: tuple(
            ChainLink(**link | {name: _kinds(link[name]) for name in ("kind", "needs") if name in link})
            for link in links
        )
        for task_type, links in load_table("chains.yaml").items()
    }


@cache
def products() -> ProductTable:
    """Names, places, priorities."""
    raw = load_table("products.yaml")
    names = {product: ProductNames(**item) for product, item in raw.pop("products").items()}
    return ProductTable(names, **raw)


@cache
def codes() -> CodeTable:
    """Error codes and what follows from them."""
    raw = load_table("codes.yaml")
    rules = {
        name: {code: _rule(rule) for code, rule in items.items()} for name, items in raw["codes"].items()
    }
    others = (_rule(raw[name]) for name in ("unknown", "cancelled", "closed"))
    return CodeTable(tuple(raw["order"]), rules, *others)


def _rule(item: Mapping[str, Any]) -> CodeRule:
    return CodeRule(item["charge"], item["then"], item["text"], item.get("for", {}))


@cache
def panda_words() -> PandaWords:
    """PanDA's statuses."""
    raw = load_table("panda.yaml")
    return PandaWords(frozenset(raw["waiting"]), frozenset(raw["running"]), frozenset(raw["ended"]))
