"""What is said to a running `simsite up`: its control socket (0600), and how a command finds it."""

from __future__ import annotations

import json
import os
import tempfile
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pilot.control import NAME, order_daemon
from pilot.control import ControlError as Unanswered
from simulators.site.faults import PANDA, SiteOrder, UnknownFault, plan_fault
from simulators.torque.control import ControlError, order

PREFIX = "simsite-"
VARIABLE = "SIMSITE_RUNTIME"
ANSWER_S = 30.0


class NoSite(Exception):
    """No running site, or more than one; the text says what to do."""


def parse_request(serial: int, request: Mapping[str, Any]) -> tuple[int, tuple[SiteOrder, ...]]:
    """A request of the control socket: {"verb": "fault", "name", "target", "amount"}. Raises ValueError."""
    if request.get("verb") != "fault":
        raise UnknownFault("unknown request")
    target, amount = request.get("target"), request.get("amount")
    if (
        not isinstance(target, str | None)
        or isinstance(amount, bool)
        or not isinstance(amount, int | float | None)
    ):
        raise UnknownFault("target: expected a text; amount: expected a number")
    return serial, plan_fault(str(request.get("name")), target, amount)


def carry_out(orders: tuple[SiteOrder, ...], torque: str, panda_orders: str) -> tuple[bool, tuple[str, ...]]:
    """Give the orders; whether all were taken, and what was said."""
    said = []
    for item in orders:
        try:
            if item.server == PANDA:
                _tell_panda(panda_orders, item.body)
            else:
                answer = order(torque, dict(item.body), ANSWER_S)
                said += [f"{name}: {value}" for name, value in answer.items()]
        except (ControlError, OSError) as error:
            return False, (*said, str(error))
    return True, tuple(said)


def _tell_panda(url: str, body: Mapping[str, Any]) -> None:
    request = urllib.request.Request(f"{url}/sim/fault", json.dumps(dict(body)).encode())
    try:
        with urllib.request.urlopen(request, timeout=ANSWER_S):
            return
    except urllib.error.HTTPError as error:
        raise ControlError(error.read().decode(errors="replace")[:200]) from error


def find_runtime(given: Path | None) -> Path:
    """Directory of the running site: the given one, that of the variable, or the only one. Raises NoSite."""
    named = given or (Path(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else None)
    if named is not None:
        return named
    found = [
        path.parent
        for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*/{NAME}")
        if os.access(path, os.W_OK)
    ]
    if not found:
        raise NoSite(f"no site runs here; start one with simsite up, or name its --runtime (or {VARIABLE})")
    if len(found) > 1:
        shown = ", ".join(sorted(str(path) for path in found))
        raise NoSite(f"{len(found)} sites run here ({shown}): name one with --runtime (or {VARIABLE})")
    return found[0]


def read_site(runtime: Path) -> dict[str, Any]:
    """site.json of a running site. Raises NoSite."""
    try:
        site: dict[str, Any] = json.loads((runtime / "site.json").read_text())
    except (OSError, ValueError) as error:
        raise NoSite(f"no site runs on {runtime}: {error}") from error
    return site


def say_fault(runtime: Path, name: str, target: str | None, amount: float | None) -> tuple[bool, list[str]]:
    """Give a fault to a running site: whether it happened, and what was said. Raises NoSite."""
    request = {"verb": "fault", "name": name, "target": target, "amount": amount}
    try:
        answer = order_daemon(runtime, request)
    except Unanswered as error:
        raise NoSite(str(error).replace("daemon", "site")) from error
    return bool(answer.get("done")), [str(line) for line in answer.get("lines", [])]
