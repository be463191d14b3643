"""A node that failed twice in a day is named in the manifest and in the status, until a day after the last time."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from rig import START, Rig, Site, make_job, make_limits

from pilot.monitor.status import render_status, render_text
from pilot.multijob import actions as a
from pilot.multijob.apply import apply, replay
from pilot.multijob.codec import decode
from pilot.multijob.events import NodeFailed
from pilot.multijob.model import State
from pilot.multijob.recognise import Now
from pilot.multijob.sicknodes import FAILURES_KEPT, avoided
from pilot.ports import BundleId

LIMITS = make_limits()
HOUR = timedelta(hours=1)


def failed(hours: float, host: str = "nid7", bundle: str = "b", reason: str = "quick failures") -> NodeFailed:
    return NodeFailed((START + hours * HOUR).isoformat(), host, BundleId(bundle), "node.0.x.journal", reason)


def at(hours: float) -> str:
    return (START + hours * HOUR).isoformat()


def state_after(*events: NodeFailed) -> State:
    state = State()
    for event in events:
        apply(state, event)
    return state


@pytest.mark.parametrize(
    ("hours", "now", "count"),
    [
        ((0.0,), 1.0, 0),
        ((0.0, 2.0), 3.0, 1),
        ((0.0, 2.0), 25.9, 1),
        ((0.0, 2.0), 26.0, 0),
        ((0.0, 24.1), 25.0, 0),
        ((0.0, 24.1, 40.0), 41.0, 1),
    ],
)
def test_two_failures_within_a_day_until_a_day_after_the_last(hours, now, count):
    assert len(avoided(state_after(*(failed(hour) for hour in hours)), at(now), LIMITS)) == count


def test_reason_and_end_are_told_and_other_nodes_are_not_named():
    state = state_after(failed(0.0), failed(1.0, reason="no calibration server"), failed(1.0, host="nid8"))
    [found] = avoided(state, at(2.0), LIMITS)
    assert found == ("nid7", "failed 2 times, last: no calibration server", at(25.0))


def test_of_a_node_only_the_newest_failures_are_kept():
    state = state_after(*(failed(hour / 100) for hour in range(FAILURES_KEPT + 5)))
    assert len(state.nodes["nid7"]) == FAILURES_KEPT
    assert state.nodes["nid7"][-1].at == failed((FAILURES_KEPT + 4) / 100).at


class Sick(Site):
    """The agent of a bundle's first node ends with this reason on nid7."""

    def __init__(self, reason: str) -> None:
        super().__init__([make_job(n) for n in range(1, 5)])
        self.reason = reason
        self.manifests: list[str] = []

    def respond(self, action: a.Action) -> object:
        if isinstance(action, a.PrepareBundle):
            self.manifests.append(action.render().manifest)
        return super().respond(action)

    def fall(self, bundle_id: BundleId, host: str = "nid7") -> None:
        body = {"reason": self.reason, "host": host, "left_behind": 0, "foreign": 0}
        self.lines[bundle_id] = [("agent_ended", body)]


def fallen(reason: str, host: str = "nid7") -> tuple[Rig, Sick]:
    core, site = Rig(LIMITS), Sick(reason)
    core.run(site.respond, 40)
    [batch_id], [bundle_id] = site.batch, core.state.bundles
    site.start(batch_id)
    site.fall(bundle_id, host)
    core.run(site.respond, 20)
    return core, site


@pytest.mark.parametrize(
    "reason",
    ["quick failures", "no calibration server", "no set-up", "probe failed: x", "no local directory: full"],
)
def test_an_end_for_the_nodes_sake_is_journalled_once_for_each_journal(reason):
    core, site = fallen(reason)
    kinds = [event for event in core.events if isinstance(event, NodeFailed)]
    assert [(event.host, event.reason) for event in kinds] == [("nid7", reason)]
    # The same lines are read again, as after a damaged byte: nothing new is learnt.
    for bundle in core.state.bundles.values():
        bundle.offsets.clear()
    core.run(site.respond, 20)
    assert len(core.state.nodes["nid7"]) == 1


@pytest.mark.parametrize("reason", ["list worked", "closed", "terminated", "deadline", "journal: quota"])
def test_an_end_for_any_other_sake_is_no_failure_of_the_node(reason):
    assert fallen(reason)[0].state.nodes == {}


@pytest.mark.parametrize("host", ["", "a b", "x\n", "h" * 300, 7, None])
def test_a_name_that_no_host_has_is_no_node(host):
    assert fallen("quick failures", host)[0].state.nodes == {}


def test_it_survives_a_restart_and_stands_in_status_and_in_the_next_manifest():
    core, _ = fallen("quick failures")
    state = replay(decode(record) for record in core.durable)
    assert state.nodes == core.state.nodes
    known = State(nodes=state_after(failed(0.0), failed(0.0, bundle="c")).nodes)
    document = render_status(known, core.memory, LIMITS, (), Now(at(1.0), 0.0), version="0")
    assert [node["host"] for node in document["avoided_nodes"]] == ["nid7"]
    assert "node nid7 probes before its first payload until 2026-01-02" in render_text(document)
    core, site = Rig(LIMITS, known), Sick("list worked")
    core.run(site.respond, 40)
    manifest = json.loads(site.manifests[0])
    assert manifest["avoided"] == {"nid7": "failed 2 times, last: quick failures"}
