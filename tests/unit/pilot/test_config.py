"""A bad key has file, line, key, found and expected; every error is listed; nothing else happens."""

from __future__ import annotations

from pathlib import Path

import pytest

from pilot.config import ConfigError, load_config, parse_config

GOOD = """\
site: demo
state_dir: /s
shared_dir: /f
output_root: /o
batch: {server: sim}
servers:
  - {name: panda, url: "http://127.0.0.1:25080", dialect: v1}
queues:
  - name: long
    server: panda
    panda_queue: Q
    batch_queue: normal
    nodes: 2
    slots: 4
"""


def errors(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_config(text, "c.yaml")
    return caught.value.lines


def test_a_short_config_gets_safe_defaults() -> None:
    config = parse_config(GOOD, "c.yaml")
    assert config.queues[0].wanted == 1
    assert config.reporting.heartbeat_s == 2700


@pytest.mark.parametrize(
    ("change", "line", "words"),
    [
        (("    nodes: 2", "    nodes: two"), 13, ["queues[0].nodes", "'two'", "integer"]),
        (("    nodes: 2", "    nodes: 0"), 13, ["queues[0].nodes", "found 0", "greater than or equal to 1"]),
        (("    slots: 4", "    slots: 4\n    colour: red"), 15, ["queues[0].colour", "unknown key"]),
        (("state_dir: /s", "state_dir: s"), 2, ["state_dir", "'s'", "absolute"]),
        (("state_dir: /s", "state_dir: /a/../b"), 2, ["state_dir", "'..'"]),
        (("dialect: v1", "dialect: v2"), 7, ["servers[0].dialect", "'v2'"]),
        (("    server: panda", "    server: other"), 10, ["queues[0].server", "'other'", "panda"]),
        (("site: demo\n", "site: demo\nsite: two\n"), 2, ["site", "twice"]),
        (("site: demo\n", ""), 1, ["site", "missing"]),
        (("site: demo", "site: [demo"), 2, ["not YAML"]),
    ],
)
def test_an_error_names_file_line_key_found_and_expected(
    change: tuple[str, str], line: int, words: list[str]
) -> None:
    found = errors(GOOD.replace(*change))
    assert any(message.startswith(f"c.yaml:{line}:") for message in found), found
    assert all(any(word in message for message in found) for word in words), found


def test_all_errors_are_listed_at_once() -> None:
    text = (
        GOOD.replace("nodes: 2", "nodes: 0").replace("slots: 4", "slots: x").replace("site: demo", "site: ''")
    )
    assert len(errors(text)) == 3


def test_a_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / "none.yaml")
    assert len(caught.value.lines) == 1


def test_numbers_are_not_made_of_text() -> None:
    assert errors(GOOD.replace("nodes: 2", "nodes: '2'"))


SITES = Path(__file__).parents[3] / "pilot/sites"


@pytest.mark.parametrize("profile", sorted(path.stem for path in SITES.glob("*.yaml")))
def test_every_profile_loads_and_explains_its_limits(profile: str) -> None:
    text = (
        (SITES / f"{profile}.yaml")
        .read_text()
        .replace("@BASE@", "/base")
        .replace("@PYTHON@", "/usr/bin/python3")
    )
    parse_config(text, profile)
    for line in text.splitlines():
        key = line.strip().partition(":")[0]
        if key.endswith(("_s", "_h", "_d", "_mib")) and "{" not in line:
            assert "#" in line, line
