"""One tick: everything that is due, in the order in which work flows. Level-triggered: the next tick sees what is left.

An error in one service is logged and does not keep the others from their work.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from django.db import Error as DatabaseError
from django.db import close_old_connections

from prodsys_core.config import Config
from prodsys_core.lifecycle import Role
from prodsys_core.models import MESSAGE_LENGTH
from prodsys_core.ports import JobSink
from prodsys_core.services import answers, following, lease, local, moves, runs, sending, tasks
from prodsys_core.services.moves import Mover
from prodsys_core.yamlfile import BadFile

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TickReport:
    """What a tick did: a count by service, and the services that failed. `held_by`: who else runs the tick."""

    counts: dict[str, int]
    failed: tuple[str, ...] = ()
    held_by: str | None = None


def tick(
    config: Config, sink: JobSink, now: datetime, clock: Callable[[], datetime] | None = None
) -> TickReport:
    """Do everything that is due at `now`, if nobody else does. By `clock` the lease is renewed while the tick lasts;
    once it was lost all the same, nothing more is changed."""
    owner = lease.own_name()
    held_by = lease.take_lease(owner, now, config.lease_s)
    if held_by is not None:
        return TickReport({}, held_by=held_by)
    hold = lease.make_hold(owner, config.lease_s, clock or (lambda: now))
    services: tuple[tuple[str, Callable[[Mover], int]], ...] = (
        ("of no status", lambda _: moves.statuses_check()),
        ("generated", lambda mover: tasks.tasks_generate(config, mover)),
        ("found again", lambda mover: answers.batches_settle(config, sink, mover)),
        ("ended", lambda mover: following.jobs_follow(config, sink, mover)),
        ("end asked", lambda mover: following.jobs_cancel(config, sink, mover)),
        ("runs released", lambda mover: sending.runs_release(config, mover)),
        ("staged", sending.steps_stage),
        ("merges planned", lambda mover: runs.runs_merge(config, mover)),
        ("steps opened", lambda mover: runs.runs_advance(config, mover)),
        ("steps done", lambda mover: local.steps_do(config, mover)),
        ("steps opened after", lambda mover: runs.runs_advance(config, mover)),
        ("sent", lambda mover: sending.steps_send(config, sink, mover)),
    )
    counts: dict[str, int] = {}
    failed: list[str] = []
    for name, perform in services:
        try:
            hold()
            counts[name] = perform(Mover(name, Role.SERVICE, now, hold))
        except lease.LeaseLost as error:
            log.error("%s: the lease was lost to %s; the rest of this tick is left", name, error)
            return TickReport(counts, tuple(failed), held_by=str(error))
        except DatabaseError as error:
            log.error("%s: database: %s", name, error)
            failed.append(name)
        except Exception:
            log.exception("%s failed", name)
            failed.append(name)
    did = [f"{name} failed" for name in failed] + [f"{name}: {n}" for name, n in counts.items() if n]
    lease.change_lease(owner, ticked_at=now, last_tick=", ".join(did)[:MESSAGE_LENGTH])
    return TickReport(counts, tuple(failed))


def run_loop(
    config: Config,
    sink: JobSink,
    every_s: float,
    stop: threading.Event,
    clock: Callable[[], datetime],
    reload: Callable[[], Config],
) -> None:
    """Tick until `stop` is set, `every_s` apart; gives the lease back at the end. Before each tick the sites are read
    again; a file that cannot be used changes nothing. What the process was started with (database, PanDA) stays."""
    while not stop.is_set():
        close_old_connections()
        try:
            config = config.model_copy(update={"sites": reload().sites})
        except BadFile as error:
            log.error("configuration not read again: %s", error)
        try:
            report = tick(config, sink, clock(), clock)
            if report.held_by:
                log.warning("another tick runs: %s", report.held_by)
        except DatabaseError as error:
            log.error("database: %s", error)
        stop.wait(every_s)
    lease.change_lease(lease.own_name(), until=clock())
