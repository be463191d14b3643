"""The server's adder: judges the output report of a final update (panda-server-observed, E07 to E11). Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from simulators.panda.job import PandaJob

EC_ADDER = 200
NO_REPORT = "Could not get GUID/LFN/MD5/FSIZE/SURL from pilot JSON"
_MD5 = re.compile(r"[a-fA-F0-9]{32}")


@dataclass(frozen=True, slots=True)
class Judgement:
    """`status` finished or failed, `diag` the ddmErrorDiag that goes with code 200 ("" : none), `files` by LFN."""

    status: str
    diag: str
    files: Mapping[str, Mapping[str, Any]]


def parse_report(text: str | None, inputs: frozenset[str]) -> dict[str, dict[str, Any]] | None:
    """Entries by LFN; None where the server cannot read it (no JSON, no guid, no size, no checksum)."""
    try:
        entries = json.loads(text or "")
        return {str(lfn): _entry(entries[lfn], str(lfn) in inputs) for lfn in entries}
    except (ValueError, TypeError, LookupError, OverflowError, RecursionError):
        return None


def _entry(facts: Any, is_input: bool) -> dict[str, Any]:
    size = int(facts["fsize"]) if "fsize" in facts else None
    md5 = str(facts["md5sum"]) if "md5sum" in facts else None
    md5 = md5 if md5 is not None and _MD5.fullmatch(md5) else None
    adler = str(facts["adler32"]) if "adler32" in facts else None
    if not is_input and (size is None or (md5 is None and adler is None)):
        raise ValueError("no size or checksum")
    checksum = f"ad:{adler}" if adler is not None else f"md5:{md5}"
    return {"GUID": str(facts["guid"]), "fsize": size, "md5sum": md5, "checksum": checksum}


def judge(job: PandaJob) -> Judgement:
    """The end of a job in holding whose final report is there.

    Every output and the log must stand in the report, and nothing else; of a failed job only the log counts.
    Where several are missing the last one is named, as the server does.
    """
    wanted = str(job.final_state)
    declared = [entry for entry in job.files if entry.get("type") in ("output", "log")]
    if not declared:
        return Judgement(wanted, "", {})
    inputs = frozenset(str(entry["lfn"]) for entry in job.files if entry.get("type") == "input")
    report = parse_report(job.report, inputs)
    if report is None:
        unexplained = not _code(job, "pilotErrorCode") and not _code(job, "transExitCode")
        return Judgement("failed", NO_REPORT if unexplained else "", {})
    return _compare(wanted, declared, report, inputs)


def _compare(
    wanted: str,
    declared: Sequence[Mapping[str, Any]],
    report: Mapping[str, Mapping[str, Any]],
    inputs: frozenset[str],
) -> Judgement:
    diag = ""
    for entry in declared:
        counts = wanted == "finished" or entry["type"] == "log"
        if counts and entry["lfn"] not in report:
            diag = f"expected output {entry['lfn']} is missing in pilot JSON"
    names = inputs | {str(entry["lfn"]) for entry in declared}
    for lfn in report:
        if lfn not in names:
            return Judgement("failed", f"pilot produced {lfn} inconsistently with jobdef", {})
    return Judgement("failed" if diag else wanted, diag, report)


def _code(job: PandaJob, name: str) -> bool:
    return str(job.attributes.get(name) or 0) != "0"


def store(job: PandaJob, judgement: Judgement) -> None:
    """Write a judgement into the job's attributes and files."""
    if judgement.diag:
        job.attributes |= {"ddmErrorCode": EC_ADDER, "ddmErrorDiag": judgement.diag}
    total = count = 0
    for entry in job.files:
        if entry.get("type") not in ("output", "log"):
            continue
        facts = judgement.files.get(str(entry["lfn"]))
        kept = facts is not None and (job.final_state == "finished" or entry["type"] == "log")
        if facts is not None and kept:
            entry.update(facts)
        entry["status"] = "ready" if kept and judgement.status == "finished" else "failed"
        if entry["type"] == "output":
            count, total = count + 1, total + int(entry.get("fsize") or 0)
    job.attributes |= {"nOutputDataFiles": count, "outputFileBytes": min(total, 99_999_999_999), "hs06sec": 0}
