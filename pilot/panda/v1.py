"""PanDA's v1 dialect: `/api/v1/<module>/<method>`, strict JSON, the envelope {success, message, data}."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pilot.panda.legacy import SERVER_MARGIN_S, failure_of, make_ack, status_code
from pilot.panda.transport import Transport, excerpt
from pilot.panda.wire import parse_jobs, parse_json, shared_fields
from pilot.ports import Ack, Broken, Failure, Fetched, PandaId, Refused, ServerStatus, Unavailable, Update

JSON = {"Content-Type": "application/json", "Accept": "application/json"}
# Apache takes request lines of 8,190 bytes by default.
QUERY_MAX_BYTES = 7500
NO_JOBS = "No jobs in PanDA"
# Messages of success=false that are no definite no: the server could not look.
PASSING = ("Timed out", "Database error", "timeout")


def parse_envelope(text: str) -> dict[str, Any] | Broken:
    """The envelope; the header of a v1 answer says text/plain, so only the text counts."""
    try:
        value = parse_json(text)
    except ValueError:
        return Broken("answer is not JSON", excerpt(text))
    if not isinstance(value, dict) or not isinstance(value.get("success"), bool):
        return Broken("answer is no envelope", excerpt(text))
    return value


def refusal(envelope: Mapping[str, Any]) -> Failure:
    """What success=false means."""
    message = excerpt(str(envelope.get("message")))
    if any(word in message for word in PASSING):
        return Unavailable(message)
    return Refused("success=false", message)


def parse_fetch(text: str, panda_queue: str) -> Fetched | Failure:
    """Answer to acquire_jobs: `data` is {"StatusCode", "jobs"}, or null without jobs."""
    envelope = parse_envelope(text)
    if isinstance(envelope, Broken):
        return envelope
    if not envelope["success"]:
        return Fetched(()) if envelope.get("message") == NO_JOBS else refusal(envelope)
    data = envelope.get("data")
    if not isinstance(data, Mapping):
        return Broken("acquire_jobs has no data", excerpt(text))
    failure = failure_of(status_code(data), text)
    if failure is not None:
        return failure
    jobs = data.get("jobs", [])
    return (
        parse_jobs(jobs, panda_queue) if isinstance(jobs, list) else Broken("jobs is no list", excerpt(text))
    )


def render_update(update: Update) -> dict[str, Any]:
    """One element of `job_list`; v1 checks every type."""
    fields: dict[str, Any] = {"job_id": int(update.panda_id), "job_status": update.status.value}
    fields |= {v1: value for _, v1, value in shared_fields(update).values()}
    return fields


def parse_bulk(text: str, updates: Sequence[Update]) -> tuple[Ack, ...] | Failure:
    """Answer to update_jobs_bulk: one envelope per item. success=true alone proves nothing (StatusCode 30)."""
    envelope = parse_envelope(text)
    if isinstance(envelope, Broken):
        return envelope
    items = envelope.get("data")
    if not envelope["success"] or not isinstance(items, list):
        return refusal(envelope)
    return tuple(parse_item(update, item) for update, item in zip(updates, items, strict=False))


def parse_item(update: Update, item: Any) -> Ack:
    """One result of a bulk answer."""
    data = item.get("data") if isinstance(item, Mapping) else None
    if not isinstance(item, Mapping) or item.get("success") is not True or not isinstance(data, Mapping):
        message = item.get("message") if isinstance(item, Mapping) else item
        return Ack(update.panda_id, update.attempt_nr, False, reason=excerpt(str(message)))
    return make_ack(update, status_code(data), data.get("command"))


def parse_status(text: str, ids: Sequence[PandaId]) -> tuple[ServerStatus, ...] | Failure:
    """Answer to job/get_status, in the order asked."""
    envelope = parse_envelope(text)
    if isinstance(envelope, Broken):
        return envelope
    items = envelope.get("data")
    if not envelope["success"]:
        return refusal(envelope)
    if not isinstance(items, list) or len(items) != len(ids):
        return Broken("get_status gave another number of items", excerpt(text))
    return tuple(
        ServerStatus(panda_id, 0, str(item.get("status")), _word(item.get("command")))
        for panda_id, item in zip(ids, items, strict=True)
        if isinstance(item, Mapping) and isinstance(item.get("status"), str)
    )


def query_parts(ids: Sequence[PandaId]) -> list[list[PandaId]]:
    """Ids in parts whose query stays below QUERY_MAX_BYTES."""
    parts: list[list[PandaId]] = [[]]
    length = 0
    for panda_id in ids:
        size = len(f"job_ids={panda_id}&")
        if parts[-1] and length + size > QUERY_MAX_BYTES:
            parts.append([])
            length = 0
        parts[-1].append(panda_id)
        length += size
    return parts if ids else []


def _word(command: Any) -> str:
    return "" if command in (None, "NULL") else str(command)


def parse_depth(text: str, panda_queue: str) -> int | Failure:
    """Activated jobs of one queue in active_job_stats_by_site."""
    envelope = parse_envelope(text)
    if isinstance(envelope, Broken):
        return envelope
    data = envelope.get("data")
    if not envelope["success"] or not isinstance(data, Mapping):
        return refusal(envelope)
    counts = data.get(panda_queue, {})
    depth = counts.get("activated", 0) if isinstance(counts, Mapping) else None
    return depth if isinstance(depth, int) else Broken("activated is no number", excerpt(text))


@dataclass(frozen=True, slots=True)
class PandaV1:
    """Implements `ports.JobSource`. The caller keeps to the chunk size."""

    transport: Transport
    prod_source_label: str

    def _post(self, path: str, body: Mapping[str, Any]) -> str | Failure:
        return self.transport.post(f"/api/v1/{path}", json.dumps(body).encode(), JSON)

    def fetch(self, panda_queue: str, n: int) -> Fetched | Failure:
        """Up to n jobs; fewer are normal."""
        body = {
            "site_name": panda_queue,
            "prod_source_label": self.prod_source_label,
            "n_jobs": n,
            "timeout": int(max(11.0, self.transport.timeout_s - SERVER_MARGIN_S)),
        }
        text = self._post("pilot/acquire_jobs", body)
        return parse_fetch(text, panda_queue) if isinstance(text, str) else text

    def report(self, updates: Sequence[Update]) -> tuple[Ack, ...] | Failure:
        """One update_jobs_bulk."""
        text = self._post(
            "pilot/update_jobs_bulk", {"job_list": [render_update(update) for update in updates]}
        )
        return parse_bulk(text, updates) if isinstance(text, str) else text

    def status(self, ids: Sequence[PandaId]) -> tuple[ServerStatus, ...] | Failure:
        """job/get_status of these ids (repeated parameter), in as many calls as their length needs.

        Ids of a part that failed are left out once another part has been answered: nothing is known of them.
        """
        found: list[ServerStatus] = []
        failure: Failure | None = None
        for part in query_parts(ids):
            query = "&".join(f"job_ids={panda_id}" for panda_id in part)
            text = self.transport.get(f"/api/v1/job/get_status?{query}", JSON)
            answer = parse_status(text, part) if isinstance(text, str) else text
            if isinstance(answer, tuple):
                found.extend(answer)
            else:
                failure = answer
        return failure if failure is not None and not found else tuple(found)

    def queue_depth(self, panda_queue: str) -> int | Failure:
        """Activated jobs of the queue."""
        text = self.transport.get("/api/v1/statistics/active_job_stats_by_site", JSON)
        return parse_depth(text, panda_queue) if isinstance(text, str) else text
