"""The slots of every node over time, as inline SVG. Pure: evidence in, text out; everything is escaped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from html import escape
from typing import Any

from simulators.demo.evidence import Evidence, NodeJournal
from simulators.demo.summary import rank_of

LANE_PX, GAP_PX, LEFT_PX, WIDTH_PX = 16, 10, 110, 980


@dataclass(frozen=True, slots=True)
class Bar:
    """One payload in one slot of one node; times in seconds since the batch server's start."""

    node: str
    slot: int
    start_s: float
    end_s: float
    outcome: str
    label: str


@dataclass(frozen=True, slots=True)
class Timeline:
    """All bars, when each node died, calibration servers that became ready, and the end of the picture."""

    bars: tuple[Bar, ...]
    died: Mapping[str, float]
    caldb: tuple[tuple[str, float], ...]
    end_s: float


def utc_s(text: str) -> float:
    """Seconds since 1970 of a record's time."""
    return datetime.fromisoformat(text).timestamp()


def make_timeline(evidence: Evidence) -> Timeline:
    """Bars from the node journals; nodes by the batch server's names."""
    names = {}
    for event in evidence.batch_events:
        if event.get("event") == "rank_started":
            names[rank_of(event.get("argv", []))] = str(event.get("node"))
    times = [utc_s(event["utc"]) for event in evidence.batch_events if "utc" in event]
    zero_s = min(times, default=0.0)
    died = {
        str(event.get("node")): utc_s(event["utc"]) - zero_s
        for event in evidence.batch_events
        if event.get("event") == "node_died"
    }
    bars: list[Bar] = []
    caldb: list[tuple[str, float]] = []
    for journal in evidence.journals:
        node = names.get((journal.bundle, journal.node), f"{journal.bundle}/{journal.node}")
        bars += _bars(journal, node, zero_s, died.get(node))
        caldb += [
            (node, utc_s(body["utc"]) - zero_s) for kind, body in journal.lines if kind == "caldb_ready"
        ]
    end_s = max([bar.end_s for bar in bars] + list(died.values()), default=1.0)
    return Timeline(tuple(bars), died, tuple(caldb), end_s)


def _bars(journal: NodeJournal, node: str, zero_s: float, died_s: float | None) -> list[Bar]:
    started: dict[int, dict[str, Any]] = {}
    found = []
    last_s = 0.0
    for kind, body in journal.lines:
        last_s = utc_s(body["utc"]) - zero_s
        if kind == "job_started":
            started[body["panda_id"]] = body
        elif kind == "job_ended" and (start := started.pop(body["panda_id"], None)) is not None:
            good = body.get("exit_code") == 0 and not body.get("ended_by")
            outcome = "finished" if good else "failed"
            label = f"PanDA job {body['panda_id']}: {outcome}, {body.get('wall_s', 0):.1f} s on {node}"
            found.append(Bar(node, int(body["slot"]), utc_s(start["utc"]) - zero_s, last_s, outcome, label))
    for panda_id, start in started.items():
        end_s = died_s if died_s is not None else last_s
        label = f"PanDA job {panda_id}: started on {node}, no end was written"
        found.append(Bar(node, int(start["slot"]), utc_s(start["utc"]) - zero_s, end_s, "lost", label))
    return found


def render_timeline(timeline: Timeline) -> str:
    """One lane for each slot of each node."""
    nodes = sorted({bar.node for bar in timeline.bars} | set(timeline.died))
    slots = {
        node: max([bar.slot for bar in timeline.bars if bar.node == node], default=0) + 1 for node in nodes
    }
    tops: dict[str, int] = {}
    top = 4
    for node in nodes:
        tops[node] = top
        top += slots[node] * LANE_PX + GAP_PX
    scale = (WIDTH_PX - LEFT_PX - 10) / max(timeline.end_s, 0.001)
    parts = [
        f'<svg viewBox="0 0 {WIDTH_PX} {top + 24}" role="img" aria-labelledby="tl-title tl-desc">',
        '<title id="tl-title">Slots of every node over time</title>',
        f'<desc id="tl-desc">{len(timeline.bars)} payloads on {len(nodes)} nodes</desc>',
    ]
    for node in nodes:
        parts += _lane(timeline, node, slots[node], tops[node], scale)
    parts += _axis(timeline.end_s, top, scale)
    return "\n".join([*parts, "</svg>"])


def _lane(timeline: Timeline, node: str, slots: int, top: int, scale: float) -> list[str]:
    height = slots * LANE_PX
    dead = node in timeline.died
    mark = " dead" if dead else ""
    lines = [
        f'<g class="node{mark}" data-node="{escape(node)}">',
        f'<text x="4" y="{top + height / 2 + 4}">{escape(node)}{" †" if dead else ""}</text>',
        f'<rect class="lane" x="{LEFT_PX}" y="{top}" width="{WIDTH_PX - LEFT_PX - 10}" height="{height}"/>',
    ]
    for bar in (bar for bar in timeline.bars if bar.node == node):
        x, y = LEFT_PX + bar.start_s * scale, top + bar.slot * LANE_PX + 2
        width = max(1.5, (bar.end_s - bar.start_s) * scale)
        lines.append(
            f'<rect class="bar {bar.outcome}" x="{x:.1f}" y="{y}" width="{width:.1f}" height="{LANE_PX - 4}">'
            f"<title>{escape(bar.label)}</title></rect>"
        )
    for name, at_s in timeline.caldb:
        if name == node:
            x = LEFT_PX + at_s * scale
            lines.append(
                f'<path class="caldb" d="M{x:.1f} {top} l4 -4 l-8 0 z"><title>calibration server ready</title></path>'
            )
    if dead:
        x = LEFT_PX + timeline.died[node] * scale
        lines.append(
            f'<rect class="death" x="{x:.1f}" y="{top}" width="{max(0.0, WIDTH_PX - 10 - x):.1f}" height="{height}">'
            f"<title>{escape(node)} died at {timeline.died[node]:.1f} s</title></rect>"
        )
    return [*lines, "</g>"]


def _axis(end_s: float, top: int, scale: float) -> list[str]:
    step = next(
        step for step in (1, 2, 5, 10, 20, 50, 100, 1000, 10000) if end_s / step <= 12 or step == 10000
    )
    ticks = []
    for number in range(int(end_s // step) + 1):
        x = LEFT_PX + number * step * scale
        ticks.append(f'<text class="tick" x="{x:.1f}" y="{top + 14}">{number * step} s</text>')
    return ticks
