"""report.html: what the evidence of a demo says, on one page without network. Pure; everything is escaped."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from simulators.demo.evidence import Evidence
from simulators.demo.summary import is_merge
from simulators.demo.timeline import make_timeline, render_timeline

STYLE = """
:root{color-scheme:light dark;--ok:#2e7d32;--bad:#c62828;--lost:#ef6c00;--line:#8888;--lane:#8882}
body{font:15px/1.45 system-ui,sans-serif;max-width:1020px;margin:1.5rem auto;padding:0 1rem}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:1.8rem}
table{border-collapse:collapse;margin:.4rem 0}th,td{border:1px solid var(--line);padding:.2rem .6rem;text-align:left}
td.n{text-align:right;font-variant-numeric:tabular-nums}
svg{width:100%;height:auto;font:11px system-ui,sans-serif}svg text{fill:currentColor}.tick{opacity:.7}
.lane{fill:var(--lane)}.finished{fill:var(--ok)}.failed{fill:var(--bad)}.lost{fill:var(--lost)}
.caldb{fill:#1565c0}.death{fill:var(--bad);opacity:.18}.dead text{fill:var(--bad);font-weight:bold}
.verdict{font-weight:bold;padding:.4rem .8rem;border-left:.4rem solid var(--ok)}.verdict.red{border-color:var(--bad)}
.key span{display:inline-block;width:.8em;height:.8em;margin:0 .3em 0 1em}
@media print{body{max-width:none}}
"""
HEADLINE = (
    "raw_files zero_event_files_skipped jobs_finished jobs_failed attempts attempts_charged bundles merge_jobs "
    "crosscheck archived caldb_backend caldb_started payloads_run payloads_run_twice leftovers wall_s"
).split()


def render_report(summary: Mapping[str, Any], evidence: Evidence, broken: Sequence[str]) -> str:
    """The whole page."""
    timeline = make_timeline(evidence)
    body = [
        "<h1>Edge Pilot demo</h1>",
        _verdict(broken),
        _table(("figure", "value"), [(name, summary.get(name)) for name in HEADLINE]),
        "<h2>Nodes and slots</h2>",
        _node_killed(summary),
        '<p class="key"><span class="finished" style="background:var(--ok)"></span>finished'
        '<span style="background:var(--bad)"></span>failed<span style="background:var(--lost)"></span>lost'
        '<span style="background:#1565c0"></span>calibration server ready</p>',
        render_timeline(timeline),
        "<h2>Events at each hop</h2>",
        _table(("run", "raw", "reconstructed", "merged"), _hops(summary, evidence)),
        "<h2>Stages of each run</h2>",
        _table(("run", "raw files with events", "chunks", "merge jobs", "files on tape"), _stages(evidence)),
        "<h2>Bundles in the batch system</h2>",
        _table(("batch job", "name", "submitted s", "started s", "over s", "nodes"), _bundles(evidence)),
        "<h2>Attempts</h2>",
        _table(("kind", "status", "pilot error code", "attempts"), _attempts(evidence)),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>Edge Pilot demo</title>'
        '<meta name="viewport" content="width=device-width"><link rel="icon" href="data:,">'
        f"<style>{STYLE}</style></head>\n<body>\n" + "\n".join(body) + "\n</body></html>\n"
    )


def _verdict(broken: Sequence[str]) -> str:
    if not broken:
        return '<p class="verdict">All conditions hold.</p>'
    items = "".join(f"<li>{escape(text)}</li>" for text in broken)
    return f'<div class="verdict red">Does not hold:<ul>{items}</ul></div>'


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    cells = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    lines = ["<table><thead><tr>" + cells + "</tr></thead><tbody>"]
    for row in rows:
        lines.append("<tr>" + "".join(_cell(value) for value in row) + "</tr>")
    return "\n".join([*lines, "</tbody></table>"])


def _cell(value: Any) -> str:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    text = "" if value is None else f"{value:.1f}" if isinstance(value, float) else str(value)
    return f'<td class="n">{escape(text)}</td>' if number else f"<td>{escape(text)}</td>"


def _node_killed(summary: Mapping[str, Any]) -> str:
    killed = summary.get("node_killed")
    if not killed:
        return "<p>No node died.</p>"
    return (
        f'<p id="dead-node">Node {escape(str(killed["node"]))} died at {escape(str(killed["at_s"]))} s: '
        f"{escape(str(killed['jobs_kept']))} jobs kept their result, "
        f"{escape(str(killed['jobs_returned']))} came back.</p>"
    )


def _run_of(name: str) -> str | None:
    """Run number in the name of a raw file or a product."""
    for pattern in (
        r"cdr\d+-(\d+)\.raw",
        r"mDST-(\d+)-",
        r"evtdump\d+-(?:\d{5}-)?(\d+)",
        r"histsum-(\d+)-",
        r"^(\d+)-\d+",
    ):
        if match := re.search(pattern, name):
            return match.group(1)
    return None


def _hops(summary: Mapping[str, Any], evidence: Evidence) -> list[tuple[Any, ...]]:
    raw: Counter[str] = Counter()
    chunks: Counter[str] = Counter()
    merged: Counter[str] = Counter()
    for name, events in evidence.raw_events.items():
        raw[_run_of(name) or "?"] += events
    for item in evidence.chunks:
        if item.events is not None:
            chunks[_run_of(item.name) or "?"] += item.events
    for tape in evidence.tape:
        if tape.events is not None:
            merged[_run_of(tape.name) or "?"] += tape.events
    rows: list[tuple[Any, ...]] = [
        (run, raw[run], chunks[run], merged[run]) for run in sorted(raw | chunks | merged)
    ]
    total = (
        "all",
        summary.get("events_raw"),
        summary.get("events_reconstructed"),
        summary.get("events_merged"),
    )
    return [*rows, total]


def _stages(evidence: Evidence) -> list[tuple[Any, ...]]:
    counts: dict[str, Counter[str]] = {}

    def add(run: str | None, what: str) -> None:
        counts.setdefault(run or "?", Counter())[what] += 1

    for name, events in evidence.raw_events.items():
        if events:
            add(_run_of(name), "raw")
    for item in evidence.chunks:
        if item.events is not None:
            add(_run_of(item.name), "chunks")
    for job in evidence.panda_jobs:
        if is_merge(job) and job["status"] == "finished":
            outputs = [str(entry["lfn"]) for entry in job["files"] if entry.get("type") == "output"]
            add(_run_of(outputs[0]) if outputs else None, "merges")
    for tape in evidence.tape:
        add(_run_of(tape.name), "tape")
    names = ("raw", "chunks", "merges", "tape")
    return [(run, *(found[name] for name in names)) for run, found in sorted(counts.items()) if run != "?"]


def _bundles(evidence: Evidence) -> list[tuple[Any, ...]]:
    zero = next((float(event["t"]) for event in evidence.batch_events if "t" in event), 0.0)
    jobs: dict[str, dict[str, Any]] = {}
    for event in evidence.batch_events:
        batch_id = event.get("job") or event.get("id") or event.get("batch_id")
        if batch_id is None:
            continue
        row = jobs.setdefault(str(batch_id), {})
        row.setdefault("name", event.get("name"))
        at_s = float(event.get("t", zero)) - zero
        match event.get("event"):
            case "submitted":
                row["submitted"] = at_s
            case "job_started":
                row["started"], row["nodes"] = at_s, event.get("nodes")
            case "job_over":
                row["over"] = at_s
    return [
        (
            batch_id,
            row.get("name"),
            row.get("submitted"),
            row.get("started"),
            row.get("over"),
            _nodes(row.get("nodes")),
        )
        for batch_id, row in jobs.items()
        if "submitted" in row
    ]


def _nodes(value: Any) -> str:
    return ", ".join(str(item) for item in value) if isinstance(value, list | tuple) else str(value or "")


def _attempts(evidence: Evidence) -> list[tuple[Any, ...]]:
    found = Counter(
        (
            str(job["attributes"].get("transformation")),
            str(job["status"]),
            str(job["attributes"].get("pilotErrorCode") or ""),
        )
        for job in evidence.panda_jobs
    )
    return [(*key, count) for key, count in sorted(found.items())]
