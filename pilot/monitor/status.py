"""The status document: what `pilot status` shows, made from state and memory. Pure; holds no job text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from pilot.multijob.credential import seconds_left
from pilot.multijob.memory import Memory
from pilot.multijob.model import Bundle, JobState, Limits, QueueSpec, QueueTotals, State
from pilot.multijob.nodehours import HOUR_S
from pilot.multijob.recognise import Now
from pilot.multijob.sicknodes import avoided
from pilot.ports import Credential, LaneAge
from pilot.rotation.caps import shown
from pilot.rotation.census import is_live, is_queued
from pilot.rotation.policy import held_fetch, held_plan
from pilot.rotation.tasks import shown_tasks
from pilot.rotation.turns import held_in_common

SCHEMA = 1


def render_status(
    state: State,
    memory: Memory,
    limits: Limits,
    lanes: Sequence[LaneAge],
    now: Now,
    *,
    version: str,
    ticks: Mapping[str, float] | None = None,
    pid: int = 0,
) -> dict[str, Any]:
    """A JSON-able document; every "nothing was done" has its reason. `ticks`: how long they take; `pid`: of the daemon.

    `login_node` is for whoever asks: the daemon looks at no quota.
    """
    return {
        "schema": SCHEMA,
        "version": version,
        "pid": pid,
        "utc": now.utc,
        "epoch": memory.epoch,
        "site": limits.site.name,
        "fencing": "weak" if limits.protocol.weak else "link",
        "ticks": dict(ticks or {}),
        "queues": [_queue(state, memory, queue, now, limits) for queue in limits.queues.values()],
        "others_waiting": memory.others_waiting,
        "orders_held": _orders_held(state, memory),
        "tasks": shown_tasks(state, now.utc, limits),
        "avoided_nodes": [item._asdict() for item in avoided(state, now.utc, limits)],
        "bundles": [_bundle(bundle, memory) for bundle in state.bundles.values()],
        "lanes": [
            {
                "lane": lane.lane,
                "waiting": lane.waiting,
                "under_way_s": lane.under_way_s,
                "last_failure": lane.last_failure,
            }
            for lane in lanes
        ],
        "credentials": [
            _credential(server, memory.credentials.get(server), now) for server in sorted(limits.credentials)
        ],
        "space": {
            name: {"free_mib": seen.free_mib, "free_inodes": seen.free_inodes}
            for name, seen in memory.space.items()
        },
        "allocation": (
            {"left_node_h": memory.allocation[0], "at": memory.allocation[1]} if memory.allocation else None
        ),
        "journal": {"recorded": memory.recorded, "durable": memory.durable, "held_actions": len(memory.held)},
        "alarms": [
            {"name": name, "reason": alarm.reason, "for_s": round(now.mono_s - alarm.since_s, 1)}
            for name, alarm in sorted(memory.alarms.items())
        ],
    }


def _queue(state: State, memory: Memory, queue: QueueSpec, now: Now, limits: Limits) -> dict[str, Any]:
    counts = {job_state.value: state.counts.get((queue.name, job_state), 0) for job_state in JobState}
    totals = state.totals.get(queue.name, QueueTotals())
    live = [b for b in state.bundles.values() if b.queue == queue.name and is_live(b)]
    return {
        "name": queue.name,
        "panda_queue": queue.panda_queue,
        "batch_queue": queue.batch_queue,
        "wanted": queue.wanted,
        "live": len(live),
        "waiting": sum(is_queued(memory, bundle) for bundle in live),
        "share": queue.share,
        "deficit_node_h": round(state.deficits.get(queue.name, 0.0) / HOUR_S, 3),
        "jobs": counts,
        "totals": {
            "fetched": totals.fetched,
            "bundles": totals.bundles,
            "finished": totals.finished,
            "failed": totals.failed,
            "returned": totals.returned,
        },
        "node_hours": shown(state, queue, now.utc),
        "no_fetch_because": held_fetch(state, memory, queue, now, limits),
        "no_bundle_because": held_plan(state, memory, queue, now, limits)
        or held_in_common(state, memory, now, limits),
    }


def _orders_held(state: State, memory: Memory) -> dict[str, int]:
    """By queue: jobs that were ordered to end together with many others, and wait for `pilot confirm-kill`."""
    queues = (state.jobs[key].queue for key in memory.kills_held if key in state.jobs)
    return dict(sorted(Counter(queues).items()))


def _credential(server: str, found: Credential | str | None, now: Now) -> dict[str, Any]:
    """Of a credential: whose, where and until when; nothing of its content."""
    if isinstance(found, Credential):
        left_s = round(seconds_left(found, now.utc), 1)
        ends_at = found.ends_at.isoformat()
        return {
            "server": server,
            "path": found.path,
            "ends_at": ends_at,
            "left_s": left_s,
            "not_usable_because": None,
        }
    reason = found or "not read yet"
    return {"server": server, "path": None, "ends_at": None, "left_s": None, "not_usable_because": reason}


def _bundle(bundle: Bundle, memory: Memory) -> dict[str, Any]:
    current = bundle.current
    return {
        "bundle_id": bundle.bundle_id,
        "queue": bundle.queue,
        "state": bundle.state.value,
        "round": current.number if current else 0,
        "round_state": current.state.value if current else "",
        "batch_ids": list(current.owners) if current else [],
        "nodes": len(bundle.nodes),
        "jobs": sum(len(node) for node in bundle.nodes),
        "failures": bundle.failures,
        "walltime_s": bundle.walltime_s,
        "evidence_failed": memory.evidence_failed.get(bundle.bundle_id, ""),
    }


def render_summary(document: Mapping[str, Any]) -> dict[str, Any]:
    """What the daemon tells a receiver outside: counts and names, no path, no reason, no text of a job."""
    queues = [
        {
            "name": queue["name"],
            "panda_queue": queue["panda_queue"],
            "wanted": queue["wanted"],
            "live": queue["live"],
            "running": queue["jobs"][JobState.STARTED.value],
            "jobs": queue["jobs"],
            "totals": queue["totals"],
        }
        for queue in document["queues"]
    ]
    alarms = [{"name": alarm["name"], "for_s": alarm["for_s"]} for alarm in document["alarms"]]
    kept = {name: document[name] for name in ("schema", "version", "utc", "epoch", "site")}
    return {**kept, "queues": queues, "alarms": alarms}


def render_text(document: Mapping[str, Any]) -> str:
    """The document for a terminal: one line per queue, bundle, busy lane and alarm."""
    lines = [f"{document['site']}  epoch {document['epoch']}  {document['utc']}"]
    if document["fencing"] == "weak":
        lines.append(
            "weak fencing: link(2) is not exclusive here; each start marks its round, waits and looks"
        )
    for queue in document["queues"]:
        jobs = " ".join(f"{name} {count}" for name, count in queue["jobs"].items() if count)
        totals = queue["totals"]
        lines.append(
            f"queue {queue['name']}: {queue['live']} of {queue['wanted']} pilots live, "
            f"{queue['waiting']} of them wait; {jobs or 'no open jobs'}; "
            f"finished {totals['finished']}, failed {totals['failed']}, bundles {totals['bundles']}"
        )
        lines += [f"  node-hours: {text}" for text in _node_hours(queue["node_hours"])]
        for what in ("no_fetch_because", "no_bundle_because"):
            if queue[what]:
                lines.append(f"  {what.replace('_', ' ')}: {queue[what]}")
    lines += [f"{t['waits_because']} ({t['name']})" for t in document["tasks"] if t["waits_because"]]
    lines += [
        f"queue {name}: {count} jobs are ordered to end and held: `pilot confirm-kill` ends them"
        for name, count in document["orders_held"].items()
    ]
    if document["others_waiting"]:
        lines.append(f"{document['others_waiting']} other batch jobs of this user wait")
    if document["allocation"] is not None:
        left = document["allocation"]
        lines.append(f"allocation: {left['left_node_h']:.1f} node-hours left, as told at {left['at']}")
    for item in document["credentials"]:
        until = f"ends {item['ends_at']}, in {item['left_s'] / 3600:.1f} h" if item["ends_at"] else ""
        lines.append(f"credential of {item['server']}: {until or item['not_usable_because']}")
    lines += [
        f"node {node['host']} probes before its first payload until {node['until']}: {node['reason']}"
        for node in document["avoided_nodes"]
    ]
    for bundle in document["bundles"]:
        ids = ", ".join(bundle["batch_ids"]) or "no batch id"
        lines.append(
            f"bundle {bundle['bundle_id']}.{bundle['round']} {bundle['state']} {bundle['round_state']} ({ids}): "
            f"{bundle['jobs']} jobs on {bundle['nodes']} nodes, {bundle['failures']} failed"
        )
    for lane in document["lanes"]:
        if lane["under_way_s"] is not None or lane["waiting"] or lane["last_failure"]:
            age = f"{lane['under_way_s']:.1f} s under way" if lane["under_way_s"] is not None else "idle"
            lines.append(
                f"lane {lane['lane']}: {age}, {lane['waiting']} waiting {lane['last_failure']}".rstrip()
            )
    lines += [
        f"login node: {check['what']}: {'' if check['holds'] else 'NO: '}{check['detail'] or 'ok'}"
        for check in document.get("login_node", ())
    ]
    lines += [f"ALARM {a['name']}: {a['reason']} (for {a['for_s']:.0f} s)" for a in document["alarms"]]
    return "\n".join(lines) + "\n"


def _node_hours(hours: Mapping[str, Any]) -> list[str]:
    """One text, none where nothing was used and no cap stands."""
    if not any(hours.values()) and hours["left"] is None and hours["left_today"] is None:
        return []
    parts = [
        f"{words} used {hours[f'used{day}']:.2f}, committed {hours[f'committed{day}']:.2f}, "
        + ("no cap" if hours[f"left{day}"] is None else f"left {hours[f'left{day}']:.2f}")
        for words, day in (("today", "_today"), ("in all", ""))
    ]
    return ["; ".join(parts)]
