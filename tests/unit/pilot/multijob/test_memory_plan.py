"""Slots are planned from the memory of a node; the batch job still asks for all of its cores."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from rig import Rig, Site, make_job, make_limits

from pilot.config import parse_config
from pilot.multijob.packing import AGENT_MIB, SERVER_MIB, planned_slots
from pilot.multijob.script import render_manifest, render_script
from pilot.ports import BatchRequest
from pilot.rotation import wiring
from pilot.rotation.wiring import WiringError

ROOT = Path(__file__).parents[4]


@pytest.mark.parametrize(
    ("usable_mib", "memory_mib", "snapshot_mib", "slots"),
    [
        (None, 2000, 300, 32),
        (62000, None, 300, 32),
        (62000, 1900, 300, 32),
        (62000, 2000, 300, 30),
        (20 * 1000 + AGENT_MIB, 1000, 0, 20),
        (20 * 1000 + AGENT_MIB - 1, 1000, 0, 19),
        (20 * 1000 + AGENT_MIB + SERVER_MIB + 300, 1000, 300, 20),
        (20 * 1000 + AGENT_MIB + SERVER_MIB + 299, 1000, 300, 19),
        (500, 1000, 0, 0),
        (100, 1000, 0, 0),
    ],
)
def test_slots_without_room_in_memory_stay_empty(
    usable_mib: int | None, memory_mib: int | None, snapshot_mib: int, slots: int
) -> None:
    assert planned_slots(32, usable_mib, memory_mib, snapshot_mib) == slots


def limits_of(memory_mib: int, caldb_mib: int | None, monkeypatch: pytest.MonkeyPatch) -> wiring.Limits:
    text = (ROOT / "pilot/sites/bluewaters.yaml").read_text().replace("@BASE@", "/base")
    text = text.replace("@PYTHON@", "/usr/bin/python3").replace(
        "memory_mib: null ", f"memory_mib: {memory_mib} ", 1
    )
    if caldb_mib is not None:
        monkeypatch.setattr(wiring, "load_caldb", lambda section, queue=None: {"size": caldb_mib << 20})
    return wiring.make_limits(parse_config(text, "bluewaters"), Path("/agent"), once=False)


def test_the_plan_of_a_queue_takes_its_snapshot_into_account(monkeypatch: pytest.MonkeyPatch) -> None:
    without = limits_of(2000, None, monkeypatch).queues["long"]
    assert (without.slots, without.cores, without.bundle_jobs) == (30, 32, 16 * 30)
    assert limits_of(2000, 3000, monkeypatch).queues["long"].slots == 29


def test_a_payload_that_fits_nowhere_is_told_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(WiringError, match="memory_mib 70000 does not fit"):
        limits_of(70000, None, monkeypatch)


def test_the_batch_job_asks_for_all_cores_and_agents_use_the_planned_slots() -> None:
    asked: list[int] = []

    def directives(request: BatchRequest) -> str:
        asked.append(request.slots_per_node)
        return ""

    limits = make_limits()
    queue = replace(limits.queues["long"], cores=32)
    site = replace(
        limits.site,
        directives=directives,
        launch=lambda index, slots: ("aprun", "-d", str(slots)),
        bind="cores",
    )
    rig = Rig(replace(limits, queues={"long": queue}, site=site))
    hands = Site([make_job(number) for number in range(1, 5)])
    rig.run(hands.respond, 6)
    [bundle] = rig.state.bundles.values()
    manifest = json.loads(render_manifest(rig.state, bundle, rig.limits))
    render_script(bundle, 1, rig.limits)
    assert (manifest["slots"], manifest["bind"], set(asked)) == (2, "cores", {32})
    assert manifest["launch"][0] == ["aprun", "-d", "32"]
