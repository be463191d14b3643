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
        (("    nodes: 2", "    nodes: 0"), 13, ["queues[0].nodes", "found 0", "at least 1"]),
        (("    slots: 4", "    slots: 4\n    colour: red"), 15, ["queues[0].colour", "unknown key"]),
        (("state_dir: /s", "state_dir: s"), 2, ["state_dir", "'s'", "absolute"]),
        (("state_dir: /s", "state_dir: /a/../b"), 2, ["state_dir", "'..'"]),
        (("dialect: v1", "dialect: v2"), 7, ["servers[0].dialect", "'v2'"]),
        (("    server: panda", "    server: other"), 10, ["queues[0].server", "'other'", "panda"]),
        (("site: demo\n", "site: demo\nsite: two\n"), 2, ["site", "twice"]),
        (("site: demo\n", ""), 1, ["site", "missing"]),
        (("site: demo", "site: [demo"), 2, ["not YAML"]),
        (("dialect: v1", "dialect: v1, token: /t"), 7, ["servers[0].origin", "together"]),
        (("dialect: v1", "dialect: v1, origin: vo"), 7, ["servers[0].origin", "together"]),
        (("dialect: v1", "dialect: v1, token: /t, origin: vo"), 7, ["servers[0].url", "https"]),
        (
            ("dialect: v1", "dialect: v1, token: /t, origin: vo, credentials: /p"),
            7,
            ["servers[0].token", "one of"],
        ),
        (("dialect: v1", "dialect: v1, credential_to_jobs: true"), 7, ["servers[0].credential_to_jobs"]),
        (("site: demo", "node: {setup: setup.sh}\nsite: demo"), 1, ["node.setup", "absolute"]),
        (("site: demo", "node: {setup: '/a/../b'}\nsite: demo"), 1, ["node.setup", "'..'"]),
        (("site: demo", "node: {setup: '/a/{}'}\nsite: demo"), 1, ["node.setup", "{NAME}"]),
        (("site: demo", "node: {setup: '/a/{A.b}'}\nsite: demo"), 1, ["node.setup", "{NAME}"]),
        (("site: demo", "node: {setup: '/a/{A!r}'}\nsite: demo"), 1, ["node.setup", "{NAME}"]),
        (("site: demo", "node: {setup: '/a/{A:9}'}\nsite: demo"), 1, ["node.setup", "{NAME}"]),
        (("site: demo", "node: {setup: '/a/{'}\nsite: demo"), 1, ["node.setup", "{NAME}"]),
        (("site: demo", "inputs: {method: command}\nsite: demo"), 1, ["inputs.command", "{source}"]),
        (
            ("site: demo", "inputs: {method: command, command: [cp, '{source}']}\nsite: demo"),
            1,
            ["inputs.command", "{target}"],
        ),
        (
            ("site: demo", "inputs: {command: [cp, '{source}', '{target}']}\nsite: demo"),
            1,
            ["inputs.command", "nothing uses"],
        ),
        (("    slots: 4", "    slots: 4\n    inputs_method: command"), 1, ["inputs.command", "{source}"]),
        (("    slots: 4", "    slots: 4\n    caldb_snapshot: /c.tar"), 15, ["queues[0].caldb_snapshot"]),
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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            ("slots: 4", "slots: 4\n    batch_que: x"),
            "c.yaml:15: queues[0].batch_que: unknown key, expected batch_queue",
        ),
        (("slots: 4", "slots: 0"), "c.yaml:14: queues[0].slots: found 0, expected at least 1"),
        (
            ("dialect: v1", "dialect: v2"),
            "c.yaml:7: servers[0].dialect: found 'v2', expected 'v1', 'legacy' or 'auto'",
        ),
        (("site: demo", "site: no"), "c.yaml:1: site: found False, expected text"),
        (("site: demo", "site: demo\ntick_s: .nan"), "c.yaml:2: tick_s: found nan, expected a finite number"),
        (("site: demo", "site: demo\ntick_s: true"), "c.yaml:2: tick_s: found True, expected a number"),
    ],
)
def test_a_message_says_what_was_found_and_what_is_expected(change: tuple[str, str], message: str) -> None:
    assert errors(GOOD.replace(*change)) == [message]


def test_rules_over_several_keys_are_looked_at_beside_other_errors() -> None:
    text = GOOD.replace("    server: panda", "    server: other").replace("slots: 4", "slots: x")
    assert [line.split(": ")[1] for line in errors(text)] == ["queues[0].server", "queues[0].slots"]


@pytest.mark.parametrize(
    ("more", "key"),
    [
        ("    walltime: {min_s: 300}\n", "queues[0].walltime.min_s"),
        ("    walltime: {min_s: 800, max_s: 700}\n", "queues[0].walltime.min_s"),
        ("reporting: {urgent_s: 2800.0}\n", "reporting.urgent_s"),
        (
            "  - {name: b, server: panda, panda_queue: R, batch_queue: n, nodes: 1, slots: 1, "
            "prod_source_label: test}\n",
            "queues[1].prod_source_label",
        ),
        (
            "  - {name: long, server: panda, panda_queue: R, batch_queue: n, nodes: 1, slots: 1}\n",
            "queues[1].name",
        ),
    ],
)
def test_keys_that_contradict_each_other_are_an_error(more: str, key: str) -> None:
    assert any(f": {key}: found " in line for line in errors(GOOD + more)), errors(GOOD + more)


@pytest.mark.parametrize("local_dir", ["/dev/shm", "$TMPDIR", "$TMPDIR/ep"])
def test_node_local_directories(local_dir: str) -> None:
    assert parse_config(GOOD + f"node: {{local_dir: {local_dir}}}\n", "c").node.local_dir == local_dir


@pytest.mark.parametrize("local_dir", ["tmp", "$", "$A B", "$A/../b", "$(id)", "/" + "x" * 80])
def test_what_is_no_node_local_directory(local_dir: str) -> None:
    (line,) = errors(GOOD + f"node: {{local_dir: '{local_dir}'}}\n")
    assert ": node.local_dir: found " in line


@pytest.mark.parametrize(
    "content", [b"site: \xff\n", b"site: a\0b\n", b"a: &a [*a]\n", b"[" * 5000, b"", b"- 1\n"]
)
def test_what_is_no_configuration_is_one_line(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / "c.yaml")
    (line,) = caught.value.lines
    assert len(line.splitlines()) == 1
