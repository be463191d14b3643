"""The v1 dialect of the simulated server: strict types, the envelope, text/plain. Pure: (model, request) -> answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from simulators.panda.jobspec import BadJobList, describe_files, parse_jobs
from simulators.panda.model import (
    DESCRIBE_MAX,
    PILOT_STATES,
    PandaJob,
    PandaModel,
    job_dictionary,
)

# v1 argument of update_job -> attribute of the job and type.
UPDATE_FIELDS: Mapping[str, tuple[str, type]] = {
    "job_sub_status": ("jobSubStatus", str),
    "start_time": ("startTime", str),
    "end_time": ("endTime", str),
    "site_name": ("", str),
    "node": ("modificationHost", str),
    "scheduler_id": ("schedulerID", str),
    "pilot_id": ("pilotID", str),
    "batch_id": ("batchID", str),
    "trans_exit_code": ("transExitCode", int),
    "pilot_error_code": ("pilotErrorCode", int),
    "pilot_error_diag": ("pilotErrorDiag", str),
    "exe_error_code": ("exeErrorCode", int),
    "exe_error_diag": ("exeErrorDiag", str),
    "n_events": ("nEvents", int),
    "n_input_files": ("nInputFiles", int),
    "attempt_nr": ("", int),
    "cpu_consumption_time": ("cpuConsumptionTime", int),
    "core_count": ("actualCoreCount", int),
    "max_rss": ("maxRSS", int),
    "job_metrics": ("jobMetrics", str),
    "job_output_report": ("report", str),
    "meta_data": ("metadata", str),
    "stdout": ("", str),
    "timeout": ("", int),
}
ACQUIRE_TYPES: Mapping[str, type] = {
    "site_name": str,
    "timeout": int,
    "memory": int,
    "disk_space": int,
    "prod_source_label": str,
    "node": str,
    "computing_element": str,
    "prod_user_id": str,
    "get_proxy_key": bool,
    "task_id": int,
    "n_jobs": int,
    "background": bool,
    "resource_type": str,
    "harvester_id": str,
    "worker_id": int,
    "scheduler_id": str,
    "job_type": str,
    "via_topic": bool,
    "remaining_time": int,
}


@dataclass(frozen=True, slots=True)
class Request:
    """A v1 call: HTTP method, arguments from the JSON body or the query (repeated keys as lists)."""

    method: str
    arguments: Mapping[str, Any]


class ArgumentProblem(Exception):
    """An argument that the server refuses; the text is its message."""


def envelope(success: bool, message: str = "", data: Any = None) -> dict[str, Any]:
    """What every v1 answer is."""
    return {"success": success, "message": message, "data": data}


def typed(
    arguments: Mapping[str, Any], name: str, kind: type, default: Any = None, *, needed: bool = False
) -> Any:
    """One argument with its exact type."""
    if name not in arguments:
        if needed:
            raise ArgumentProblem(f"Argument error: missing a required argument: '{name}'")
        return default
    value = arguments[name]
    if type(value) is not kind:
        found = type(value).__name__
        raise ArgumentProblem(f"Type error: '{name}' must be of type {kind.__name__}, got {found}.")
    return value


def known(arguments: Mapping[str, Any], names: Mapping[str, Any]) -> None:
    """Refuse an argument that the call does not have."""
    for name in arguments:
        if name not in names:
            raise ArgumentProblem(f"Argument error: got an unexpected keyword argument '{name}'")


def id_list(request: Request) -> list[int]:
    """job_ids from a query (repeated) or a JSON list."""
    value = request.arguments.get("job_ids")
    if value is None:
        raise ArgumentProblem("Argument error: missing a required argument: 'job_ids'")
    items = value if isinstance(value, list) else [value]
    try:
        return [int(item) for item in items]
    except (TypeError, ValueError) as error:
        raise ArgumentProblem("Type error: 'job_ids' must be of type List, got str.") from error


def acquire_jobs(model: PandaModel, request: Request) -> dict[str, Any]:
    """pilot/acquire_jobs."""
    arguments = request.arguments
    known(arguments, ACQUIRE_TYPES)
    values = {name: typed(arguments, name, kind) for name, kind in ACQUIRE_TYPES.items()}
    site = typed(arguments, "site_name", str, needed=True)
    jobs = model.hand_out(
        site,
        1 if values["n_jobs"] is None else values["n_jobs"],
        label=values["prod_source_label"],
        timeout_s=60.0 if values["timeout"] is None else values["timeout"],
        task=values["task_id"],
    )
    if not jobs:
        return envelope(False, "No jobs in PanDA")
    return envelope(True, data={"StatusCode": 0, "jobs": [job_dictionary(job) for job in jobs]})


def update_one(model: PandaModel, item: Mapping[str, Any]) -> dict[str, Any]:
    """The work of update_job."""
    known(item, {**UPDATE_FIELDS, "job_id": int, "job_status": str})
    panda_id = typed(item, "job_id", int, needed=True)
    state = typed(item, "job_status", str, needed=True)
    values = {name: typed(item, name, kind) for name, (_, kind) in UPDATE_FIELDS.items()}
    if state not in PILOT_STATES:
        return envelope(False, f"{state} is not a valid job status", {"StatusCode": 50})
    fields = {target: values[name] for name, (target, _) in UPDATE_FIELDS.items() if target}
    command = model.update(panda_id, state, values["attempt_nr"], fields)
    return envelope(True, data={"StatusCode": 0, "command": command})


def update_jobs_bulk(model: PandaModel, request: Request) -> dict[str, Any]:
    """pilot/update_jobs_bulk: a bad item fails alone; one without id or status stops the rest."""
    known(request.arguments, {"job_list": list, "harvester_id": str})
    items = typed(request.arguments, "job_list", list, needed=True)
    results = []
    for item in items:
        if "job_id" not in item or "job_status" not in item:
            return envelope(False, "job_id or job_status is missing", [])
        try:
            results.append(update_one(model, item))
        except ArgumentProblem as problem:
            results.append(envelope(False, str(problem)))
    return envelope(True, data=results)


def get_job_status(model: PandaModel, request: Request) -> dict[str, Any]:
    """pilot/get_job_status: active and archived, not defined ones."""
    found = []
    for panda_id in id_list(request):
        job = model.jobs.get(panda_id)
        shown = job is not None and job.status != "defined"
        status = job.status if job is not None and shown else "not found"
        number = job.attempt_nr if job is not None and shown else 0
        found.append({"job_id": panda_id, "status": status, "attempt_number": number})
    return envelope(True, data=found)


def submit(model: PandaModel, request: Request) -> dict[str, Any]:
    """job/submit: `jobs` is a JSON text of positional lists."""
    known(request.arguments, {"jobs": str})
    text = typed(request.arguments, "jobs", str, needed=True)
    try:
        jobs = parse_jobs(json.loads(text))
    except (ValueError, BadJobList):
        return envelope(False, "Failed to deserialize jobs")
    if not jobs:
        return envelope(False, "No jobs were submitted")
    return envelope(True, data=[list(item) for item in model.submit(jobs)])


def get_status(model: PandaModel, request: Request) -> dict[str, Any]:
    """job/get_status: active jobs and those archived during the last hour."""
    found = []
    for panda_id in id_list(request):
        job = model.active(panda_id)
        if job is None:
            found.append({"command": "tobekilled", "status": "unknown"})
        else:
            found.append({"command": job.command or "NULL", "status": job.status})
    return envelope(True, data=found)


def describe(job: PandaJob) -> dict[str, Any]:
    """All attributes of a job by name, with its files."""
    return {**{k: v for k, v in job.attributes.items() if k != "report"}, "Files": describe_files(job.files)}


def get_description(model: PandaModel, request: Request) -> dict[str, Any]:
    """job/get_description: active jobs only."""
    jobs = [model.jobs.get(panda_id) for panda_id in id_list(request)[:DESCRIBE_MAX]]
    return envelope(True, data=[describe(job) if job and not job.archived else None for job in jobs])


def get_description_incl_archive(model: PandaModel, request: Request) -> dict[str, Any]:
    """job/get_description_incl_archive."""
    jobs = [model.jobs.get(panda_id) for panda_id in id_list(request)[:DESCRIBE_MAX]]
    return envelope(True, data=[describe(job) if job else None for job in jobs])


def cancel(model: PandaModel, request: Request) -> dict[str, Any]:
    """job/kill."""
    code = request.arguments.get("code")
    return envelope(True, data=[model.order_end(panda_id, code) for panda_id in id_list(request)])


def set_command(model: PandaModel, request: Request) -> dict[str, Any]:
    """job/set_command."""
    panda_id = typed(request.arguments, "job_id", int, needed=True)
    command = typed(request.arguments, "command", str, needed=True)
    done = model.set_command(panda_id, command)
    return envelope(done, "command received" if done else "command is not accepted")


def task_number(request: Request) -> int:
    """task_id of a query or body."""
    try:
        return int(request.arguments["task_id"])
    except KeyError as error:
        raise ArgumentProblem("Argument error: missing a required argument: 'task_id'") from error
    except (TypeError, ValueError) as error:
        raise ArgumentProblem("Type error: 'task_id' must be of type int, got str.") from error


def get_job_ids(model: PandaModel, request: Request) -> dict[str, Any]:
    """task/get_job_ids by the submitter's jediTaskID."""
    return envelope(True, data=sorted(job.panda_id for job in model.with_task(task_number(request))))


