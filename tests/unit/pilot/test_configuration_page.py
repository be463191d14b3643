"""docs/architecture/configuration.md shows every key of the configuration, and no other."""

from __future__ import annotations

import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pilot.config import parse_config
from pilot.configkeys import Config, Section

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/architecture/configuration.md").read_text()
SITES = sorted(path.stem for path in (ROOT / "pilot/sites").glob("*.yaml"))
FREE = ("node.environment",)  # keys are names of variables


def example() -> str:
    return PAGE.partition("```yaml\n")[2].partition("```")[0]


def keys_of_models(section: type[Section] = Config, before: str = "") -> Iterator[str]:
    for name, field in section.model_fields.items():
        yield before + name
        for below in sections_in(field.annotation):
            yield from keys_of_models(below, f"{before}{name}.")


def sections_in(annotation: Any) -> Iterator[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    for argument in typing.get_args(annotation):
        yield from sections_in(argument)


def keys_of_value(value: Any, before: str = "") -> Iterator[str]:
    if isinstance(value, list):
        for item in value:
            yield from keys_of_value(item, before)
    elif isinstance(value, dict) and before.rstrip(".") not in FREE:
        for name, below in value.items():
            yield before + name
            yield from keys_of_value(below, f"{before}{name}.")


def test_the_page_shows_every_key_and_no_other() -> None:
    assert set(keys_of_value(yaml.safe_load(example()))) == set(keys_of_models())


def test_the_example_of_the_page_loads() -> None:
    assert parse_config(example(), "configuration.md").queues[0].panda_queue == "SIM_LONG"


def test_every_profile_is_named_on_the_page() -> None:
    assert [name for name in SITES if f"`{name}`" not in PAGE] == []


@pytest.mark.parametrize("name", SITES)
def test_a_profile_has_no_placeholder_but_those_that_init_fills(name: str) -> None:
    text = (ROOT / f"pilot/sites/{name}.yaml").read_text()
    filled = text.replace("@BASE@", "/base").replace("@PYTHON@", "/usr/bin/python3")
    assert "@" not in "".join(line.partition("#")[0] for line in filled.splitlines())


def test_the_standard_bundle_of_blue_waters_is_512_jobs_on_16_nodes() -> None:
    text = (ROOT / "pilot/sites/bluewaters.yaml").read_text()
    config = parse_config(text.replace("@BASE@", "/base").replace("@PYTHON@", "/usr/bin/python3"), "b")
    queue = config.queues[0]
    assert (queue.nodes, queue.slots, queue.nodes * queue.slots * queue.jobs_per_slot) == (16, 32, 512)
