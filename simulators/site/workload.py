"""Jobs for a simulated queue without prodsys: what `simsite jobs` and `simsite load` submit.

Each is a small shell payload that prints what COMPASS' merging prints and writes one output: it needs no database.
"""

from __future__ import annotations

import json
import shlex
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from simulators.panda.jobspec import ATTRIBUTES, FILE_ATTRIBUTES
from simulators.panda.rules import SUBMIT_MAX

TRANSFORMATION = "merging mdst"
CALL_S = 120.0


class SubmitFailed(Exception):
    """The server did not take the jobs; the text says why."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Jobs of one `simsite jobs`: `tag` makes their names unique, `task` is their jediTaskID.

    `prefix` is the directory below which outputs are placed, `seconds` how long a payload sleeps.
    """

    tag: str
    count: int
    queue: str
    prefix: str
    seconds: float = 2.0
    events: int = 100
    task: int = 1
    first: int = 0


def render_jobs(batch: Batch, attempt: int = 1) -> list[list[Any]]:
    """Positional job lists as submitters send them."""
    return [render_job(batch, batch.first + number, attempt) for number in range(batch.count)]


def render_job(batch: Batch, number: int, attempt: int = 1) -> list[Any]:
    """One job; the same number with another attempt is the same work."""
    name = f"{batch.tag}.{number}"
    output = f"mDST-{batch.task}-{number:05}-3-8.a{attempt}.root"
    says = f"Number of events saved to output : {batch.events}\\nEnd of Job\\n"
    words = [
        f"PRODSYS_WORK={name}",
        f"SIM_RUN_S={batch.seconds:g}",
        f"PRODSYS_NEVENTS={batch.events}",
        f"COMPASS_SW_PREFIX={batch.prefix}/",
        f"COMPASS_SW_PATH={batch.tag}/",
        "PRODSOFT=sim",
        "prodSlt=3",
        "sh",
        "-c",
        f"sleep {batch.seconds:g} && printf '{says}' && echo {name} > {output}",
    ]
    values = {
        "jobName": f"{name}-{attempt}",
        "jobDefinitionID": batch.task,
        "jediTaskID": batch.task,
        "transformation": TRANSFORMATION,
        "computingSite": batch.queue,
        "prodSourceLabel": "managed",
        "attemptNr": attempt,
        "currentPriority": 1000,
        "assignedPriority": 1000,
        "nEvents": batch.events,
        "prodUserName": "simsite",
        "jobParameters": shlex.join(words),
    }
    files = [(output, "output"), (f"{name}.a{attempt}.job.log.tgz", "log")]
    return [*(values.get(key, "NULL") for key in ATTRIBUTES), [_file(lfn, kind) for lfn, kind in files]]


def _file(lfn: str, kind: str) -> list[Any]:
    values = {"lfn": lfn, "type": kind}
    return [values.get(key, None if key == "scope" else "NULL") for key in FILE_ATTRIBUTES]


def submit_jobs(url: str, jobs: Sequence[list[Any]]) -> list[int]:
    """Submit over the wire, in calls of as many as a server takes; PandaIDs in order. Raises SubmitFailed."""
    ids: list[int] = []
    for start in range(0, len(jobs), SUBMIT_MAX):
        body = json.dumps({"jobs": json.dumps(jobs[start : start + SUBMIT_MAX])}).encode()
        request = urllib.request.Request(
            f"{url}/api/v1/job/submit", body, {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=CALL_S) as reply:
                answer = json.load(reply)
        except (OSError, ValueError) as error:
            raise SubmitFailed(f"{url}: {error}; the server may hold some of the jobs") from error
        if not isinstance(answer, dict) or not answer.get("success"):
            raise SubmitFailed(f"{url}: {str(answer)[:200]}")
        ids += [row[0] for row in answer["data"]]
    return ids


def read_json(url: str) -> dict[str, Any]:
    """What the simulated server says of itself. Raises OSError."""
    with urllib.request.urlopen(url, timeout=CALL_S) as reply:
        found: dict[str, Any] = json.load(reply)
    return found
