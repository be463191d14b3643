"""Processes that are killed, stopped, doubled, or whose clock steps."""

from __future__ import annotations

from typing import Any

from pilot.multijob import actions as a
from simulators.world.faults.fault import Fault, Site
from simulators.world.lanes import Fate
from simulators.world.world import Daemon

_TYPES: tuple[type, ...] = (
    a.AppendEvents,
    a.FetchJobs,
    a.ReportJobs,
    a.PrepareBundle,
    a.SubmitBatchJob,
    a.ListBatchJobs,
    a.CancelBatchJob,
    a.ReadEvidence,
    a.MakeClaim,
    a.SetDoor,
    a.WriteClosed,
    a.WriteCommands,
    a.RemoveBundle,
)


def crash(site: Site) -> Fault:
    """SIGKILL for the daemon at a drawn time."""
    start_s, _ = site.window(1.0, 1.0)
    back_s = site.random.choice((1.0, site.random.uniform(1.0, 60.0), site.random.uniform(60.0, 3 * 3600.0)))
    fault = Fault("crash", start_s, start_s + 1.0, f"back after {back_s:.0f} s")

    def begin() -> None:
        if site.crash(site.random.random() < 0.5, back_s):
            site.fired("crash")

    fault.begin = begin
    return fault


def crash_at_effect(site: Site) -> Fault:
    """SIGKILL between a call and its effect, or between the effect and its answer."""
    kind = "crash-at-effect"
    start_s, end_s = site.window(4 * 3600.0, 10 * 3600.0)
    wanted, count = site.random.choice(_TYPES), [site.random.randint(1, 6)]
    before, survives = site.random.random() < 0.5, site.random.random() < 0.5
    back_s = site.random.choice((1.0, site.random.uniform(1.0, 1200.0)))
    says = f"at {wanted.__name__} {count[0]}, {'before' if before else 'after'} its effect"

    def fate(daemon: Daemon, action: Any, drawn: Fate) -> Fate:
        if not isinstance(action, wanted):
            return drawn
        count[0] -= 1
        if count[0] == 0:
            at_s = drawn.before_s * 0.5 if before else drawn.before_s + drawn.after_s * 0.5
            site.world.timers.set(site.world.now_s + at_s, lambda: end(daemon))
        return drawn

    def end(daemon: Daemon) -> None:
        if site.crash(survives, back_s, daemon):
            site.fired(kind)

    return Fault(kind, start_s, end_s, says, fate=fate)


def stopped_process(site: Site) -> Fault:
    """SIGSTOP for minutes to an hour."""
    start_s, _ = site.window(1.0, 1.0)
    stopped_s = site.random.uniform(60.0, 4000.0)
    fault = Fault("stopped-process", start_s, start_s + 1.0, f"for {stopped_s:.0f} s")

    def begin() -> None:
        daemon = site.daemon()
        if daemon is not None:
            site.fired("stopped-process")
            site.world.pause(daemon, stopped_s)

    fault.begin = begin
    return fault


def two_daemons(site: Site) -> Fault:
    """Another daemon takes over while the first one lives, stopped or not."""
    start_s, _ = site.window(1.0, 1.0)
    stopped_s = site.random.choice((0.0, site.random.uniform(30.0, 2000.0)))
    says = f"the first one is stopped for {stopped_s:.0f} s"
    fault = Fault("two-daemons", start_s, start_s + 1.0, says)

    def begin() -> None:
        daemon = site.daemon()
        if daemon is None:
            return
        site.fired("two-daemons")
        if stopped_s:
            site.world.pause(daemon, stopped_s)
        site.world.take_over()

    fault.begin = begin
    return fault


def old_state_copy(site: Site) -> Fault:
    """The daemon dies, and the state directory is put back as it was hours ago; then it is started again."""
    kind = "old-state-copy"
    start_s, end_s = site.window(600.0, 8 * 3600.0)
    back_s = site.random.choice((10.0, site.random.uniform(10.0, 3 * 3600.0)))
    kept: list[Any] = []
    says = f"as of {end_s - start_s:.0f} s before, back after {back_s:.0f} s"
    fault = Fault(kind, start_s, end_s, says, begin=lambda: kept.append(site.world.state_copy()))

    def end() -> None:
        for daemon in site.world.daemons:
            if daemon.alive:
                site.world.crash(daemon)
        if site.world.restore(kept[0]):
            site.fired(kind)
        site.restart(back_s)

    fault.end = end
    return fault


def clock_step(site: Site) -> Fault:
    """The clock of the login node steps, and steps back."""
    start_s, end_s = site.window(600.0, 6 * 3600.0)
    step_s = site.random.choice((-1, 1)) * site.random.uniform(30.0, 7200.0)
    fault = Fault("clock-step", start_s, end_s, f"by {step_s:.0f} s")

    def begin() -> None:
        site.fired("clock-step")
        site.world.utc_offset_s += step_s

    def end() -> None:
        site.world.utc_offset_s -= step_s

    fault.begin, fault.end = begin, end
    return fault


PROCESSES = (crash, crash_at_effect, stopped_process, two_daemons, old_state_copy, clock_step)
