"""Kills of the daemon in a load run: SIGKILL around calls and commands, by the simulators' own hands, and by chance."""

from __future__ import annotations

import json
import os
import shlex
import signal
import stat
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from pilot.lease import process_start
from simulators.panda.service import MOMENTS

ORDER_S = 30.0
COMMANDS = ("qsub", "qstat", "qdel")
# Paths of PanDA in either dialect.
CALLS = {"fetch": "/(acquire_jobs|getJob)$", "report": "/(update_jobs_bulk|updateJobsInBulk)$"}
# Of 50 kills 36 come around calls and commands.
AROUND_SHARE = 0.72
# A call that does not come again within this time: the kill comes by chance instead.
PATIENCE_S = 12.0
CHANCE_S = 1.5

# A command as the daemon calls it: it kills its caller before its work, after it, or once the answer has gone.
_WRAPPER = """#!/bin/sh
here={here}
kill_at() {{ mv "$here/{name}.$1" "$here/{name}.$1.$$" 2>/dev/null && kill -9 $PPID; }}
kill_at before && exit 1
{real} "$@" >"$here/out.$$" 2>"$here/err.$$"
code=$?
kill_at worked && exit 1
cat "$here/out.$$"
cat "$here/err.$$" >&2
rm -f "$here/out.$$" "$here/err.$$"
kill_at answered
exit $code
"""


@dataclass(frozen=True, slots=True)
class Kill:
    """One kill: around `target` (a key of CALLS or one of the commands) at `moment`, or by chance (both empty)."""

    target: str = ""
    moment: str = ""

    @property
    def name(self) -> str:
        """For the report."""
        return f"{self.target} {self.moment}" if self.target else "by chance"


def plan_kills(count: int, random: Random) -> Iterator[Kill]:
    """`count` kills in the order in which they are tried: each pair of target and moment in turn, chance in between."""
    around = round(count * AROUND_SHARE)
    pairs = [Kill(target, moment) for moment in MOMENTS for target in (*CALLS, "qsub", "qstat")]
    kills = [pairs[number % len(pairs)] for number in range(around)] + [Kill()] * (count - around)
    random.shuffle(kills)
    return iter(kills)


def wrap_commands(directory: Path, real: str) -> str:
    """Write a wrapper for each command of `real`; returns the directory that the daemon is to use."""
    directory.mkdir(parents=True, exist_ok=True)
    for name in COMMANDS:
        path = directory / name
        words = {"here": shlex.quote(str(directory)), "real": shlex.quote(f"{real}/{name}"), "name": name}
        path.write_text(_WRAPPER.format(**words))
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(directory)


@dataclass(slots=True)
class Killer:
    """Arms one kill after the other. `pid` of the daemon is told with `arm`."""

    kills: Iterator[Kill]
    directory: Path
    orders_url: str
    clock: Callable[[], float]
    random: Random
    done: Counter[str] = field(default_factory=Counter)
    armed: Kill | None = None
    at_s: float = 0.0
    _pid: int = 0

    def arm(self, pid: int) -> None:
        """The next kill of this daemon is prepared; none is left: nothing."""
        self._pid = pid
        if self.armed is None:
            self.armed = next(self.kills, None)
        if self.armed is None:
            return
        self.at_s = self.clock() + (PATIENCE_S if self.armed.target else self.random.uniform(0.0, CHANCE_S))
        if self.armed.target in CALLS:
            victim = [pid, process_start(pid)]
            order = {"name": "kill-caller", "path": CALLS[self.armed.target], "victim": victim}
            self._order({**order, "moment": self.armed.moment})
        elif self.armed.target:
            (self.directory / f"{self.armed.target}.{self.armed.moment}").touch()

    def look(self) -> None:
        """A kill by chance that is due, or one whose call does not come, is carried out now."""
        if self.armed is None or self.clock() < self.at_s:
            return
        self._take_back()
        self.armed = Kill()
        os.kill(self._pid, signal.SIGKILL)

    def disarm(self) -> None:
        """No more kills; one that has happened meanwhile is still to be noted."""
        self._take_back()
        self.kills = iter(())

    def _take_back(self) -> None:
        if self.armed is None:
            return
        if self.armed.target in COMMANDS:
            (self.directory / f"{self.armed.target}.{self.armed.moment}").unlink(missing_ok=True)
        elif self.armed.target:
            self._order({"name": "mend"})

    def killed(self) -> None:
        """The daemon died of it."""
        if self.armed is not None:
            self.done[self.armed.name] += 1
        self.armed = None

    def _order(self, order: dict[str, object]) -> None:
        body = json.dumps(order).encode()
        with urllib.request.urlopen(f"{self.orders_url}/sim/fault", body, timeout=ORDER_S):
            pass
