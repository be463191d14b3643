"""What one server process holds: model, lock, faults, access log. Used by http.py."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TextIO

from simulators.panda.dispatch import PLAIN, HttpReply, HttpRequest, respond
from simulators.panda.job import table_row
from simulators.panda.model import PandaModel
from simulators.panda.settings import Settings

FAULTS = ("lose-next-answer", "500", "html", "slow")
PAGE = "<html><head><title>502 Bad Gateway</title></head><body>Bad Gateway</body></html>"


class BadFault(Exception):
    """An order to spoil calls that makes no sense."""


@dataclass(slots=True)
class Fault:
    """Spoil the next `count` calls whose path matches.

    lose-next-answer: worked, then the connection is closed. 500, html: an error page, instead of the work or, with
    `after`, after it. slow: `seconds` pass before the work.
    """

    name: str
    count: int
    path: re.Pattern[str]
    seconds: float
    after: bool


def parse_fault(value: Any) -> Fault:
    """A fault from the body of /sim/fault. Raises BadFault."""
    if not isinstance(value, Mapping) or value.get("name") not in FAULTS:
        raise BadFault(f"name: expected one of {', '.join(FAULTS)}")
    try:
        count, seconds = int(value.get("count", 1)), float(value.get("seconds", 1.0))
        pattern = re.compile(str(value.get("path", "")))
    except (TypeError, ValueError, re.error) as error:
        raise BadFault(f"count, seconds or path: {error}") from error
    if count < 1 or not 0 <= seconds <= 3600:
        raise BadFault("count: expected 1 and more; seconds: expected 0 to 3600")
    return Fault(str(value["name"]), count, pattern, seconds, value.get("after") is True)


@dataclass(slots=True)
class PandaServer:
    """All that the connections share. The model runs on the monotonic clock and is only touched under `lock`."""

    model: PandaModel
    access_log: TextIO | None = None
    settings: Settings = field(default_factory=Settings)
    lock: threading.Lock = field(default_factory=threading.Lock)
    log_lock: threading.Lock = field(default_factory=threading.Lock)
    faults: list[Fault] = field(default_factory=list)

    def advance(self) -> None:
        """Bring the model to now."""
        with self.lock:
            self.model.advance(time.monotonic())

    def answer(self, request: HttpRequest) -> HttpReply:
        """The reply to one request, the simulator's own paths included."""
        match request.path:
            case "/sim/table":
                return HttpReply(200, "application/json", json.dumps(self.table()))
            case "/sim/fault":
                return self._take_fault(request.body)
            case _:
                with self.lock:
                    self.model.advance(time.monotonic())
                    return respond(self.model, self.settings, request)

    def _take_fault(self, body: bytes) -> HttpReply:
        try:
            fault = parse_fault(json.loads(body or b"null"))
        except (ValueError, BadFault) as error:
            return HttpReply(400, PLAIN, str(error))
        with self.lock:
            self.faults.append(fault)
        return HttpReply(200, PLAIN, "ok")

    def fault_for(self, path: str) -> Fault | None:
        """The fault that spoils this call, counted down."""
        if not self.faults or path.startswith("/sim/"):
            return None
        with self.lock:
            for fault in self.faults:
                if fault.path.search(path):
                    fault.count -= 1
                    if fault.count == 0:
                        self.faults.remove(fault)
                    return fault
        return None

    def table(self) -> dict[str, Any]:
        """Every job with all that the server knows, for readers of evidence."""
        with self.lock:
            rows = [table_row(job, self.model.epoch_s) for job in self.model.jobs.values()]
            return {
                "schema": 1,
                "flavour": self.model.flavour.name,
                "updates_received": self.model.updates_received,
                "jobs": rows,
            }

    def note(
        self, request: HttpRequest, reply: HttpReply | None, took_ms: float, fault: Fault | None
    ) -> None:
        """One line of the access log: time, method path, status, items, ms, and the fault that spoiled it."""
        if self.access_log is None:
            return
        shown = "".join(c if c.isprintable() and c != " " else ascii(c)[1:-1] for c in request.path[:200])
        status, items = ("-", 0) if reply is None else (reply.status, reply.items)
        spoiled = "" if fault is None else f" fault={fault.name}"
        at_s = time.monotonic() + self.model.epoch_s
        line = f"{at_s:.3f} {request.method} {shown} {status} {items} {took_ms:.1f}{spoiled}\n"
        with self.log_lock:
            self.access_log.write(line)
            self.access_log.flush()
