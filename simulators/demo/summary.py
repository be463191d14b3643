"""Evidence -> summary.json and the list of conditions that do not hold. Pure."""

from __future__ import annotations

import re
import shlex
from collections import Counter, defaultdict
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from simulators.demo.evidence import Evidence, NodeJournal

PLACEHOLDER_BYTES = 33
_CHUNK_MDST = re.compile(r"mDST-(\d+)-(\d+)-\d+-\d+\.a(\d+)\.root")
_CHUNK_DUMP = re.compile(r"evtdump\d+-(\d+)-(\d+)\.a(\d+)\.raw")
_MERGED_MDST = re.compile(r"mDST-(\d+)-\d+-\d+\.root(\.\d{3})?")
_MERGED_DUMP = re.compile(r"evtdump\d+-(\d+)\.raw(\.\d{3})?")


def work_of(job: Mapping[str, Any]) -> str:
    """The work key in a PanDA job's parameters."""
    for word in shlex.split(str(job["attributes"].get("jobParameters", ""))):
        if word.startswith("PRODSYS_WORK="):
            return word.partition("=")[2]
    return str(job["job_name"])


def is_merge(job: Mapping[str, Any]) -> bool:
    """Whether this PanDA job merges."""
    return str(job["attributes"].get("transformation", "")).startswith("merging")


def is_charged(job: Mapping[str, Any], own_codes: frozenset[int]) -> bool:
    """Whether the attempt ended by the job's own doing, success included."""
    if job["status"] == "finished":
        return True
    return job["status"] == "failed" and int(job["attributes"].get("pilotErrorCode") or 0) in own_codes


def summarise(
    evidence: Evidence, leftovers: list[str], wall_s: float, own_codes: frozenset[int]
) -> dict[str, Any]:
    """The summary, from evidence only."""
    reconstruct = [job for job in evidence.panda_jobs if not is_merge(job)]
    merges = [job for job in evidence.panda_jobs if is_merge(job)]
    works: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for job in reconstruct:
        works[work_of(job)].append(job)
    finished = {work for work, jobs in works.items() if any(job["status"] == "finished" for job in jobs)}
    ready = [
        float(body["ready_s"])
        for journal in evidence.journals
        for kind, body in journal.lines
        if kind == "caldb_ready"
    ]
    backends = {
        str(body["backend"])
        for journal in evidence.journals
        for kind, body in journal.lines
        if kind == "caldb_ready"
    }
    mdst = accepted_chunks(evidence, reconstruct)
    merged = [item for item in evidence.tape if _MERGED_MDST.fullmatch(item.name)]
    return {
        "raw_files": len(evidence.raw_events),
        "zero_event_files_skipped": sum(1 for count in evidence.raw_events.values() if count == 0),
        "jobs_finished": len(finished),
        "jobs_failed": len(works) - len(finished),
        "attempts": len(reconstruct),
        "attempts_charged": sum(is_charged(job, own_codes) for job in reconstruct),
        "bundles": len(evidence.bundles),
        "events_raw": sum(evidence.raw_events.values()),
        "events_reconstructed": sum(events for _, events in mdst.values()),
        "events_merged": sum(item.events or 0 for item in merged),
        "merge_jobs": len({work_of(job) for job in merges if job["status"] == "finished"}),
        "merged_files": [
            {"name": item.name, "bytes": item.bytes, "events": item.events}
            for item in evidence.tape
            if not item.name.endswith((".tar", ".tgz", ".tarz", ".gz"))
        ],
        "crosscheck": "yes" if not crosscheck(evidence, mdst, reconstruct) else "no",
        "crosscheck_problems": crosscheck(evidence, mdst, reconstruct),
        "archived": bool(merged)
        and all(item.confirmed for item in evidence.tape)
        and not evidence.intermediates_left
        and any(item.name.endswith((".tar", ".tgz", ".tarz", ".gz")) for item in evidence.tape),
        "node_killed": node_killed(evidence),
        "caldb_backend": ",".join(sorted(backends)) or "none",
        "caldb_started": len(ready),
        "caldb_ready_s": {"p50": _median(ready), "max": max(ready, default=None)},
        "payloads_run": evidence.traces,
        "payloads_run_twice": evidence.runs_twice,
        "leftovers": len(leftovers),
        "left_behind": leftovers,
        "wall_s": round(wall_s, 1),
    }


def accepted_chunks(
    evidence: Evidence, reconstruct: list[dict[str, Any]]
) -> dict[tuple[str, str], tuple[str, int]]:
    """(run, chunk) -> (name, entries) of the chunk mDSTs that PanDA has as finished."""
    declared = {
        str(entry["lfn"]) for job in reconstruct if job["status"] == "finished" for entry in job["files"]
    }
    found = {}
    for item in evidence.chunks:
        match = _CHUNK_MDST.fullmatch(item.name)
        if match and item.name in declared:
            found[(match.group(1), match.group(2))] = (item.name, item.events or 0)
    return found


