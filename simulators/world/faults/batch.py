"""The batch system shows what is not, loses what it took, starts what it should not, or is changed by a person."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from pilot.ports import Broken, Listing, Unavailable
from simulators.torque.job import BatchJob, Letter
from simulators.world.faults.fault import Fault, Site
from simulators.world.faults.nodes import runs

_LOOK_EVERY_S = 20.0


def _listings(site: Site, kind: str, longest_s: float, says: str, bend: Callable[[Listing], Any]) -> Fault:
    start_s, end_s = site.window(300.0, longest_s)

    def shown(listing: Any) -> Any:
        if not isinstance(listing, Listing):
            return listing
        bent = bend(listing)
        if bent is not listing:
            site.fired(kind)
            if isinstance(bent, Listing):
                site.world.truth.deny(listing, bent, site.world.now_s)
        return bent

    return Fault(kind, start_s, end_s, says, shown=shown)


def stale_listing(site: Site) -> Fault:
    """Listings show what was minutes ago."""
    old_s = site.random.uniform(60.0, 900.0)
    kept: deque[tuple[float, Listing]] = deque()

    def bend(listing: Listing) -> Any:
        if listing.asked_ids is not None:
            return listing
        now_s = site.world.now_s
        kept.append((now_s, listing))
        while len(kept) > 1 and kept[1][0] <= now_s - old_s:
            kept.popleft()
        return kept[0][1]

    return _listings(site, "stale-listing", 3600.0, f"{old_s:.0f} s old", bend)


def partial_listing(site: Site) -> Fault:
    """The text of a listing ends in the middle."""
    cut = Broken("text is not closed", "<Data><Job>")
    return _listings(
        site, "partial-listing", 7200.0, "cut", lambda listing: cut if site.random.random() < 0.6 else listing
    )


def empty_listing(site: Site) -> Fault:
    """Exit code 0, and no batch job in it."""

    def bend(listing: Listing) -> Any:
        if listing.asked_ids is not None or not listing.jobs:
            return listing
        return replace(listing, jobs=())

    return _listings(site, "empty-listing", 7200.0, "exit code 0 and no batch job", bend)


def wrong_server(site: Site) -> Fault:
    """Another batch server answers."""
    return _listings(
        site,
        "wrong-server",
        3600.0,
        "another server answers",
        lambda listing: replace(listing, server="elsewhere", jobs=()),
    )


def failed_listing(site: Site) -> Fault:
    """qstat ends with an error."""
    return _listings(
        site,
        "failed-listing",
        3 * 3600.0,
        "exit code 171",
        lambda listing: Unavailable("cannot connect to server"),
    )


def hidden_batch_job(site: Site) -> Fault:
    """One batch job is missing in one listing at a time, never twice in a row."""
    last: list[Any] = [None]

    def bend(listing: Listing) -> Any:
        ids = [job.batch_id for job in listing.jobs if job.batch_id != last[0]]
        if listing.asked_ids is not None or len(listing.jobs) < 2 or not ids or site.random.random() < 0.5:
            last[0] = None
            return listing
        last[0] = site.random.choice(ids)
        return replace(listing, jobs=tuple(job for job in listing.jobs if job.batch_id != last[0]))

    return _listings(site, "hidden-batch-job", 5 * 3600.0, "one batch job is missing", bend)


def _seizing(
    site: Site, kind: str, says: str, wanted: Callable[[BatchJob], bool], seize: Callable[[BatchJob], object]
) -> Fault:
    """Look at the batch jobs now and then, and do something to the first fitting ones."""
    start_s, end_s = site.window(2 * 3600.0, 6 * 3600.0)
    left = [site.random.randint(1, 3)]
    seized: set[str] = set()
    fault = Fault(kind, start_s, end_s, f"{says} ({left[0]})")

    def look() -> None:
        world = site.world
        if world.now_s >= end_s or not left[0]:
            return
        for job in list(world.torque.jobs.values()):
            if left[0] and job.batch_id not in seized and wanted(job) and site.random.random() < 0.3:
                left[0] -= 1
                seized.add(job.batch_id)
                site.fired(kind)
                seize(job)
        world.timers.set(world.now_s + _LOOK_EVERY_S, look)

    fault.begin = look
    return fault


def _waits(job: BatchJob) -> bool:
    return job.state is Letter.QUEUED


def burnt_id(site: Site) -> Fault:
    """An id was given, and the server has forgotten the batch job."""
    return _seizing(
        site,
        "burnt-id",
        "the server forgets a batch job that waits",
        _waits,
        lambda job: site.world.torque.jobs.pop(job.batch_id),
    )


def held_batch_job(site: Site) -> Fault:
    """An administrator holds a batch job and lets it go later: rounds believed lost start late."""

    def seize(job: BatchJob) -> None:
        job.state = Letter.HELD
        site.world.timers.set(site.world.now_s + site.random.uniform(600.0, 4 * 3600.0), lambda: let_go(job))

    def let_go(job: BatchJob) -> None:
        if job.state is Letter.HELD and job.batch_id in site.world.torque.jobs:
            job.state = Letter.QUEUED
            site.world.torque.wake(site.world.now_s)

    return _seizing(site, "held-batch-job", "an administrator holds a batch job", _waits, seize)


def late_start(site: Site) -> Fault:
    """A batch job that no listing shows starts long after its round was given up."""
    gone: dict[str, BatchJob] = {}

    def seize(job: BatchJob) -> None:
        gone[job.batch_id] = job
        job.state = Letter.HELD
        delay_s = site.random.uniform(site.world.limits.protocol.grace_s, 2 * 3600.0)
        site.world.timers.set(site.world.now_s + delay_s, lambda: let_go(job))

    def let_go(job: BatchJob) -> None:
        gone.pop(job.batch_id, None)
        if job.state is Letter.HELD and job.batch_id in site.world.torque.jobs:
            job.state = Letter.QUEUED
            site.world.torque.wake(site.world.now_s)

    def shown(listing: Any) -> Any:
        if not isinstance(listing, Listing) or not gone:
            return listing
        unknown = tuple(i for i in listing.asked_ids or () if i in gone)
        bent = replace(
            listing,
            jobs=tuple(job for job in listing.jobs if job.batch_id not in gone),
            unknown_ids=(*listing.unknown_ids, *unknown),
        )
        site.world.truth.deny(listing, bent, site.world.now_s)
        return bent

    fault = _seizing(site, "late-start", "no listing shows a batch job that starts later", _waits, seize)
    fault.shown = shown
    return fault


def changed_walltime(site: Site) -> Fault:
    """An administrator shortens the walltime of a batch job that waits."""

    def seize(job: BatchJob) -> None:
        job.walltime_s = max(60, int(job.walltime_s * site.random.uniform(0.2, 0.9)))

    return _seizing(site, "changed-walltime", "an administrator shortens a walltime", _waits, seize)


def hand_made_qsub(site: Site) -> Fault:
    """A person submits the script of a bundle by hand."""
    return _seizing(
        site,
        "hand-made-qsub",
        "a person submits a bundle's script",
        lambda job: _waits(job) or runs(job),
        lambda job: site.world.torque.submit(site.world.now_s, job.submission),
    )


def deleted_by_a_person(site: Site) -> Fault:
    """Somebody deletes a batch job of ours."""
    return _seizing(
        site,
        "deleted-by-a-person",
        "somebody deletes a batch job",
        lambda job: _waits(job) or runs(job),
        lambda job: site.world.torque.delete(site.world.now_s, job.batch_id, job.submission.owner),
    )


BATCH = (
    stale_listing,
    partial_listing,
    empty_listing,
    wrong_server,
    failed_listing,
    hidden_batch_job,
    burnt_id,
    held_batch_job,
    late_start,
    changed_walltime,
    hand_made_qsub,
    deleted_by_a_person,
)
