"""Rules of the PanDA server as data: its times, codes of orders to end, labels; what a pilot can wish for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

PILOT_STATES = frozenset({"running", "starting", "holding", "transferring", "finished", "failed"})
DEFINED = frozenset({"pending", "waiting", "defined", "assigned"})
LABELS: Mapping[str | None, frozenset[str] | None] = {
    None: frozenset({"managed", "test", "prod_test", "install"}),
    "managed": frozenset({"managed", "test", "prod_test", "install"}),
    "user": frozenset({"user", "panda", "install"}),
    "unified": frozenset({"managed", "test", "prod_test", "install", "user", "panda"}),
}
REWRITTEN = frozenset({None, "managed", "user", "unified"})
MIN_TIMEOUT_S = 10.0
# A getJob that finds so many candidates locked by others gives up (maxAttemptIDx).
CANDIDATES = 10
SUBMIT_MAX = 5000
HIGH_PRIORITY = 800
INVALID_BATCH_ID = 1
NULL_COMMAND = "NULL"
NUMBER = re.compile(r"\d+\.*\d+")


def held_by_a_rival(panda_id: int, fetch: int, rivals: int) -> bool:
    """Whether another getJob has this candidate locked: all of them want the same best ones. No chance in it."""
    lot = (panda_id * 2654435761 + fetch * 40503) % 2**32 >> 16
    return lot % (rivals + 1) != 0


class DatabaseTrouble(Exception):
    """The server's statement failed: nothing of this update was stored (StatusCode 30)."""


@dataclass(frozen=True, slots=True)
class PandaTimes:
    """The server's own times in seconds (real ones by default; the demo shortens the first two)."""

    activate_s: float = 1.0
    adder_s: float = 10.0
    sent_max_s: float = 1800.0
    heartbeat_max_s: float = 7200.0
    holding_high_max_s: float = 10800.0
    holding_max_s: float = 172800.0
    activated_max_s: float = 7 * 86400.0
    archive_visible_s: float = 3600.0


@dataclass(frozen=True, slots=True)
class EndCode:
    """What job/kill with this code leaves of a job. `sub_status` None: unchanged; `again`: may be repeated."""

    status: str = "cancelled"
    error: int = 100
    diag: str = "killed by {user}"
    sub_status: str | None = None
    again: bool = False


END_CODES: Mapping[str, EndCode] = {
    "2": EndCode("closed", 102, "expired in {old}. status unchanged since {since}", "toreassign", True),
    "3": EndCode("cancelled", 103, "aborted by ExtIF"),
    "4": EndCode("closed", 102, "expired in {old}. status unchanged since {since}", "toreassign"),
    "8": EndCode("cancelled", 105, "reassigned to another site by rebrokerage. new {user}"),
    "9": EndCode(again=True),
    "10": EndCode("closed", 130, "fast rebrokerage due to Nq/Nr overshoot", None, True),
    "51": EndCode("closed", 100, "reassigned by JEDI", "toreassign", True),
    "52": EndCode("cancelled", 100, "{user}", None, True),
    "55": EndCode("closed", 100, "killed since task is (almost) done", "taskdone"),
    "60": EndCode("closed", 100, "closed by the pilot", None, True),
    "99": EndCode(again=True),
}


@dataclass(frozen=True, slots=True)
class Wish:
    """What a pilot asks for. Numbers of 0 do not filter; `timeout_s` bounds the server's loop."""

    queue: str
    count: int
    label: str | None = None
    timeout_s: float = 60.0
    task: int | None = None
    memory_mb: float = 0.0
    disk_mb: float = 0.0
    remaining_s: int | None = None
    node: str | None = None
    computing_element: str | None = None
    scheduler: str | None = None
