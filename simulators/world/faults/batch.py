"""The batch system shows what is not, loses what it took, starts what it should not, or is changed by a person."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable
from dataclasses import replace

from pilot.command import CommandOutcome, Completed
from simulators.torque.job import BatchJob, Letter, Submission
from simulators.torque.model import TorqueModel
from simulators.torque.site import TorqueSite
from simulators.torque.texts import render_data, render_xml
from simulators.world.batch import Work
from simulators.world.faults.fault import Fault, Site
from simulators.world.faults.nodes import runs

_LOOK_EVERY_S = 20.0
_JOB = re.compile(r"<Job><Job_Id>([^<]+)</Job_Id>.*?</Job>", re.DOTALL)


def _ids(done: CommandOutcome) -> list[str]:
    """Ids in the text of a listing."""
    return [found[1] for found in _JOB.finditer(done.stdout)] if isinstance(done, Completed) else []


def _without(done: Completed, gone: set[str]) -> Completed:
    """The text without these batch jobs."""
    text = _JOB.sub(lambda found: "" if found[1] in gone else found[0], done.stdout)
    return replace(done, stdout=text)


def _listings(
    site: Site,
    kind: str,
    longest_s: float,
    says: str,
    bend: Callable[[Completed], Completed],
    single: bool = False,
) -> Fault:
    """While it lasts, what qstat prints for all jobs, and for one (`single`), goes through `bend`."""
    start_s, end_s = site.window(300.0, longest_s)

    def command(argv: tuple[str, ...], work: Work) -> CommandOutcome:
        done = work()
        whole = len(argv) == 2
        if argv[0] != "qstat" or not (whole or single) or not isinstance(done, Completed) or done.exit_code:
            return done
        bent = bend(done)
        if bent != done:
            site.fired(kind)
            if bent.exit_code == 0 and bent.stdout.endswith("</Data>\n"):
                # Another fault may have bent it before: the truth is in the model.
                there = [job.batch_id for job in site.world.torque.jobs.values() if job.completed_at is None]
                site.world.truth.deny(there if whole else _ids(done), _ids(bent), site.world.now_s)
        return bent

    return Fault(kind, start_s, end_s, says, command=command)


def stale_listing(site: Site) -> Fault:
    """Listings show what was minutes ago."""
    old_s = site.random.uniform(60.0, 900.0)
    kept: deque[tuple[float, Completed]] = deque()

    def bend(done: Completed) -> Completed:
        now_s = site.world.now_s
        kept.append((now_s, done))
        while len(kept) > 1 and kept[1][0] <= now_s - old_s:
            kept.popleft()
        return kept[0][1]

    return _listings(site, "stale-listing", 3600.0, f"{old_s:.0f} s old", bend)


def partial_listing(site: Site) -> Fault:
    """The text of a listing ends somewhere in the middle."""

    def bend(done: Completed) -> Completed:
        if site.random.random() >= 0.6:
            return done
        return replace(done, stdout=done.stdout[: site.random.randrange(max(1, len(done.stdout) - 1))])

    return _listings(site, "partial-listing", 7200.0, "cut", bend, single=True)


def empty_listing(site: Site) -> Fault:
    """Exit code 0, and no batch job in it, or no text at all."""

    def bend(done: Completed) -> Completed:
        if not _ids(done):
            return done
        return replace(done, stdout=render_data(()) if site.random.random() < 0.8 else "")

    return _listings(site, "empty-listing", 7200.0, "exit code 0 and no batch job", bend)


def wrong_server(site: Site) -> Fault:
    """Another batch server answers, with a batch job of its own."""
    other = TorqueModel(TorqueSite(server_name="elsewhere"))
    other.submit(0.0, Submission(owner="alice", name="other.1", script="true\n"))

    def bend(done: Completed) -> Completed:
        return replace(done, stdout=render_xml(other.jobs.values(), site.world.now_s, other.site))

    return _listings(site, "wrong-server", 3600.0, "another server answers", bend, single=True)


def failed_listing(site: Site) -> Fault:
    """qstat ends with an error."""
    says = "qstat: cannot connect to server sim (errno=111) Connection refused\n"

    def bend(done: Completed) -> Completed:
        return replace(done, exit_code=111, stdout="", stderr=says)

    return _listings(site, "failed-listing", 3 * 3600.0, "exit code 111", bend, single=True)


def hidden_batch_job(site: Site) -> Fault:
    """One batch job is missing in one listing at a time, never twice in a row."""
    last: list[str | None] = [None]

    def bend(done: Completed) -> Completed:
        there = _ids(done)
        ids = [batch_id for batch_id in there if batch_id != last[0]]
        if len(there) < 2 or not ids or site.random.random() < 0.5:
            last[0] = None
            return done
        hidden = site.random.choice(ids)
        last[0] = hidden
        return _without(done, {hidden})

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

    def command(argv: tuple[str, ...], work: Work) -> CommandOutcome:
        done = work()
        if argv[0] != "qstat" or not isinstance(done, Completed) or not gone:
            return done
        if len(argv) == 2:
            bent = _without(done, set(gone))
        elif argv[2] in gone:
            bent = replace(done, exit_code=153, stdout="", stderr=f"qstat: Unknown Job Id Error {argv[2]}\n")
        else:
            return done
        site.world.truth.deny(_ids(done), _ids(bent), site.world.now_s)
        return bent

    fault = _seizing(site, "late-start", "no listing shows a batch job that starts later", _waits, seize)
    fault.command = command
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
