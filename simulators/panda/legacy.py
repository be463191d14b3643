"""The legacy dialect of the simulated server: forms or gzip-JSON in, urlencoded or JSON out. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from simulators.panda.job import PandaJob, describe, job_dictionary
from simulators.panda.jobspec import BadJobList, parse_jobs, render_record
from simulators.panda.model import PandaModel
from simulators.panda.pickles import BadPickle, parse_pickle, render_pickle, render_records
from simulators.panda.rules import PILOT_STATES, DatabaseTrouble, Wish
from simulators.panda.settings import Caller
from simulators.panda.updates import BY_LEGACY, kept_fields
from simulators.panda.v1 import DESCRIBE_MAX, NO_PILOT_ROLE, statuses

GET_JOB = frozenset(
    """siteName prodSourceLabel nJobs node mem diskSpace cpu computingElement timeout workingGroup countryGroup
    allowOtherCountry AtlasRelease token prodUserID getProxyKey taskID background resourceType jobType harvester_id
    worker_id schedulerID viaTopic remaining_time""".split()
)
ATTRIBUTES_2018 = 90
_PICKLED_IDS = re.compile(r"\(lp0\n(?:I\d+\na)*\.")


@dataclass(frozen=True, slots=True)
class Reply:
    """HTTP status, text, and whether its header says JSON."""

    status: int
    text: str
    is_json: bool = False


@dataclass(frozen=True, slots=True)
class Call:
    """A legacy call: parameters as texts (or JSON values), whether JSON is accepted, who calls."""

    parameters: Mapping[str, Any]
    json_wanted: bool
    caller: Caller


def render(call: Call, fields: Mapping[str, Any], dialog: str = "") -> Reply:
    """An answer in the encoding that was asked for; errorDialog stands only in JSON."""
    if call.json_wanted:
        return Reply(200, json.dumps({**fields, "errorDialog": dialog} if dialog else dict(fields)), True)
    flat = {
        name: json.dumps(value) if isinstance(value, list | dict) else value for name, value in fields.items()
    }
    return Reply(200, urlencode(flat))


def get_job(model: PandaModel, call: Call) -> Reply:
    """getJob: bulk form if nJobs is given, flat without."""
    given = call.parameters
    for name in given:
        if name not in GET_JOB:
            raise TypeError(f"getJob() got an unexpected keyword argument '{name}'")
    if "siteName" not in given:
        raise TypeError("getJob() missing 1 required positional argument: 'siteName'")
    timeout_s = float(int(given.get("timeout", 60)))
    if not call.caller.pilot:
        return render(call, {"StatusCode": 60}, NO_PILOT_ROLE)
    wish = Wish(
        str(given["siteName"]),
        _count(given.get("nJobs", 1)),
        given.get("prodSourceLabel"),
        timeout_s,
        _number(given.get("taskID")),
        float(given.get("mem") or 0),
        float(given.get("diskSpace") or 0),
        _number(given.get("remaining_time")),
        given.get("node"),
        given.get("computingElement"),
        given.get("schedulerID"),
    )
    jobs = model.hand_out(wish)
    if not jobs:
        return render(call, {"StatusCode": 20}, "no jobs in PanDA")
    dictionaries = [job_dictionary(job) for job in jobs]
    bulk = "nJobs" in given
    return render(call, {"StatusCode": 0, "jobs": dictionaries} if bulk else dictionaries[0])


def _count(value: Any) -> int:
    try:
        return int(value)
    except (TypeError, ValueError):
        return 1


def _number(value: Any) -> int | None:
    return None if value in (None, "", "NULL") else int(value)


def update_fields(model: PandaModel, given: Mapping[str, Any], caller: Caller) -> tuple[dict[str, Any], str]:
    """The work of updateJob: fields of its answer and errorDialog. Raises TypeError, ValueError as the server does."""
    for name in given:
        if name not in BY_LEGACY and name not in ("jobId", "state", "harvester_id"):
            raise TypeError(f"updateJob() got an unexpected keyword argument '{name}'")
    for needed in ("jobId", "state"):
        if needed not in given:
            raise TypeError(f"updateJob() missing 1 required positional argument: '{needed}'")
    if not caller.pilot:
        return {"StatusCode": 60}, NO_PILOT_ROLE
    if given["jobId"] == "NULL" or given["state"] not in PILOT_STATES:
        return {"StatusCode": 0}, ""
    panda_id = int(given["jobId"])
    try:
        attempt_nr = int(given["attemptNr"])
    except (KeyError, TypeError, ValueError):
        attempt_nr = None
    try:
        command = model.update(panda_id, given["state"], attempt_nr, kept_fields(BY_LEGACY, given))
    except DatabaseTrouble:
        return {"StatusCode": 30}, ""
    return {"StatusCode": 0, "command": command}, ""


def update_job(model: PandaModel, call: Call) -> Reply:
    """updateJob."""
    fields, dialog = update_fields(model, call.parameters, call.caller)
    return render(call, fields, dialog)


def update_jobs_in_bulk(model: PandaModel, call: Call) -> Reply:
    """updateJobsInBulk: the first bad element stops it, with the earlier ones applied and no result told."""
    results: list[Any] = []
    try:
        for item in json.loads(call.parameters["jobList"]):
            for needed in ("jobId", "state"):
                if needed not in item:
                    raise KeyError(needed)
            reply = render(call, *update_fields(model, item, call.caller))
            results.append({"type": "json", "content": reply.text} if reply.is_json else reply.text)
    except (TypeError, ValueError, KeyError, RecursionError) as error:
        who = call.parameters.get("harvester_id")
        text = f"updateJobsInBulk {who} failed with {type(error).__name__} {error}"
        return Reply(200, json.dumps([False, text]))
    return Reply(200, json.dumps([True, results]))


def get_status(model: PandaModel, call: Call) -> Reply:
    """getStatus: ids separated by blanks, never JSON, defined jobs are not found."""
    found = [
        model.for_pilot(int(text)) if text.isascii() and text.isdigit() else None for text in _ids(call, None)
    ]
    words = "+".join("notfound" if job is None else job.status for job in found)
    numbers = "+".join("0" if job is None else str(job.attempt_nr) for job in found)
    return Reply(200, urlencode({"StatusCode": 0, "status": words, "attemptNr": numbers}))


def check_job_status(model: PandaModel, call: Call) -> Reply:
    """checkJobStatus: ids separated by commas, always JSON."""
    found = statuses(model, [int(text) for text in _ids(call, ",")])
    return Reply(200, json.dumps({"StatusCode": 0, "data": found}), True)


def _ids(call: Call, separator: str | None) -> list[str]:
    return str(call.parameters.get("ids", "")).split(separator)


def submit_jobs(model: PandaModel, call: Call) -> Reply:
    """submitJobs: pickled jobs, or JSON text where it is no pickle; answered as a pickle unless JSON is accepted."""
    reads_json = model.flavour.json_jobs
    try:
        answer: Any = model.submit(
            parse_jobs(_unpickled(str(call.parameters.get("jobs", "")), reads_json)), call.caller.subject
        )
    except (ValueError, RecursionError, BadPickle, BadJobList):
        answer = "ERROR: jobs cannot be read"
    if call.json_wanted and reads_json:
        return Reply(200, json.dumps(answer), True)
    return Reply(200, render_pickle(answer))


def _unpickled(text: str, reads_json: bool) -> Any:
    try:
        return parse_pickle(text)
    except BadPickle:
        if not reads_json:
            raise
    return json.loads(text)


def get_job_status(model: PandaModel, call: Call) -> Reply:
    """getJobStatus with ids as JSON text: positional records where no pickle is wanted, else records by name.

    On PostgreSQL the real server cannot render them; a job that is not known is a server error in any case.
    """
    if _PICKLED_IDS.fullmatch(str(call.parameters.get("ids", ""))):
        return _pickled_records(model, call, model.shown)
    ids = json.loads(str(call.parameters.get("ids", "")))
    jobs = [model.shown(panda_id) for panda_id in ids[:DESCRIBE_MAX] if isinstance(panda_id, int)]
    if "no_pickle" in call.parameters and None in jobs:
        return Reply(500, "'NoneType' object has no attribute 'dump_to_json_serializable'")
    if model.flavour.decimals:
        return Reply(500, "Object of type Decimal is not JSON serializable")
    known = [None if job is None else describe(job, model.epoch_s) for job in jobs]
    if "no_pickle" in call.parameters:
        return Reply(200, json.dumps([render_record(record) for record in known if record is not None]))
    return Reply(200, json.dumps(known), True)


def _pickled_records(model: PandaModel, call: Call, find: Callable[[int], PandaJob | None]) -> Reply:
    jobs = [find(panda_id) for panda_id in parse_pickle(str(call.parameters["ids"]))[:DESCRIBE_MAX]]
    known = [None if job is None else render_record(describe(job, model.epoch_s)) for job in jobs]
    if not model.flavour.v1:  # older: it has the first attributes only
        known = [None if record is None else [*record[:ATTRIBUTES_2018], record[-1]] for record in known]
    return Reply(200, render_records(known, model.flavour.package))


def get_full_job_status(model: PandaModel, call: Call) -> Reply:
    """getFullJobStatus: pickled ids, pickled records, the archive included."""
    return _pickled_records(model, call, model.jobs.get)


def get_ids_of_task(model: PandaModel, call: Call) -> Reply:
    """getPandaIDsWithTaskID."""
    return Reply(200, render_pickle(model.ids_of_task(int(call.parameters["jediTaskID"]))))


def order_ends(model: PandaModel, call: Call) -> Reply:
    """killJobs: pickled ids, and JSON where the flavour reads it too. With PostgreSQL it fails for every job."""
    text = str(call.parameters.get("ids", ""))
    code = call.parameters.get("code")
    pickled = _PICKLED_IDS.fullmatch(text) is not None
    if model.flavour.pickled_ids:
        if not pickled:
            return Reply(500, f"invalid load key, '{text[:1]}'.")
        return Reply(200, render_pickle([False] * text.count("I")))
    ids = parse_pickle(text) if pickled else json.loads(text)
    found = [isinstance(item, int) and model.order_end(item, code) for item in ids]
    return Reply(200, render_pickle(found)) if pickled else Reply(200, json.dumps(found), True)


def is_alive(model: PandaModel, call: Call) -> Reply:
    """isAlive."""
    return Reply(200, "alive=yes")


def get_resource_types(model: PandaModel, call: Call) -> Reply:
    """getResourceTypes: the three types by cores; always JSON in what was captured."""
    rows = (("Undefined", 1, None), ("SCORE", 1, 1), ("MCORE", 2, None))
    types = [
        {
            "resource_name": name,
            "mincore": least,
            "maxcore": most,
            "minrampercore": None,
            "maxrampercore": None,
        }
        for name, least, most in rows
    ]
    return render(call, {"StatusCode": 0, "Returns": 0, "ResourceTypes": types})


METHODS: Mapping[str, Callable[[PandaModel, Call], Reply]] = {
    "getResourceTypes": get_resource_types,
    "getJob": get_job,
    "updateJob": update_job,
    "updateJobsInBulk": update_jobs_in_bulk,
    "getStatus": get_status,
    "getJobStatus": get_job_status,
    "getFullJobStatus": get_full_job_status,
    "getPandaIDsWithTaskID": get_ids_of_task,
    "checkJobStatus": check_job_status,
    "submitJobs": submit_jobs,
    "killJobs": order_ends,
    "isAlive": is_alive,
}


def answer(model: PandaModel, method: str, call: Call) -> Reply | None:
    """The answer of one method, None if the server has no such method. Bad arguments: HTTP 500 with the text."""
    work = METHODS.get(method)
    if work is None:
        return None
    try:
        return work(model, call)
    except (TypeError, ValueError, RecursionError) as error:
        return Reply(500, str(error))
