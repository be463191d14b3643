"""Reads the package's data files once and turns them into the values that the pure modules take."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

import yaml

from prodsys_core.lifecycle import ChainLink, StepKind
from prodsys_core.naming import ProductNames, ProductTable
from prodsys_core.verdicts import CodeRule, CodeTable, PandaWords


def _load(name: str) -> Any:
    return yaml.safe_load(resources.files("prodsys_core").joinpath("data", name).read_text(encoding="utf-8"))


@cache
def chains() -> Mapping[str, tuple[ChainLink, ...]]:
    """Kinds of work by task type."""
    return {
        task_type: tuple(
            ChainLink(
                StepKind(link["kind"]),
                link["of"],
                tuple(StepKind(need) for need in link.get("needs", ())),
                link.get("asked", False),
            )
            for link in links
        )
        for task_type, links in _load("chains.yaml").items()
    }


@cache
def products() -> ProductTable:
    """Names, places, priorities."""
    raw = _load("products.yaml")
    names = {
        product: ProductNames(
            product,
            item["chunk"]["lfn"],
            item["chunk"]["place"],
            item["merged"]["lfn"],
            item["merged"]["place"],
            item["merged"]["final"],
            item["step"],
            item["transformation"],
            item["unit"],
            item.get("placeholder_size"),
        )
        for product, item in raw["products"].items()
    }
    log = raw["log"]
    types = {task_type: tuple(written) for task_type, written in raw["types"].items()}
    return ProductTable(
        names, log["place"], log["chunk"], log["merged"], log["packed"], types, raw["priorities"], raw["tape"]
    )


@cache
def codes() -> CodeTable:
    """Error codes and what follows from them."""
    raw = _load("codes.yaml")
    rules = {
        source: {code: _rule(rule) for code, rule in items.items()} for source, items in raw["codes"].items()
    }
    return CodeTable(
        tuple(raw["order"]), rules, _rule(raw["unknown"]), _rule(raw["cancelled"]), _rule(raw["closed"])
    )


def _rule(item: Mapping[str, Any]) -> CodeRule:
    return CodeRule(item["charge"], item["then"], item["text"], item.get("for", {}))


@cache
def panda_words() -> PandaWords:
    """PanDA's statuses."""
    raw = _load("panda.yaml")
    return PandaWords(frozenset(raw["waiting"]), frozenset(raw["running"]), frozenset(raw["ended"]))
