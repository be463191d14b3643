"""PanDA's legacy dialect: `/server/panda/<method>`, form requests, urlencoded or JSON answers (servers up to 0.8.1)."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlencode

from pilot.panda.transport import Transport, excerpt
from pilot.panda.wire import parse_jobs, parse_json, shared_fields
from pilot.ports import (
    Ack,
    Broken,
    Failure,
    Fetched,
    PandaId,
    Refused,
    ServerStatus,
    Unavailable,
    Update,
)

FORM = {"Content-Type": "application/x-www-form-urlencoded"}
JSON_WANTED = {**FORM, "Accept": "application/json"}
PACKED = {"Content-Type": "application/json", "Content-Encoding": "gzip", "Accept": "application/json"}
# The server works on a bulk getJob for (timeout - 10) s; our own time-out must be longer than that.
SERVER_MARGIN_S = 20.0

STOPPED, NO_ROLE = "bulk update stopped", "StatusCode 60"
NOT_TOLD = "not told"
# Calls that isolate items at which a bulk update stops: enough for two of them in a chunk of 100.
ISOLATE_MAX = 28

# StatusCode -> what it means for a request (docs/facts/panda.md). 0 and 20 are answers, not failures.
STATUS_CODES: Mapping[int, str] = {
    10: "unavailable",
    30: "unavailable",
    40: "refused",
    50: "refused",
    60: "refused",
    70: "refused",
    80: "unavailable",
    90: "unavailable",
}


def failure_of(code: int | None, text: str) -> Failure | None:
    """The failure that a StatusCode means, None for 0 and 20."""
    if code in (0, 20):
        return None
    match STATUS_CODES.get(-1 if code is None else code):
        case "refused":
            return Refused(str(code), excerpt(text))
        case "unavailable":
            return Unavailable(f"StatusCode {code}: {excerpt(text)}")
        case _:
            return Broken(f"StatusCode {code!r} is unknown", excerpt(text))


def parse_fields(text: str) -> dict[str, Any] | Broken:
    """An answer's fields: a JSON object or an urlencoded text; values of the latter are text."""
    if text.lstrip().startswith("{"):
        try:
            value = parse_json(text)
        except ValueError:
            return Broken("answer is not JSON", excerpt(text))
        return value if isinstance(value, dict) else Broken("answer is no object", excerpt(text))
    fields = parse_qs(text, keep_blank_values=True)
    if "StatusCode" not in fields:
        return Broken("answer has no StatusCode", excerpt(text))
    return {name: values[0] for name, values in fields.items()}


def status_code(fields: Mapping[str, Any]) -> int | None:
    """StatusCode as a number, None if it is none."""
    try:
        return int(fields.get("StatusCode", ""))
    except (TypeError, ValueError):
        return None


def parse_fetch(text: str, panda_queue: str) -> Fetched | Failure:
    """Answer to a bulk getJob."""
    fields = parse_fields(text)
    if isinstance(fields, Broken):
        return fields
    code = status_code(fields)
    failure = failure_of(code, text)
    if failure is not None:
        return failure
    if code == 20:
        return Fetched(())
    jobs = fields.get("jobs", [fields] if "PandaID" in fields else None)
    if isinstance(jobs, str):
        try:
            jobs = parse_json(jobs)
        except ValueError:
            return Broken("jobs is not JSON", excerpt(jobs))
    if not isinstance(jobs, list):
        return Broken("answer has no list of jobs", excerpt(text))
    return parse_jobs(jobs, panda_queue)


def render_update(update: Update) -> dict[str, Any]:
    """One element of `jobList`."""
    fields: dict[str, Any] = {"jobId": int(update.panda_id), "state": update.status.value}
    fields |= {legacy: value for legacy, _, value in shared_fields(update).values()}
    return fields


def parse_bulk(text: str, updates: Sequence[Update]) -> tuple[Ack, ...] | Failure:
    """Answer to updateJobsInBulk: `[true, [r...]]` in order; after `[false, text]` nothing is known of any item."""
    try:
        value = parse_json(text)
    except ValueError:
        fields = parse_fields(text)
        if isinstance(fields, Broken):
            return fields
        return failure_of(status_code(fields), text) or Broken("bulk answer is no list", excerpt(text))
    if isinstance(value, dict):
        return failure_of(status_code(value), text) or Broken("bulk answer is no list", excerpt(text))
    if not isinstance(value, list) or len(value) != 2:
        return Broken("bulk answer is no pair", excerpt(text))
    if value[0] is not True or not isinstance(value[1], list):
        return Unavailable(f"{STOPPED}: {excerpt(str(value[1]))}")
    acks = tuple(parse_item(update, item) for update, item in zip(updates, value[1], strict=False))
    if acks and all(ack.reason == NO_ROLE for ack in acks):
        return Refused("60", "no pilot or production role")
    return acks


