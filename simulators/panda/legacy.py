"""The legacy dialect of the simulated server: forms or gzip-JSON in, urlencoded or JSON out. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from simulators.panda.jobspec import BadJobList, parse_jobs
from simulators.panda.model import PILOT_STATES, PandaModel, job_dictionary

# updateJob parameter -> attribute ("" : taken and not stored).
UPDATE_FIELDS: Mapping[str, str] = {
    "attemptNr": "",
    "timestamp": "",
    "workdir": "",
    "siteName": "",
    "token": "",
    "timeout": "",
    "messageLevel": "",
    "remainingSpace": "",
    "pilotLog": "",
    "stdout": "",
    "node": "modificationHost",
    "schedulerID": "schedulerID",
    "pilotID": "pilotID",
    "batchID": "batchID",
    "startTime": "startTime",
    "endTime": "endTime",
    "pilotErrorCode": "pilotErrorCode",
    "pilotErrorDiag": "pilotErrorDiag",
    "transExitCode": "transExitCode",
    "exeErrorCode": "exeErrorCode",
    "exeErrorDiag": "exeErrorDiag",
    "nEvents": "nEvents",
    "nInputFiles": "nInputFiles",
    "coreCount": "actualCoreCount",
    "cpuConsumptionTime": "cpuConsumptionTime",
    "cpuConsumptionUnit": "cpuConsumptionUnit",
    "jobMetrics": "jobMetrics",
    "jobSubStatus": "jobSubStatus",
    "metaData": "metadata",
    "maxRSS": "maxRSS",
    "xml": "report",
}
NUMBERS = frozenset({"nEvents", "cpuConsumptionTime"})
SOFT_NUMBERS = frozenset({"pilotErrorCode", "transExitCode"})


@dataclass(frozen=True, slots=True)
class Reply:
    """HTTP status and text."""

    status: int
    text: str


@dataclass(frozen=True, slots=True)
class Call:
    """A legacy call: parameters as texts (or JSON values) and whether JSON is accepted."""

    parameters: Mapping[str, Any]
    json_wanted: bool


def render(call: Call, fields: Mapping[str, Any], dialog: str = "") -> Reply:
    """An answer in the encoding that was asked for; errorDialog stands only in JSON."""
    if call.json_wanted:
        return Reply(200, json.dumps({**fields, "errorDialog": dialog} if dialog else dict(fields)))
    flat = {k: json.dumps(v) if isinstance(v, list | dict) else v for k, v in fields.items()}
    return Reply(200, urlencode(flat))


def get_job(model: PandaModel, call: Call) -> Reply:
    """getJob: bulk form if nJobs is given, flat without."""
    parameters = call.parameters
    if "siteName" not in parameters:
        return Reply(500, "getJob() missing 1 required positional argument: 'siteName'")
    try:
        timeout_s = float(int(parameters.get("timeout", 60)))
    except ValueError as error:
        return Reply(500, str(error))
    bulk = "nJobs" in parameters
    try:
        count = int(parameters.get("nJobs", 1))
    except ValueError:
        count = 1
    jobs = model.hand_out(
        str(parameters["siteName"]), count, label=parameters.get("prodSourceLabel"), timeout_s=timeout_s
    )
    if not jobs:
        return render(call, {"StatusCode": 20}, "no jobs in PanDA")
    dictionaries = [job_dictionary(job) for job in jobs]
    return render(call, {"StatusCode": 0, "jobs": dictionaries} if bulk else dictionaries[0])


def update_fields(model: PandaModel, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The work of updateJob: the fields of its answer. Raises TypeError, ValueError as the server does."""
    for needed in ("jobId", "state"):
        if needed not in parameters:
            raise TypeError(f"updateJob() missing 1 required positional argument: '{needed}'")
    for name in parameters:
        if name not in UPDATE_FIELDS and name not in ("jobId", "state", "harvester_id"):
            raise TypeError(f"updateJob() got an unexpected keyword argument '{name}'")
    state = parameters["state"]
    if state not in PILOT_STATES or parameters["jobId"] == "NULL":
        return {"StatusCode": 0}
    panda_id = int(parameters["jobId"])
    fields: dict[str, Any] = {}
    for name, target in UPDATE_FIELDS.items():
        if not target or name not in parameters:
            continue
        value = parameters[name]
        if name in NUMBERS:
            try:
                value = int(value)
            except (TypeError, ValueError):
                return {"StatusCode": 30}
        elif name in SOFT_NUMBERS:
            try:
                value = abs(int(value))
            except (TypeError, ValueError):
                continue
        fields[target] = value
    try:
        attempt_nr = int(parameters["attemptNr"])
    except (KeyError, TypeError, ValueError):
        attempt_nr = None
    return {"StatusCode": 0, "command": model.update(panda_id, state, attempt_nr, fields)}