def crosscheck(
    evidence: Evidence,
    mdst: Mapping[tuple[str, str], tuple[str, int]],
    reconstruct: list[dict[str, Any]],
) -> list[str]:
    """Differences between chunks and merged files: entries of mDSTs, bytes of dumps. Nothing merged is one, too."""
    declared = {
        str(entry["lfn"]) for job in reconstruct if job["status"] == "finished" for entry in job["files"]
    }
    expected: Counter[str] = Counter()
    for (run, _), (_, events) in mdst.items():
        expected[f"events of run {run}"] += events
    for item in evidence.chunks:
        match = _CHUNK_DUMP.fullmatch(item.name)
        if match and item.name in declared and item.bytes != PLACEHOLDER_BYTES:
            expected[f"dump bytes of run {match.group(2)}"] += item.bytes
    merged: Counter[str] = Counter()
    for tape in evidence.tape:
        if match := _MERGED_MDST.fullmatch(tape.name):
            merged[f"events of run {match.group(1)}"] += tape.events or 0
        elif match := _MERGED_DUMP.fullmatch(tape.name):
            merged[f"dump bytes of run {match.group(1)}"] += tape.bytes
    problems = [
        f"{what}: {expected[what]} in chunks, {merged[what]} merged"
        for what in sorted(expected | merged)
        if expected[what] != merged[what]
    ]
    return problems or ([] if expected else ["no chunk was found"])


def node_killed(evidence: Evidence) -> dict[str, Any] | None:
    """The node that died, with the jobs that kept their result and those that came back."""
    died = next((event for event in evidence.batch_events if event.get("event") == "node_died"), None)
    if died is None:
        return None
    started = [
        event
        for event in evidence.batch_events
        if event.get("event") == "rank_started" and event.get("node") == died.get("node")
    ]
    last = started[-1] if started else {}
    bundle, index = rank_of(last.get("argv", []))
    journals = [item for item in evidence.journals if item.bundle == bundle and item.node == index]
    first = next((event for event in evidence.batch_events if event.get("event") == "server_started"), {})
    at_s = round(float(died["t"]) - float(first.get("t", died["t"])), 1)
    kept, returned = _fates(journals)
    return {
        "node": died.get("node"),
        "at_s": at_s,
        "bundle": bundle,
        "jobs_kept": kept,
        "jobs_returned": returned,
    }


def rank_of(argv: list[str]) -> tuple[str, int]:
    """Bundle and node index in the argv of an agent."""
    values = dict(pairwise(argv))
    return str(values.get("--bundle", "")).rstrip("/").rpartition("/")[2], int(values.get("--node", -1))


def _fates(journals: list[NodeJournal]) -> tuple[int, int]:
    ended = {body["panda_id"] for item in journals for kind, body in item.lines if kind == "job_ended"}
    started = {body["panda_id"] for item in journals for kind, body in item.lines if kind == "job_started"}
    return len(ended), len(started - ended)


def _median(values: list[float]) -> float | None:
    ordered = sorted(values)
    return ordered[(len(ordered) - 1) // 2] if ordered else None


def broken_conditions(
    summary: Mapping[str, Any], *, raw_files: int, jobs: int, bundles_min: int, node_fault: bool, backend: str
) -> list[str]:
    """Every condition that does not hold, one sentence each."""

    def unless(holds: bool, text: str) -> list[str]:
        return [] if holds else [text]

    def equals(name: str, expected: Any) -> list[str]:
        return unless(summary[name] == expected, f"{name} is {summary[name]!r}, expected {expected!r}")

    found = [
        *equals("raw_files", raw_files),
        *equals("zero_event_files_skipped", raw_files - jobs),
        *equals("jobs_finished", jobs),
        *equals("jobs_failed", 0),
        *equals("attempts_charged", jobs),
        *equals("events_reconstructed", summary["events_raw"]),
        *equals("events_merged", summary["events_raw"]),
        *equals("crosscheck", "yes"),
        *equals("archived", True),
        *equals("payloads_run_twice", 0),
        *unless(summary["leftovers"] == 0, f"left behind: {', '.join(summary['left_behind'])}"),
        *equals("caldb_backend", backend),
        *unless(
            summary["bundles"] >= bundles_min,
            f"bundles is {summary['bundles']}, expected {bundles_min} and more",
        ),
        *unless(summary["events_raw"] > 0, "events_raw is 0"),
        *unless(summary["caldb_started"] > 0, "no calibration server was started"),
    ]
    killed = summary["node_killed"]
    if node_fault:
        found += unless(killed is not None, "no node died")
        found += unless(
            killed is None or (killed["jobs_kept"] >= 1 and killed["jobs_returned"] >= 1),
            f"the dead node kept and returned too little: {killed}",
        )
    else:
        found += unless(killed is None, f"a node died: {killed}")
    return found
