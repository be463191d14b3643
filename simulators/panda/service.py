"""What one server process holds: model, lock, faults, access log. Used by http.py."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any, TextIO

from pilot.lease import process_start
from simulators.panda import monitor
from simulators.panda.dispatch import PLAIN, HttpReply, HttpRequest, respond
from simulators.panda.job import table_row
from simulators.panda.model import PandaModel
from simulators.panda.monitor import render_monitor
from simulators.panda.settings import Settings

FAULTS = ("lose-next-answer", "500", "html", "slow", "kill-caller")
# A process that is to die with a call: before the work, after it, or once the answer has gone.
MOMENTS = ("before", "worked", "answered")
ORDERS = ("outage", "failing", "losing", "mend")
_QUEUE = re.compile(r'(?:"site_name"\s*:\s*"|siteName=)([^"&]{1,100})')
PAGE = "<html><head><title>502 Bad Gateway</title></head><body>Bad Gateway</body></html>"


class BadFault(Exception):
    """An order to spoil calls that makes no sense."""


@dataclass(slots=True)
class Fault:
    """Spoil the next `count` calls whose path matches.

    lose-next-answer: worked, then the connection is closed. 500, html: an error page, instead of the work or, with
    `after`, after it. slow: `seconds` pass before the work. kill-caller: `victim` (pid and start in ticks) gets
    SIGKILL at `moment`: `before` the work, which is not done; when it is `worked`, before the answer; once it is
    `answered`.
    """

    name: str
    count: int
    path: re.Pattern[str]
    seconds: float
    after: bool
    moment: str = ""
    victim: tuple[int, int] = (0, 0)

    def kill(self, moment: str) -> bool:
        """Whether this was the moment; the victim is dead then, if it was the process that was meant."""
        if self.name != "kill-caller" or self.moment != moment:
            return False
        if process_start(self.victim[0]) == self.victim[1]:
            os.kill(self.victim[0], signal.SIGKILL)
        return True


@dataclass(frozen=True, slots=True)
class Order:
    """What happens to the whole server.

    outage: nobody listens for `seconds`, the server's daemons go on. failing: this share of all calls fails by chance,
    half of those before their work. losing: of this share of all calls the answer never arrives, the work is done.
    mend: nothing is wrong any more.
    """

    name: str
    seconds: float
    share: float


def parse_fault(value: Any) -> Fault | Order:
    """A fault from the body of /sim/fault. Raises BadFault."""
    if isinstance(value, Mapping) and value.get("name") in ORDERS:
        return _parse_order(value)
    if not isinstance(value, Mapping) or value.get("name") not in FAULTS:
        raise BadFault(f"name: expected one of {', '.join(FAULTS + ORDERS)}")
    try:
        count, seconds = int(value.get("count", 1)), float(value.get("seconds", 1.0))
        pattern = re.compile(str(value.get("path", "")))
    except (TypeError, ValueError, re.error) as error:
        raise BadFault(f"count, seconds or path: {error}") from error
    moment, victim = value.get("moment", ""), value.get("victim", [0, 0])
    if value["name"] == "kill-caller":
        plain = (
            isinstance(victim, list) and len(victim) == 2 and all(type(number) is int for number in victim)
        )
        if moment not in MOMENTS or not plain or victim[0] <= 1:
            raise BadFault(f"moment: expected one of {', '.join(MOMENTS)}; victim: expected pid and start")
    if count < 1 or not 0 <= seconds <= 3600:
        raise BadFault("count: expected 1 and more; seconds: expected 0 to 3600")
    after = value.get("after") is True
    return Fault(str(value["name"]), count, pattern, seconds, after, str(moment), tuple(victim))


def _parse_order(value: Mapping[str, Any]) -> Order:
    try:
        order = Order(str(value["name"]), float(value.get("seconds", 60.0)), float(value.get("share", 0.05)))
    except (TypeError, ValueError) as error:
        raise BadFault(f"seconds or share: {error}") from error
    if not 0 < order.seconds < 1e9 or not 0 <= order.share <= 1:
        raise BadFault("seconds: expected more than 0; share: expected 0 to 1")
    return order


def fetched_queue(request: HttpRequest) -> str | None:
    """The queue of a getJob in either dialect, "" where it cannot be seen; None: another call."""
    if not request.path.endswith(("/acquire_jobs", "/getJob")):
        return None
    found = _QUEUE.search(request.body[:65536].decode("utf-8", "replace"))
    return found[1] if found else ""


@dataclass(slots=True)
class PandaServer:
    """All that the connections share. The model runs on the monotonic clock and is only touched under `lock`.

    `back_at`: end of an outage, on the monotonic clock. `failing`: share of calls that fail by chance,
    `losing`: share whose answers are lost.
    """

    model: PandaModel
    access_log: TextIO | None = None
    settings: Settings = field(default_factory=Settings)
    lock: threading.Lock = field(default_factory=threading.Lock)
    log_lock: threading.Lock = field(default_factory=threading.Lock)
    faults: list[Fault] = field(default_factory=list)
    back_at: float | None = None
    failing: float = 0.0
    losing: float = 0.0
    random: Random = field(default_factory=lambda: Random(8))
    calls: dict[str, int] = field(default_factory=dict)
    spoilt: int = 0
    fetching: dict[str, int] = field(default_factory=dict)

    @property
    def away(self) -> bool:
        """Whether an outage lasts."""
        back_at = self.back_at
        return back_at is not None and time.monotonic() < back_at

    def advance(self) -> None:
        """Bring the model to now."""
        with self.lock:
            self.model.advance(time.monotonic())

    def answer(self, request: HttpRequest, trusted: bool = False) -> HttpReply:
        """The reply to one request, the simulator's own paths included. `trusted`: nobody is asked who calls."""
        match request.path:
            case "/sim/table":
                return HttpReply(200, "application/json", json.dumps(self.table()))
            case "/sim/counts":
                return HttpReply(200, "application/json", json.dumps(self.counts()))
            case monitor.PATH:
                with self.lock:
                    self.model.advance(time.monotonic())
                    return HttpReply(
                        200, "text/html; charset=utf-8", render_monitor(self.model, request.query)
                    )
            case "/sim/brief":
                return HttpReply(200, "application/json", json.dumps(self.brief()))
            case "/sim/fault":
                return self._take_fault(request.body, trusted)
            case _:
                return self._work(request, trusted)

    def _work(self, request: HttpRequest, trusted: bool) -> HttpReply:
        """One call under the lock. Fetches that wait for it are rivals of the one that has it."""
        queue = fetched_queue(request)
        if queue is not None:
            with self.log_lock:
                self.fetching[queue] = self.fetching.get(queue, 0) + 1
        try:
            with self.lock:
                self.model.advance(time.monotonic())
                self.model.rivals = 0 if queue is None else self.fetching[queue] - 1
                settings = replace(self.settings, require_role=False) if trusted else self.settings
                return respond(self.model, settings, request)
        finally:
            if queue is not None:
                with self.log_lock:
                    self.fetching[queue] -= 1

    def _take_fault(self, body: bytes, trusted: bool) -> HttpReply:
        try:
            fault = parse_fault(json.loads(body or b"null"))
        except (ValueError, BadFault) as error:
            return HttpReply(400, PLAIN, str(error))
        if isinstance(fault, Fault) and fault.name == "kill-caller" and not trusted:
            return HttpReply(403, PLAIN, "kill-caller: only whoever runs the site may end a process")
        with self.lock:
            match fault:
                case Fault():
                    self.faults.append(fault)
                case Order("outage", seconds):
                    self.back_at = time.monotonic() + seconds
                case Order("failing"):
                    self.failing = fault.share
                case Order("losing"):
                    self.losing = fault.share
                case Order():
                    self.back_at, self.failing, self.losing = None, 0.0, 0.0
                    self.faults.clear()
        return HttpReply(200, PLAIN, "ok")

    def fault_for(self, path: str) -> Fault | None:
        """The fault that spoils this call, counted down."""
        if not (self.faults or self.failing or self.losing) or path.startswith("/sim/"):
            return None
        with self.lock:
            if self.failing and self.random.random() < self.failing:
                name = self.random.choice(("lose-next-answer", "500", "html"))
                return Fault(name, 1, re.compile(""), 0.0, self.random.random() < 0.5)
            if self.losing and self.random.random() < self.losing:
                return Fault("lose-next-answer", 1, re.compile(""), 0.0, True)
            for fault in self.faults:
                if fault.path.search(path):
                    fault.count -= 1
                    if fault.count == 0:
                        self.faults.remove(fault)
                    return fault
        return None

    def counts(self) -> dict[str, Any]:
        """Calls by path and those that a fault hit, updates, jobs by status: little, also of a large table."""
        with self.lock:
            jobs = Counter(job.status for job in self.model.jobs.values())
            received = self.model.updates_received
            calls = dict(self.calls)
            return {"calls": calls, "spoilt": self.spoilt, "updates_received": received, "jobs": dict(jobs)}

    def brief(self) -> list[list[Any]]:
        """Of each job: PandaID, status, attempt, name, codes of dispatcher and pilot."""
        with self.lock:
            return [
                [
                    job.panda_id,
                    job.status,
                    job.attempt_nr,
                    job.attributes.get("jobName"),
                    job.attributes.get("jobDispatcherErrorCode"),
                    job.attributes.get("pilotErrorCode"),
                ]
                for job in self.model.jobs.values()
            ]

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
        with self.log_lock:
            self.calls[request.path[:200]] = self.calls.get(request.path[:200], 0) + 1
            self.spoilt += fault is not None
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