def update_job(model: PandaModel, call: Call) -> Reply:
    """updateJob."""
    try:
        return render(call, update_fields(model, call.parameters))
    except (TypeError, ValueError) as error:
        return Reply(500, str(error))


def update_jobs_in_bulk(model: PandaModel, call: Call) -> Reply:
    """updateJobsInBulk: the first bad element stops it, with the earlier ones applied and no result told."""
    panda_id: Any = None
    results: list[Any] = []
    try:
        for item in json.loads(call.parameters["jobList"]):
            panda_id = item.get("jobId")
            fields = update_fields(model, item)
            if call.json_wanted:
                results.append({"type": "json", "content": json.dumps(fields)})
            else:
                results.append(urlencode(fields))
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        text = f"updateJobsInBulk {panda_id} failed with {type(error).__name__} {error}"
        return Reply(200, json.dumps([False, text]))
    return Reply(200, json.dumps([True, results]))


def get_status(model: PandaModel, call: Call) -> Reply:
    """getStatus: ids separated by blanks, never JSON, defined jobs are not found."""
    statuses, attempts = [], []
    for text in str(call.parameters.get("ids", "")).split():
        job = model.jobs.get(int(text)) if text.isdigit() else None
        shown = job is not None and job.status != "defined"
        statuses.append(job.status if job is not None and shown else "notfound")
        attempts.append(str(job.attempt_nr) if job is not None and shown else "0")
    return Reply(
        200, urlencode({"StatusCode": 0, "status": "+".join(statuses), "attemptNr": "+".join(attempts)})
    )


def check_job_status(model: PandaModel, call: Call) -> Reply:
    """checkJobStatus: ids separated by commas, always JSON."""
    found = []
    for text in str(call.parameters.get("ids", "")).split(","):
        job = model.active(int(text)) if text.strip().isdigit() else None
        if job is None:
            found.append({"command": "tobekilled", "status": "unknown"})
        else:
            found.append({"command": job.command or "NULL", "status": job.status})
    return Reply(200, json.dumps({"StatusCode": 0, "data": found}))


def submit_jobs(model: PandaModel, call: Call) -> Reply:
    """submitJobs with JSON text; answered as JSON (pickles are not served)."""
    try:
        jobs = parse_jobs(json.loads(str(call.parameters.get("jobs", ""))))
    except (ValueError, BadJobList):
        return Reply(200, json.dumps("ERROR: jobs cannot be read"))
    return Reply(200, json.dumps([list(item) for item in model.submit(jobs)]))


def is_alive(model: PandaModel, call: Call) -> Reply:
    """isAlive."""
    return Reply(200, "alive=yes")


METHODS: Mapping[str, Callable[[PandaModel, Call], Reply]] = {
    "getJob": get_job,
    "updateJob": update_job,
    "updateJobsInBulk": update_jobs_in_bulk,
    "getStatus": get_status,
    "checkJobStatus": check_job_status,
    "submitJobs": submit_jobs,
    "isAlive": is_alive,
}


def answer(model: PandaModel, method: str, call: Call) -> Reply:
    """The answer of one method; an unknown one is forbidden."""
    work = METHODS.get(method)
    if work is None:
        return Reply(403, f"ERROR : method {method} is forbidden")
    return work(model, call)