def parse_item(update: Update, item: Any) -> Ack:
    """One result of a bulk answer: urlencoded text, or JSON encoded twice."""
    if isinstance(item, Mapping) and item.get("type") == "json":
        item = item.get("content")
    fields = item if isinstance(item, Mapping) else parse_fields(str(item))
    if isinstance(fields, Broken):
        return Ack(update.panda_id, update.attempt_nr, False, reason=fields.reason)
    return make_ack(update, status_code(fields), fields.get("command"), has_command="command" in fields)


def make_ack(update: Update, code: int | None, command: Any, *, has_command: bool = True) -> Ack:
    """Accepted if StatusCode is 0 and there is a command (a final report's `alreadydone` and `tobekilled` mean that
    the server has it). A legacy answer without a command did nothing (an unknown state)."""
    word = "" if command in (None, "NULL") else str(command)
    if code != 0:
        return Ack(update.panda_id, update.attempt_nr, False, word, f"StatusCode {code}")
    if not has_command:
        return Ack(
            update.panda_id, update.attempt_nr, False, "", "no command in the answer: nothing was stored"
        )
    return Ack(update.panda_id, update.attempt_nr, True, word)


def parse_check(text: str, ids: Sequence[PandaId]) -> tuple[ServerStatus, ...] | Failure:
    """Answer to checkJobStatus (always JSON), in the order asked."""
    fields = parse_fields(text)
    if isinstance(fields, Broken):
        return fields
    failure = failure_of(status_code(fields), text)
    if failure is not None:
        return failure
    items = fields.get("data")
    if not isinstance(items, list) or len(items) != len(ids):
        return Broken("checkJobStatus gave another number of items", excerpt(text))
    return tuple(
        ServerStatus(panda_id, 0, str(item.get("status")), _word(item.get("command")))
        for panda_id, item in zip(ids, items, strict=True)
        if isinstance(item, Mapping) and isinstance(item.get("status"), str)
    )


def _word(command: Any) -> str:
    return "" if command in (None, "NULL") else str(command)


@dataclass(frozen=True, slots=True)
class PandaLegacy:
    """Implements `ports.JobSource`. The caller keeps to the chunk size.

    `packed`: requests are gzipped JSON instead of forms; servers of 2018 do not read that (docs/facts/panda.md).
    """

    transport: Transport
    prod_source_label: str
    packed: bool = False

    def _post(self, method: str, fields: Mapping[str, Any]) -> str | Failure:
        if self.packed:
            # Without the time of its making: the same request has the same bytes.
            body = gzip.compress(json.dumps(fields).encode(), mtime=0)
            return self.transport.post(f"/server/panda/{method}", body, PACKED)
        return self.transport.post(f"/server/panda/{method}", urlencode(fields).encode(), JSON_WANTED)

    def fetch(self, panda_queue: str, n: int) -> Fetched | Failure:
        """Up to n jobs; fewer are normal."""
        form = {
            "siteName": panda_queue,
            "prodSourceLabel": self.prod_source_label,
            "nJobs": n,
            "timeout": int(max(11.0, self.transport.timeout_s - SERVER_MARGIN_S)),
        }
        text = self._post("getJob", form)
        return parse_fetch(text, panda_queue) if isinstance(text, str) else text

    def report(self, updates: Sequence[Update]) -> tuple[Ack, ...] | Failure:
        """One updateJobsInBulk. Where the server stops at a bad item, halves are sent until that item stands alone."""
        answer = self._report(updates)
        if not _stopped(answer) or len(updates) < 2:
            return answer
        acks: list[Ack] = []
        waiting, calls = [updates], 0
        while waiting and calls < ISOLATE_MAX:
            part = waiting.pop()
            half = (len(part) + 1) // 2
            for piece in (part[:half], part[half:]):
                calls += 1
                found = self._report(piece)
                if isinstance(found, tuple):
                    acks.extend(found)
                elif _stopped(found) and len(piece) > 1:
                    waiting.append(piece)
        return tuple(acks) if acks else answer

    def _report(self, updates: Sequence[Update]) -> tuple[Ack, ...] | Failure:
        items = json.dumps([render_update(update) for update in updates])
        text = self._post("updateJobsInBulk", {"jobList": items})
        return parse_bulk(text, updates) if isinstance(text, str) else text

    def status(self, ids: Sequence[PandaId]) -> tuple[ServerStatus, ...] | Failure:
        """checkJobStatus of these ids."""
        text = self._post("checkJobStatus", {"ids": ",".join(str(panda_id) for panda_id in ids)})
        return parse_check(text, ids) if isinstance(text, str) else text

    def queue_depth(self, panda_queue: str) -> int | Failure:
        """The legacy API has no such call for pilots: Refused with the code NOT_TOLD where the server lives."""
        text = self.transport.get("/server/panda/isAlive", {})
        if not isinstance(text, str):
            return text
        if text.strip() != "alive=yes":
            return Broken("isAlive gave another answer", excerpt(text))
        return Refused(NOT_TOLD, "the server lives; the legacy dialect does not tell the depth of a queue")


def _stopped(answer: object) -> bool:
    return isinstance(answer, Unavailable) and answer.reason.startswith(STOPPED)
