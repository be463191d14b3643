"""A changed configuration is taken over whole or not at all; what cannot change is named."""

from __future__ import annotations

import threading
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from rig import Rig, Site, make_job, make_limits

from pilot.config import parse_config
from pilot.control import Desk
from pilot.multijob.events import BundlePlanned
from pilot.rotation.commands import Command
from pilot.rotation.reload import CHANGEABLE, leaves, list_changes, refusals
from pilot.rotation.reloader import Reloader

ROOT = Path(__file__).parents[4]
PAGE = (ROOT / "docs/architecture/configuration.md").read_text()
EXAMPLE = yaml.safe_load(PAGE.partition("```yaml\n")[2].partition("```")[0])

# (key, new value in the example of the page, whether it may change)
TABLE: list[tuple[tuple[Any, ...], Any, bool]] = [
    (("queues", 0, "wanted"), 9, True),
    (("queues", 0, "no_start"), [], True),
    (("queues", 0, "walltime", "max_s"), 7200, True),
    (("queues", 0, "node_hours_max"), 5.0, True),
    (("rotation", "live_max"), 3, True),
    (("retention", "ok_h"), 1.0, True),
    (("node", "environment"), {"A": "b"}, True),
    (("batch", "account"), "abc", True),
    (("inputs", "quiet_s"), 1.0, True),
    (("state_dir",), "/other", False),
    (("shared_dir",), "/other", False),
    (("site",), "other", False),
    (("batch", "server"), "other", False),
    (("batch", "timeouts", "list_s"), 1.0, False),
    (("protocol", "visible_s"), 1.0, False),
    (("node", "silent_s"), 9999.0, False),
    (("queues", 0, "name"), "other", False),
    (("queues", 0, "panda_queue"), "other", False),
    (("queues", 0, "server"), "panda-legacy", False),
    (("servers", 0, "timeout_s"), 60.0, False),
    (("experiment",), "other", False),
]


def changed(keys: list[tuple[tuple[Any, ...], Any, bool]]) -> dict[str, Any]:
    value = yaml.safe_load(yaml.safe_dump(EXAMPLE))
    for key, new, _ in keys:
        below = value
        for part in key[:-1]:
            below = below[part]
        below[key[-1]] = new
    return value


def dumped(value: Any) -> dict[str, Any]:
    return parse_config(yaml.safe_dump(value), "c.yaml").model_dump()


@pytest.mark.parametrize("row", TABLE, ids=lambda row: ".".join(map(str, row[0])))
def test_the_table_of_keys_that_may_change(row: tuple[tuple[Any, ...], Any, bool]) -> None:
    changes = list_changes(dumped(EXAMPLE), dumped(changed([row])))
    assert changes
    assert (refusals(changes) == ()) is row[2]


def test_a_refusal_names_the_key_and_both_values() -> None:
    (line,) = refusals(list_changes(dumped(EXAMPLE), dumped(changed([TABLE[12]]))))
    assert line.startswith("batch.server: 'sim' -> 'other': cannot change while the daemon runs")


@settings(max_examples=40, deadline=None)
@given(rows=st.lists(st.sampled_from(TABLE), unique_by=lambda row: str(row[0])))
def test_one_key_that_cannot_change_keeps_all_others_as_they_are(rows: list[Any]) -> None:
    changes = list_changes(dumped(EXAMPLE), dumped(changed(rows)))
    assert (refusals(changes) == ()) is all(row[2] for row in rows)


def test_each_pattern_names_keys_of_the_configuration() -> None:
    keys = [key for key, _ in leaves(dumped(EXAMPLE), "")]
    assert [pattern for pattern in CHANGEABLE if not any(fnmatchcase(k, pattern) for k in keys)] == []


SMALL = """\
site: s
state_dir: /s
shared_dir: /f
output_root: /o
batch: {server: sim}
servers: [{name: panda, url: "http://127.0.0.1:9/", dialect: v1}]
queues: [{name: long, server: panda, panda_queue: Q, batch_queue: normal, nodes: 2, slots: 4, wanted: 1}]
"""


def reloader(path: Path) -> Reloader:
    path.write_text(SMALL)
    return Reloader(path, parse_config(SMALL, "c"), Path("/agent.pyz"), once=False)


def ask(reading: Reloader, path: Path) -> Command:
    return reading.parse(1, {"verb": "reload", "subject": str(path)})


def test_the_file_is_read_again_and_nothing_of_a_bad_one_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "pilot.yaml"
    reading = reloader(path)
    path.write_text(SMALL.replace("wanted: 1", "wanted: 5"))
    command = ask(reading, path)
    assert command.limits is not None and command.limits.queues["long"].wanted == 5
    assert command.lines == ("queues.long.wanted: 1 -> 5",)
    for text in (
        SMALL.replace("wanted: 1", "wanted: many"),
        SMALL.replace("wanted: 1", "wanted: 6").replace("server: sim", "server: two"),
        SMALL.replace("nodes: 2", "nodes: 2, features: x"),
    ):
        path.write_text(text)
        refused = ask(reading, path)
        assert refused.limits is None and refused.lines
    path.unlink()
    assert ask(reading, path).limits is None
    assert "nothing is changed" in ask(reading, tmp_path / "other.yaml").lines[0]


def test_new_limits_hold_from_the_next_tick_on_and_the_answer_says_so() -> None:
    limits = make_limits()
    rig, site = Rig(limits), Site([make_job(number) for number in range(1, 30)])
    from dataclasses import replace

    none = replace(limits, queues={"long": replace(limits.queues["long"], wanted=0)})
    rig.commands = (Command(1, "reload", limits=none, lines=("queues.long.wanted: 2 -> 0",)),)
    result = rig._step()
    assert result.limits is none
    rig.limits = result.limits
    rig.run(site.respond, 20, 30.0)
    assert not [event for event in rig.events if isinstance(event, BundlePlanned)]
    rig.commands = (Command(2, "reload", lines=("site: cannot change",)),)
    assert rig._step().limits is None


def test_the_loop_takes_commands_while_a_file_is_read() -> None:
    """A configuration on a filesystem that hangs keeps one connection waiting, not the daemon."""
    begun, go_on = threading.Event(), threading.Event()

    def parse(serial: int, request: Any) -> str:
        if request["verb"] == "reload":
            begun.set()
            go_on.wait(20)
        return str(request["verb"])

    desk = Desk(parse)
    thread = threading.Thread(target=desk.ask, args=({"verb": "reload"}, 20.0))
    thread.start()
    assert begun.wait(20)
    early: list[Any] = []
    taking = threading.Thread(target=lambda: early.append(desk.take()))
    taking.start()
    taking.join(5)
    go_on.set()
    assert early == [()]
    while not (taken := desk.take()):
        threading.Event().wait(0.01)
    desk.tell(1, True, ())
    thread.join(20)
    assert taken == ("reload",)
