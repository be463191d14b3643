"""Calls of the daemon that are slow, that never return, or whose request or answer is lost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from pilot.command import CommandOutcome, Completed
from pilot.multijob import actions as a
from pilot.multijob.model import BundleState
from pilot.ports import Refused, Unavailable
from simulators.world.batch import Hung, Work
from simulators.world.faults.fault import Fault, Site
from simulators.world.lanes import Fate
from simulators.world.world import Daemon

HTTP = (a.FetchJobs, a.ReportJobs, a.AskStatus)
# What production's own time-outs make of a call that does not return (batch.timeouts, servers.timeout_s).
HTTP_LIMIT_S, QSTAT_LIMIT_S, QSUB_LIMIT_S = 60.0, 60.0, 120.0
TIMED_OUT = Unavailable("no answer in time")

Bend = Callable[[Daemon, Any, Fate], Fate]


def _slow(site: Site, kind: str, types: Any, longest_s: float, limit_s: float | None) -> Fault:
    """Calls of these types take up to `longest_s`; longer than their limit means no answer although they happen."""
    start_s, end_s = site.window(600.0, 4 * 3600.0)
    chance = site.random

    def fate(daemon: Daemon, action: Any, before: Fate) -> Fate:
        if not isinstance(action, types):
            return before
        site.fired(kind)
        takes_s = chance.choice((chance.uniform(0.01, 2.0), chance.uniform(0.01, longest_s)))
        if limit_s is not None and takes_s > limit_s:
            happens_s = min(chance.uniform(0.0, takes_s), limit_s)
            return Fate(happens_s, limit_s - happens_s, answer=TIMED_OUT)
        happens_s = chance.uniform(0.0, takes_s)
        return replace(before, before_s=happens_s, after_s=takes_s - happens_s)

    return Fault(kind, start_s, end_s, f"up to {longest_s:.0f} s", fate=fate)


def slow_qsub(site: Site) -> Fault:
    """qsub takes 0.01 to 300 s; past its limit it is killed and what it did is unknown."""
    return _slow(site, "slow-qsub", a.SubmitBatchJob, 300.0, QSUB_LIMIT_S)


def slow_fsync(site: Site) -> Fault:
    """A commit of the journal takes up to 60 s."""
    return _slow(site, "slow-fsync", a.AppendEvents, 60.0, None)


def slow_http(site: Site) -> Fault:
    """PanDA's server takes up to 180 s; past the client's limit there is no answer."""
    return _slow(site, "slow-http", HTTP, 180.0, HTTP_LIMIT_S)


def slow_evidence(site: Site) -> Fault:
    """The shared filesystem takes up to 120 s for each call of the daemon."""
    types = (a.PrepareBundle, a.AddScript, a.ReadEvidence, a.MakeClaim, a.SetDoor, a.WriteClosed)
    return _slow(site, "slow-evidence", (*types, a.WriteCommands, a.RemoveBundle), 120.0, None)


def hung_qstat(site: Site) -> Fault:
    """qstat never returns and is killed after its limit."""
    start_s, end_s = site.window(1200.0, 3 * 3600.0)

    def fate(daemon: Daemon, action: Any, before: Fate) -> Fate:
        if not isinstance(action, a.ListBatchJobs):
            return before
        return replace(before, before_s=QSTAT_LIMIT_S, after_s=0.0)

    def command(argv: tuple[str, ...], work: Work) -> CommandOutcome:
        if argv[0] != "qstat":
            return work()
        site.fired("hung-qstat")
        raise Hung

    says = "qstat is killed after its limit"
    return Fault("hung-qstat", start_s, end_s, says, fate=fate, command=command)


def _share(site: Site, kind: str, types: Any, bend: Callable[[Any], Fate]) -> Fault:
    """A drawn share of such calls is bent."""
    start_s, end_s = site.window(1800.0, 5 * 3600.0)
    share = site.random.uniform(0.1, 0.9)

    def fate(daemon: Daemon, action: Any, before: Fate) -> Fate:
        if not isinstance(action, types) or site.random.random() > share:
            return before
        site.fired(kind)
        return bend(action)

    return Fault(kind, start_s, end_s, f"{share:.0%} of the calls", fate=fate)


def request_lost(site: Site) -> Fault:
    """A request to PanDA never arrives."""
    return _share(
        site, "request-lost", HTTP, lambda action: Fate(HTTP_LIMIT_S, 0.0, effect=False, answer=TIMED_OUT)
    )


def answer_lost(site: Site) -> Fault:
    """PanDA does what it was asked and the answer is lost."""
    return _share(site, "answer-lost", HTTP, lambda action: Fate(1.0, HTTP_LIMIT_S, answer=TIMED_OUT))


def credential_expired(site: Site) -> Fault:
    """PanDA refuses whatever is asked until somebody renews the credential."""
    start_s, end_s = site.window(1800.0, 3 * 3600.0)

    def fate(daemon: Daemon, action: Any, before: Fate) -> Fate:
        if not isinstance(action, HTTP):
            return before
        site.fired("credential-expired")
        return Fate(0.1, 0.1, effect=False, answer=Refused("403", "permission denied"))

    return Fault("credential-expired", start_s, end_s, "every call is refused", fate=fate)


def qsub_answer_lost(site: Site) -> Fault:
    """qsub takes the batch job and its answer is lost: it is killed later."""
    fault = _share(site, "qsub-answer-lost", a.SubmitBatchJob, lambda action: Fate(1.0, 30.0))
    lost: set[str] = set()
    drawn = fault.fate
    assert drawn is not None

    def fate(daemon: Daemon, action: Any, before: Fate) -> Fate:
        bent = drawn(daemon, action, before)
        if bent is not before:
            lost.add(action.name)
        return bent

    def command(argv: tuple[str, ...], work: Work) -> CommandOutcome:
        outcome = work()
        if argv[0] == "qsub" and argv[-2] in lost:
            raise Hung
        return outcome

    fault.fate, fault.command = fate, command
    return fault


def qsub_refused(site: Site) -> Fault:
    """qsub says a definite no."""
    start_s, end_s = site.window(1800.0, 5 * 3600.0)
    share = site.random.uniform(0.1, 0.9)
    no = "qsub: submit error (Job exceeds queue resource limits MSG=cannot satisfy queue max walltime requirement)\n"

    def command(argv: tuple[str, ...], work: Work) -> CommandOutcome:
        if argv[0] != "qsub" or site.random.random() > share:
            return work()
        site.fired("qsub-refused")
        return Completed(190, "", no, 0.0)

    return Fault("qsub-refused", start_s, end_s, f"{share:.0%} of the calls", command=command)


def qdel_fails(site: Site) -> Fault:
    """A person cancels bundles, and qdel gives no answer and does nothing."""
    start_s, end_s = site.window(4 * 3600.0, 8 * 3600.0)

    def fate(daemon: Daemon, action: Any, before: Fate) -> Fate:
        if not isinstance(action, a.CancelBatchJob):
            return before
        site.fired("qdel-fails")
        return Fate(5.0, 1.0, effect=False, answer=TIMED_OUT)

    def cancel() -> None:
        daemon = site.daemon()
        if site.world.now_s >= end_s:
            return
        bundles = [] if daemon is None else list(daemon.state.bundles.values())
        found = [b for b in bundles if b.state is BundleState.OPEN and b.current and b.current.batch_ids]
        if daemon is not None and found:
            site.world.cancel(daemon, site.random.choice(found))
        site.world.timers.set(site.world.now_s + 3600.0, cancel)

    return Fault("qdel-fails", start_s, end_s, "bundles are cancelled", fate=fate, begin=cancel)


def journal_full(site: Site) -> Fault:
    """The disk of the state directory is full: nothing can be appended."""
    start_s, end_s = site.window(300.0, 2 * 3600.0)
    full = Unavailable("No space left on device")

    def fate(daemon: Daemon, action: Any, before: Fate) -> Fate:
        if not isinstance(action, a.AppendEvents):
            return before
        site.fired("journal-full")
        return Fate(0.1, 0.1, effect=False, answer=full)

    return Fault("journal-full", start_s, end_s, "no append succeeds", fate=fate)


CALLS = (
    slow_qsub,
    slow_fsync,
    slow_http,
    slow_evidence,
    hung_qstat,
    request_lost,
    answer_lost,
    credential_expired,
    qsub_answer_lost,
    qsub_refused,
    qdel_fails,
    journal_full,
)
