"""What is left of the allocation: asked for only where a command is configured, an alarm in time, nothing held back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from rig import Rig, Site, make_job, make_limits

from pilot.configkeys import AllocationSection
from pilot.monitor.status import render_status, render_text
from pilot.multijob import actions as a
from pilot.multijob.recognise import Now
from pilot.ports import AllocationLeft, Broken, Unavailable
from pilot.rotation.allocation import look_at_allocation
from pilot.rotation.surroundings import parse_allocation

NUMBER = AllocationSection().pattern


@pytest.mark.parametrize(
    ("text", "pattern", "left"),
    [
        ("Project abc\nleft: 12,345.5 node hours\n", r"left: *([0-9.,]+)", 12345.5),
        ("1,000\n", NUMBER, 1000.0),
        ("overdrawn by you: -3\n", NUMBER, -3.0),
        ("nothing", NUMBER, None),
        ("left: ...", r"left: *([0-9.,]+)", None),
        ("x", r"x|(y)", None),
        ("9" * 400, NUMBER, None),
    ],
)
def test_the_number_left_is_the_first_group(text: str, pattern: str, left: float | None) -> None:
    assert parse_allocation(text, pattern) == left


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("echo left: 64", AllocationLeft(2.0)),
        ("echo nothing", Broken),
        ("echo 64; exit 3", Unavailable),
        ("sleep 30", Unavailable),
    ],
)
def test_a_command_that_fails_or_hangs_tells_nothing(tmp_path: Path, body: str, says: Any) -> None:
    command = tmp_path / "left"
    command.write_text(f"#!/bin/sh\n{body}\n")
    command.chmod(0o755)
    section = AllocationSection(
        argv=[str(command)], node_hours_per_unit=1 / 32, timeout_s=0.5 if "sleep" in body else 20.0
    )
    found = look_at_allocation(section)
    assert found == says if isinstance(says, AllocationLeft) else isinstance(found, says)


def test_without_a_command_nobody_asks() -> None:
    rig, site = Rig(), Site([])
    assert not [x for x in rig.run(site.respond, 10, 3600.0) if isinstance(x, a.LookAtAllocation)]
    assert isinstance(look_at_allocation(AllocationSection()), Unavailable)


def test_little_left_is_an_alarm_until_there_is_more_and_holds_nothing_back() -> None:
    rig = Rig(make_limits(allocation_look_s=3600.0, allocation_warn_node_h=100.0))
    site, left = Site([make_job(number) for number in range(1, 5)]), [100.0]

    def respond(action: Any) -> Any:
        return AllocationLeft(left[0]) if isinstance(action, a.LookAtAllocation) else site.respond(action)

    seen = rig.run(respond, 20, 5.0)
    assert len([x for x in seen if isinstance(x, a.LookAtAllocation)]) == 1
    assert "100.0 node-hours are left" in rig.memory.alarms["allocation-low"].reason
    assert rig.state.totals["long"].bundles == 1
    document = render_status(
        rig.state, rig.memory, rig.limits, (), Now("2026-01-01T00:00:00+00:00", rig.now_s), version="1"
    )
    assert "allocation: 100.0 node-hours left" in render_text(document)
    left[0] = 101.0
    rig.run(respond, 2, 3600.0)
    assert "allocation-low" not in rig.memory.alarms
