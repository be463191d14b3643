"""One HTTP request to the simulated server -> one reply, in both dialects. Pure: no socket, no clock."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

from simulators.panda import legacy, v1
from simulators.panda.model import PandaModel
from simulators.panda.settings import Settings, caller_of
from simulators.panda.tokens import refuse_token

JSON, PLAIN = "application/json", "text/plain"


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """Header names in lower case; `query` without its question mark."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class HttpReply:
    """Status, content type and text. `items`: jobs that the call was about, for the access log."""

    status: int
    content_type: str
    text: str
    items: int = 0


def respond(model: PandaModel, settings: Settings, request: HttpRequest) -> HttpReply:
    """The server's reply. The model must have been advanced to the time of the call."""
    fields = request.path.strip("/").split("/")
    flavour = model.flavour
    reply: HttpReply | None = None
    refused = refuse_token(request.headers) if settings.require_role else None
    if refused is not None:
        return HttpReply(403, PLAIN, refused)
    if len(fields) == 3 and fields[:2] == ["cache", "schedconfig"]:
        return _queuedata(settings, fields[2])
    if flavour.legacy and len(fields) == 3 and fields[:2] == ["server", "panda"]:
        reply = _legacy(model, settings, fields[2], request)
    elif flavour.v1 and len(fields) == 4 and fields[:2] == ["api", "v1"]:
        reply = _v1(model, settings, f"{fields[2]}/{fields[3]}", request)
    return reply or HttpReply(403, PLAIN, f"ERROR : method {fields[-1][:60]} is forbidden")


def _queuedata(settings: Settings, name: str) -> HttpReply:
    """What a pilot is told of a queue: /cache/schedconfig/QUEUE.all.json, as the setting `queuedata` has it."""
    queue = name.removesuffix(".all.json")
    if queue == name or queue not in settings.queuedata:
        return HttpReply(404, PLAIN, "Not Found")
    return HttpReply(200, JSON, json.dumps(settings.queuedata[queue]))


def _content_type(request: HttpRequest) -> str:
    return request.headers.get("content-type", "")


def _accepts_json(request: HttpRequest) -> bool:
    return JSON in request.headers.get("accept", "")


def _form(request: HttpRequest) -> dict[str, list[str]]:
    text = request.body.decode("utf-8", "replace") if request.method == "POST" else request.query
    return parse_qs(text, keep_blank_values=True)


def _legacy(model: PandaModel, settings: Settings, method: str, request: HttpRequest) -> HttpReply | None:
    """A JSON body is always gunzipped here, whatever the headers say."""
    if _content_type(request) == JSON:
        try:
            parameters = json.loads(gzip.decompress(request.body))
        except (OSError, EOFError, zlib.error, ValueError, RecursionError) as error:
            return HttpReply(500, PLAIN, str(error))
        if not isinstance(parameters, dict):
            return HttpReply(500, PLAIN, "parameters are no object")
        parameters = {k: str(v) if isinstance(v, bool) else v for k, v in parameters.items()}
    else:
        parameters = {name: values[0] for name, values in _form(request).items()}
    caller = caller_of(settings, request.headers)
    reply = legacy.answer(model, method, legacy.Call(parameters, _accepts_json(request), caller))
    if reply is None:
        return None
    return HttpReply(
        reply.status, JSON if reply.is_json else PLAIN, reply.text, reply.text.count("StatusCode")
    )


def _v1(model: PandaModel, settings: Settings, name: str, request: HttpRequest) -> HttpReply | None:
    arguments: Any = None
    if request.method == "POST" and _content_type(request) == JSON:
        try:
            arguments = json.loads(_unpacked(request))
        except (OSError, EOFError, zlib.error, ValueError, RecursionError) as error:
            return HttpReply(500, PLAIN, f"ERROR : received invalid JSON : {error}")
        if not isinstance(arguments, dict):
            return HttpReply(500, PLAIN, "ERROR : received invalid JSON : no object")
    elif request.method == "POST":
        arguments = {key: values[0] for key, values in _form(request).items()}
    query = parse_qs(request.query, keep_blank_values=True)
    found = v1.answer(model, name, request.method, arguments, query, caller_of(settings, request.headers))
    if found is None:
        return None
    wants_json = _accepts_json(request) or _content_type(request) == JSON
    text = json.dumps(found) if wants_json else str(found)
    data = found.get("data")
    jobs = data.get("jobs", data) if isinstance(data, dict) else data
    return HttpReply(200, PLAIN, text, len(jobs) if isinstance(jobs, list | dict) else 0)


def _unpacked(request: HttpRequest) -> bytes:
    packed = request.headers.get("content-encoding") == "gzip"
    return gzip.decompress(request.body) if packed else request.body
