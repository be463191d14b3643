"""The v1 dialect of the simulated server: strict arguments, the envelope, text/plain. Pure: (model, call) -> answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from simulators.panda.binding import NEEDED, Argument, ArgumentProblem, bind, cast_query
from simulators.panda.job import PandaJob, describe, job_dictionary
from simulators.panda.jobspec import BadJobList, parse_jobs
from simulators.panda.model import PandaModel
from simulators.panda.rules import PILOT_STATES, DatabaseTrouble, Wish
from simulators.panda.settings import Caller
from simulators.panda.updates import BY_V1, kept_fields

DESCRIBE_MAX = 5500
NOT_SECURE = "SSL secure connection is required"
NO_ROLE = "production or pilot role required"
NO_PILOT_ROLE = "no production/pilot role in VOMS FQANs or non pilot owner"
Envelope = dict[str, Any]


def envelope(success: bool, message: str = "", data: Any = None) -> Envelope:
    """What every v1 answer is."""
    return {"success": success, "message": message, "data": data}


# --- pilot ----------------------------------------------------------------------------------------------------

ACQUIRE = (
    Argument("site_name", str, NEEDED),
    Argument("timeout", int, 60),
    Argument("memory", int),
    Argument("disk_space", int),
    Argument("prod_source_label", str),
    Argument("node", str),
    Argument("computing_element", str),
    Argument("prod_user_id", str),
    Argument("get_proxy_key", str),
    Argument("task_id", int),
    Argument("n_jobs", int, 1),
    Argument("background", bool),
    Argument("resource_type", str),
    Argument("harvester_id", str),
    Argument("worker_id", int),
    Argument("scheduler_id", str),
    Argument("job_type", str),
    Argument("via_topic", bool),
    Argument("remaining_time", int),
)
UPDATE = (
    Argument("job_id", int, NEEDED),
    Argument("job_status", str, NEEDED),
    *(Argument(name, parameter.kind) for name, parameter in BY_V1.items()),
)


def acquire_jobs(model: PandaModel, values: Mapping[str, Any], caller: Caller) -> Envelope:
    """pilot/acquire_jobs: always the bulk form."""
    if not caller.production:
        return envelope(False, NO_PILOT_ROLE)
    wish = Wish(
        values["site_name"],
        values["n_jobs"],
        values["prod_source_label"],
        float(values["timeout"]),
        values["task_id"],
        float(values["memory"] or 0),
        float(values["disk_space"] or 0),
        values["remaining_time"],
        values["node"],
        values["computing_element"],
        values["scheduler_id"],
    )
    jobs = model.hand_out(wish)
    if not jobs:
        return envelope(False, "No jobs in PanDA")
    return envelope(True, data={"StatusCode": 0, "jobs": [job_dictionary(job) for job in jobs]})


def update_job(model: PandaModel, values: Mapping[str, Any], caller: Caller) -> Envelope:
    """pilot/update_job. success is true also where the database failed (StatusCode 30)."""
    if not caller.production:
        return envelope(False, NO_ROLE)
    if values["job_status"] not in PILOT_STATES:
        return envelope(False, f"Invalid job status: {values['job_status']}", {"StatusCode": 50})
    try:
        fields = kept_fields(BY_V1, values)
        command = model.update(values["job_id"], values["job_status"], values["attempt_nr"], fields)
    except DatabaseTrouble:
        return envelope(True, "Database error", {"StatusCode": 30})
    return envelope(True, data={"StatusCode": 0, "command": command})


def update_jobs_bulk(model: PandaModel, values: Mapping[str, Any], caller: Caller) -> Envelope:
    """pilot/update_jobs_bulk: a bad item fails alone; one without id or status stops the rest."""
    if not caller.production:
        return envelope(False, NO_ROLE)
    results: list[Envelope] = []
    for item in values["job_list"]:
        for name in ("job_id", "job_status"):
            if name not in item:
                return envelope(False, f"failed with KeyError '{name}'", [])
        told = {**item, "meta_data": str(item["meta_data"])} if "meta_data" in item else item
        results.append(update_item(model, told, caller))
    return envelope(True, data=results)


def update_item(model: PandaModel, item: Mapping[str, Any], caller: Caller) -> Envelope:
    """One item of a bulk update: as update_job would answer it."""
    try:
        return update_job(model, bind(UPDATE, item), caller)
    except ArgumentProblem as problem:
        return envelope(False, str(problem))


def get_job_status(model: PandaModel, values: Mapping[str, Any], caller: Caller) -> Envelope:
    """pilot/get_job_status: active and archived, not defined ones."""
    found = []
    for panda_id in values["job_ids"]:
        job = model.for_pilot(panda_id)
        status, number = ("not found", 0) if job is None else (job.status, job.attempt_nr)
        found.append({"job_id": panda_id, "status": status, "attempt_number": number})
    return envelope(True, data=found)


def accept(model: PandaModel, values: Mapping[str, Any], caller: Caller) -> Envelope:
    """A call that is taken and changes nothing here (system/is_alive, a worker that the server does not know)."""
    return envelope(True)


# --- submitter and monitor ------------------------------------------------------------------------------------


def submit(model: PandaModel, values: Mapping[str, Any], caller: Caller) -> Envelope:
    """job/submit: `jobs` is a JSON text of positional lists."""
    try:
        jobs = parse_jobs(json.loads(values["jobs"]))
    except (ValueError, RecursionError, BadJobList) as error:
        return envelope(False, f"Failed to deserialize jobs: {error}")
    if not jobs or not caller.production:
        return envelope(False, "No jobs were submitted")
    return envelope(True, data=[list(item) for item in model.submit(jobs, caller.subject)])


def statuses(model: PandaModel, ids: Sequence[int]) -> list[dict[str, Any]]:
    """Command and status of jobs as job/get_status and checkJobStatus tell them."""
    found: list[dict[str, Any]] = []
    for panda_id in ids:
        job = model.shown(panda_id)
        if job is None:
            found.append({"command": "tobekilled", "status": "unknown"})
        else:
            found.append({"command": job.command, "status": job.status})
    return found


def get_status(model: PandaModel, values: Mapping[str, Any], caller: Caller) -> Envelope:
    """job/get_status: active jobs and those archived during the last hour."""
    return envelope(True, data=statuses(model, values["job_ids"]))


def get_description(model: PandaModel, values: Mapping[str, Any], caller: Caller) -> Envelope:
    """job/get_description and get_description_incl_archive (one archive here): null for an unknown id."""
    jobs = [model.jobs.get(panda_id) for panda_id in values["job_ids"][:DESCRIBE_MAX]]
    return envelope(True, data=[None if job is None else describe(job, model.epoch_s) for job in jobs])


def order_end(model: PandaModel, values: Mapping[str, Any], caller: Caller) -> Envelope:
    """job/kill."""
    code = None if values["code"] is None else str(values["code"])
    user = caller.subject or "prodsys"
    return envelope(True, data=[_ordered(model, panda_id, code, user) for panda_id in values["job_ids"]])


def _ordered(model: PandaModel, panda_id: Any, code: str | None, user: str) -> bool:
    return isinstance(panda_id, int) and model.order_end(panda_id, code, user)


def set_command(model: PandaModel, values: Mapping[str, Any], caller: Caller) -> Envelope:
    """job/set_command."""
    if not caller.production:
        return envelope(False, NO_ROLE)
    done = model.set_command(values["job_id"], values["command"])
    return envelope(done, "command received" if done else "command is not accepted")


def get_job_ids(model: PandaModel, values: Mapping[str, Any], caller: Caller) -> Envelope:
    """task/get_job_ids by the submitter's jediTaskID."""
    return envelope(True, data=model.ids_of_task(values["task_id"]))