def get_job_descriptions(model: PandaModel, request: Request) -> dict[str, Any]:
    """task/get_job_descriptions, cut at 5,500."""
    found = sorted(model.with_task(task_number(request)), key=lambda job: job.panda_id)
    return envelope(True, data=[describe(job) for job in found[:DESCRIBE_MAX]])


def active_job_stats(model: PandaModel, request: Request) -> dict[str, Any]:
    """statistics/active_job_stats_by_site."""
    return envelope(True, data=model.counts())


def is_alive(model: PandaModel, request: Request) -> dict[str, Any]:
    """system/is_alive."""
    return envelope(True)


def update_job(model: PandaModel, request: Request) -> dict[str, Any]:
    """pilot/update_job."""
    return update_one(model, request.arguments)


# call -> (HTTP methods, work)
CALLS: Mapping[str, tuple[frozenset[str], Callable[[PandaModel, Request], dict[str, Any]]]] = {
    "pilot/acquire_jobs": (frozenset({"POST"}), acquire_jobs),
    "pilot/update_job": (frozenset({"POST"}), update_job),
    "pilot/update_jobs_bulk": (frozenset({"POST"}), update_jobs_bulk),
    "pilot/get_job_status": (frozenset({"GET"}), get_job_status),
    "job/submit": (frozenset({"POST"}), submit),
    "job/get_status": (frozenset({"GET"}), get_status),
    "job/get_description": (frozenset({"GET", "POST"}), get_description),
    "job/get_description_incl_archive": (frozenset({"GET", "POST"}), get_description_incl_archive),
    "job/kill": (frozenset({"POST"}), cancel),
    "job/set_command": (frozenset({"POST"}), set_command),
    "task/get_job_ids": (frozenset({"GET"}), get_job_ids),
    "task/get_job_descriptions": (frozenset({"GET"}), get_job_descriptions),
    "statistics/active_job_stats_by_site": (frozenset({"GET"}), active_job_stats),
    "system/is_alive": (frozenset({"GET"}), is_alive),
}


def answer(model: PandaModel, call: str, request: Request) -> dict[str, Any] | None:
    """The envelope of one call, None if the server has no such call."""
    found = CALLS.get(call)
    if found is None:
        return None
    methods, work = found
    if request.method not in methods:
        return envelope(False, f"expecting {sorted(methods)[-1]}, received {request.method}")
    try:
        return work(model, request)
    except ArgumentProblem as problem:
        return envelope(False, str(problem))
