"""Reads evidence after everything has ended: raw headers, ROOT trees, PanDA's table, node journals, traces, tape.

Nothing here asks prodsys or the pilot what happened. Every reader gives plain values; `summary` judges them.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pilot.multijob.nodejournal import parse_lines
from simulators.demo.layout import Layout
from simulators.nodejournals import read_journals


@dataclass(frozen=True, slots=True)
class NodeJournal:
    """One agent's journal: bundle, node index, and its lines as (kind, body)."""

    bundle: str
    node: int
    lines: tuple[tuple[str, dict[str, Any]], ...]


@dataclass(frozen=True, slots=True)
class TapeFile:
    """A file on tape. `events` only for mDSTs; `confirmed`: its receipt says the same size and checksum."""

    name: str
    bytes: int
    events: int | None
    confirmed: bool


@dataclass(frozen=True, slots=True)
class ChunkOutput:
    """An output of one chunk as it was placed (kept by a hard link)."""

    name: str
    bytes: int
    events: int | None


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that was found."""

    raw_events: dict[str, int]
    panda_jobs: tuple[dict[str, Any], ...]
    journals: tuple[NodeJournal, ...]
    bundles: tuple[str, ...]
    chunks: tuple[ChunkOutput, ...]
    tape: tuple[TapeFile, ...]
    intermediates_left: tuple[str, ...]
    batch_events: tuple[dict[str, Any], ...]
    runs_twice: int
    traces: int


def read_evidence(layout: Layout) -> Evidence:
    """Read everything; what is missing reads as empty, never as success."""
    from simulators.payload.raw import read_header
    from simulators.payload.trace import read_traces, runs_twice

    traces = read_traces(layout.trace)
    table = _panda_jobs(layout.table)
    bundles = layout.shared / "bundles"
    return Evidence(
        {path.name: read_header(path).events for path in sorted(layout.raw.glob("*.raw"))},
        tuple(table),
        tuple(_journals(bundles)),
        tuple(sorted(path.name for path in bundles.iterdir())) if bundles.exists() else (),
        tuple(_chunks(layout.kept)),
        tuple(_tape(layout.tape)),
        tuple(_intermediates(layout.outputs)),
        tuple(_json_lines(layout.torque / "events.jsonl", layout.out / "torque-events.jsonl")),
        runs_twice(traces, accepted_attempts(table)),
        len(traces),
    )


def accepted_attempts(table: list[dict[str, Any]]) -> frozenset[tuple[int, int]]:
    """(PandaID, attemptNr) of what the server took as finished."""
    return frozenset((job["panda_id"], job["attempt_nr"]) for job in table if job["status"] == "finished")


def _panda_jobs(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    jobs: list[dict[str, Any]] = json.loads(path.read_text())["jobs"]
    return jobs


def _journals(bundles: Path) -> list[NodeJournal]:
    found = []
    for bundle_id, name, content in read_journals(bundles):
        lines = tuple((line.kind, dict(line.body)) for line in parse_lines(name, 0, content).lines)
        found.append(NodeJournal(bundle_id, int(name.split(".")[1]), lines))
    return found


def count_events(path: Path) -> int:
    """Entries of an mDST, opened with uproot."""
    from simulators.payload.mdst import count_entries

    return count_entries(path)


def _chunks(kept: Path) -> list[ChunkOutput]:
    if not kept.exists():
        return []
    return [
        ChunkOutput(
            path.name, path.stat().st_size, count_events(path) if path.name.startswith("mDST-") else None
        )
        for path in sorted(kept.iterdir())
    ]


def _tape(root: Path) -> list[TapeFile]:
    found = []
    on_tape = root / "tape"
    for path in sorted(item for item in on_tape.rglob("*") if item.is_file()) if on_tape.exists() else []:
        relative = path.relative_to(on_tape)
        content = path.read_bytes()
        receipt = root / "receipts" / f"{relative}.json"
        said = json.loads(receipt.read_text()) if receipt.exists() else {}
        is_mdst = path.name.startswith("mDST-")
        same = said.get("size") == len(content) and said.get("adler32") == f"{zlib.adler32(content):08x}"
        found.append(TapeFile(path.name, len(content), count_events(path) if is_mdst else None, same))
    return found


def _intermediates(outputs: Path) -> list[str]:
    """Chunk outputs that still stand where they were placed."""
    names = ("mDST.chunks", "TRAFDIC", "evtdump")
    return [
        str(path.relative_to(outputs))
        for name in names
        for directory in sorted(outputs.rglob(name))
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    ]


def _json_lines(*paths: Path) -> list[dict[str, Any]]:
    for path in paths:
        if path.exists():
            return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
    return []