def get_job_descriptions(model: PandaModel, values: Mapping[str, Any], caller: Caller) -> Envelope:
    """task/get_job_descriptions, cut at 5,500."""
    jobs: list[PandaJob] = [model.jobs[panda_id] for panda_id in model.ids_of_task(values["task_id"])]
    return envelope(True, data=[describe(job, model.epoch_s) for job in jobs[:DESCRIBE_MAX]])


def active_job_stats(model: PandaModel, values: Mapping[str, Any], caller: Caller) -> Envelope:
    """statistics/active_job_stats_by_site."""
    counts = {site: {status: n for status, n in found.items() if n} for site, found in model.counts.items()}
    return envelope(True, data={site: found for site, found in counts.items() if found})


Work = Callable[[PandaModel, Mapping[str, Any], Caller], Envelope]


@dataclass(frozen=True, slots=True)
class Call:
    """One v1 call: HTTP methods, its work, its arguments, whether it needs a certificate."""

    methods: tuple[str, ...]
    work: Work
    signature: tuple[Argument, ...] = ()
    secure: bool = True


_IDS = (Argument("job_ids", list, NEEDED, "List"),)
_TASK = (Argument("task_id", int, NEEDED),)
CALLS: Mapping[str, Call] = {
    "pilot/acquire_jobs": Call(("POST",), acquire_jobs, ACQUIRE),
    "pilot/update_job": Call(("POST",), update_job, UPDATE),
    "pilot/update_jobs_bulk": Call(
        ("POST",), update_jobs_bulk, (Argument("job_list", list, NEEDED), Argument("harvester_id", str))
    ),
    "pilot/get_job_status": Call(("GET",), get_job_status, _IDS),
    "pilot/update_worker_status": Call(
        ("POST",),
        accept,
        (
            Argument("worker_id", int, NEEDED),
            Argument("harvester_id", str, NEEDED),
            Argument("status", str, NEEDED),
            Argument("node_id", str),
        ),
    ),
    "job/submit": Call(("POST",), submit, (Argument("jobs", str, NEEDED),)),
    "job/get_status": Call(("GET",), get_status, _IDS),
    "job/get_description": Call(("POST", "GET"), get_description, _IDS),
    "job/get_description_incl_archive": Call(("POST", "GET"), get_description, _IDS),
    "job/kill": Call(
        ("POST",),
        order_end,
        (
            *_IDS,
            Argument("code", int),
            Argument("use_email_as_id", bool, False),
            Argument("kill_options", list),
        ),
    ),
    "job/set_command": Call(
        ("POST",), set_command, (Argument("job_id", int, NEEDED), Argument("command", str, NEEDED))
    ),
    "task/get_job_ids": Call(("GET",), get_job_ids, _TASK),
    "task/get_job_descriptions": Call(("GET",), get_job_descriptions, _TASK),
    "statistics/active_job_stats_by_site": Call(("GET",), active_job_stats, secure=False),
    "system/is_alive": Call(("GET",), accept, secure=False),
}


def answer(
    model: PandaModel,
    name: str,
    method: str,
    arguments: Mapping[str, Any] | None,
    query: Mapping[str, list[str]],
    caller: Caller,
) -> Envelope | None:
    """The envelope of one call, None if the server has no such call. `arguments` None: they stand in the query."""
    call = CALLS.get(name)
    if call is None:
        return None
    if method not in call.methods:
        return envelope(False, f"expecting {call.methods[0]}, received {method}")
    if call.secure and not caller.secure:
        return envelope(False, NOT_SECURE)
    try:
        given = cast_query(call.signature, query) if arguments is None else arguments
        return call.work(model, bind(call.signature, given), caller)
    except ArgumentProblem as problem:
        return envelope(False, str(problem))
