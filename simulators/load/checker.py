"""What a load run must not have done: jobs lost, doubled, or stale. Works on what the servers and nodes know."""

from __future__ import annotations

import json
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FINAL = frozenset({"finished", "failed", "cancelled", "closed"})
# "Sent job didn't receive reply from pilot": the answer to a fetch was lost, nobody knows the job.
NEVER_ANSWERED = 102
_ATTEMPT = re.compile(r"\.a\d+(?=\.)")


@dataclass(frozen=True, slots=True)
class Row:
    """One PanDA job at the end: `work` is the same for all attempts. `output`: whether its file is in place."""

    panda_id: int
    status: str
    work: str
    dispatcher_code: int
    pilot_code: int
    output: bool = True


@dataclass(frozen=True, slots=True)
class Spawned:
    """One payload that a node started. `ended_by` None: it ended by itself; `ended`: it has ended."""

    panda_id: int
    ended: bool
    ended_by: str | None


@dataclass(slots=True)
class Findings:
    """Names or ids with what is wrong with each. Nothing in it: the run was clean."""

    lost: dict[str, str] = field(default_factory=dict)
    doubled: dict[str, str] = field(default_factory=dict)
    stale: dict[str, str] = field(default_factory=dict)

    @property
    def clean(self) -> bool:
        """Whether nothing was found."""
        return not (self.lost or self.doubled or self.stale)


def work_of(job_name: str) -> str:
    """The work that a job name is an attempt of."""
    return job_name.rpartition("-")[0]


def find_ends(table: Iterable[Mapping[str, Any]], placed: Mapping[str, Path]) -> dict[str, dict[str, Any]]:
    """How each work ended by the server's table: of its finished attempt, else of its last one.

    `charged`: attempts that failed with a code of the pilot's. `files`: of each file that was reported, without its
    attempt, whether its size and checksum are those of the file in place (`placed`: path by name).
    """
    ends: dict[str, dict[str, Any]] = {}
    charged: Counter[str] = Counter()
    for job in table:
        facts, report = job["attributes"], json.loads(job["report"] or "{}")
        work = work_of(job["job_name"])
        charged[work] += job["status"] == "failed" and bool(facts.get("pilotErrorCode"))
        if work in ends and ends[work]["status"] == "finished":
            continue
        ends[work] = {
            "status": job["status"],
            "pilotErrorCode": facts.get("pilotErrorCode"),
            "nEvents": facts.get("nEvents"),
            "files": {
                _ATTEMPT.sub("", lfn): _is_in_place(file, placed.get(lfn)) for lfn, file in report.items()
            },
        }
    return {work: {**end, "charged": charged[work]} for work, end in sorted(ends.items())}


def _is_in_place(file: Mapping[str, Any], path: Path | None) -> bool:
    if path is None:
        return False
    content = path.read_bytes()
    return file.get("fsize") == len(content) and file.get("adler32") == f"{zlib.adler32(content):08x}"


def check(works: Iterable[str], rows: Sequence[Row], spawned: Sequence[Spawned]) -> Findings:
    """Compare what was submitted with what PanDA says and what really ran."""
    found = Findings()
    finished: Counter[str] = Counter(row.work for row in rows if row.status == "finished")
    works_of = {row.panda_id: row.work for row in rows}
    starts: Counter[int] = Counter(run.panda_id for run in spawned)
    complete = [run for run in spawned if run.ended and run.ended_by is None]
    ran: Counter[str] = Counter(works_of.get(run.panda_id, "") for run in complete)
    for work in works:
        if not finished[work]:
            found.lost[work] = "no attempt of it is finished"
        elif finished[work] > 1:
            found.doubled[work] = f"{finished[work]} attempts of it are finished"
        elif ran[work] > 1:
            found.doubled[work] = f"its payload ran {ran[work]} times to its end"
        elif not ran[work]:
            found.stale[work] = "finished, but no payload of it ran to its end"
    for panda_id, count in starts.items():
        if count > 1:
            found.doubled[str(panda_id)] = f"{count} payloads were started for it"
        if panda_id not in works_of:
            found.stale[str(panda_id)] = "a payload ran for a job that was never submitted"
    _stale_rows(found, rows, starts)
    return found


def _stale_rows(found: Findings, rows: Sequence[Row], starts: Mapping[int, int]) -> None:
    for row in rows:
        name = str(row.panda_id)
        if row.status not in FINAL:
            found.stale[name] = f"still {row.status}"
        elif row.status == "finished" and not row.output:
            found.lost[name] = "finished, but its output is not in place"
        elif row.status != "finished" and row.dispatcher_code != NEVER_ANSWERED:
            found.stale[name] = (
                f"{row.status} with codes {row.dispatcher_code} and {row.pilot_code}, though every payload is good"
            )
        elif row.status != "finished" and starts.get(row.panda_id, 0) and row.pilot_code:
            found.stale[name] = f"its payload ran, and it ended with code {row.pilot_code}"
