"""A site whose machine is full: `python -m bench.fullsite DIRECTORY JOBS [TURNS]` writes what a daemon left behind.

A journal in which so many jobs run in bundles of 512, their directories with a claim each, and the listing of their
batch jobs. One more bundle has its directory and waits for its qsub. TURNS: as many jobs ran before, so many times
over, and are reported, their bundles settled: three turns of eight hours are a day. Then there is a snapshot, too.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from xml.sax.saxutils import escape

from pilot.journal import FileStore
from pilot.lease import Lease, take_lease
from pilot.multijob import events as e
from pilot.multijob.codec import encode
from pilot.multijob.model import Outcome, Verdict
from pilot.ports import Appended, BatchId, BundleId, Claim, Done, FileReport, Job, JobStatus, PandaId
from pilot.rotation.snapshots import run_snapshot

QUEUE, SERVER, PANDA_QUEUE, PANDA_SERVER = "full", "sim", "BW_COMPASS_MCORE", "panda"
NODES, SLOTS, WALLTIME_S = 16, 32, 86400
# Readings of one node's journal with news in a turn of eight hours: a start and an end for each slot, and a line at
# least every five minutes.
READINGS = 2 * SLOTS + 8 * 12
SNAPSHOT_S = 600.0
BASE32 = "abcdefghijklmnopqrstuvwxyz234567"


def bundle_id(number: int) -> BundleId:
    """A tag as the daemon draws them."""
    return BundleId("b" + "".join(BASE32[number >> shift & 31] for shift in range(35, -1, -5)))


def make_job(number: int) -> Job:
    """A reconstruction job with texts as long as COMPASS' are."""
    run, chunk = 270000 + number // 1000, number % 1000
    name = f"dvcs2016P09-mu+-t7-{run}-{chunk:03}"
    words = (
        f"PRODSYS_WORK=reconstruct.{number} PRODSYS_NEVENTS={20000 + number % 3000} "
        f"PRODSYS_INPUTS=/scratch/compass/raw/2016/W09/cdr{chunk:05}-{run}.raw "
        "COMPASS_SW_PREFIX=/scratch/compass/prod/ COMPASS_SW_PATH=dvcs2016P09/mu+ PRODSOFT=coral.r14 prodSlt=7 "
        f"TMPRUNNB={run} TMPCHUNK={chunk:03} sh -c 'exec coral.exe trafdic.opt'"
    )
    stem = f"{run}-{chunk:05}-7-8.a1"
    outputs = (f"mDST-{stem}.root", f"hist-{stem}.root", f"evtdump-{stem}.dat")
    panda_id = PandaId(4_000_000_000 + number)
    return Job(panda_id, 1, PANDA_QUEUE, name, "mass production", words, outputs, f"{name}.log.tgz", 1000)


def bundle_events(number: int, jobs: range, at: str, *, runs: bool) -> Iterator[e.Event]:
    """All that the journal tells of one bundle and its jobs."""
    tag, made = bundle_id(number), [make_job(index) for index in jobs]
    for index, job in zip(jobs, made, strict=True):
        work = f"{PANDA_SERVER}/{PANDA_QUEUE}/{job.transformation}/reconstruct.{index}"
        task = f"{QUEUE}/{job.transformation}/dvcs2016P09/mu+"
        yield e.JobFetched(at, QUEUE, job, work, task, PANDA_SERVER)
    nodes = tuple(tuple(job.panda_id for job in made[index::NODES]) for index in range(NODES))
    filled = tuple(node for node in nodes if node)
    yield e.BundlePlanned(at, tag, QUEUE, filled, WALLTIME_S, server=PANDA_SERVER)
    yield e.BundlePrepared(at, tag)
    if runs:
        batch_id = BatchId(f"{100000 + number}.{SERVER}")
        yield e.RoundIntended(at, tag, 1)
        yield e.BatchJobAccepted(at, tag, 1, batch_id, "qsub")
        yield e.ClaimSeen(at, tag, 1, Claim("gate", 1, batch_id, "nid00001", 1, "n", at))
        for index, node in enumerate(nodes):
            for panda_id in node:
                yield e.JobStarted(at, panda_id, 1, tag, index, PANDA_SERVER)
        yield from readings(tag, range(READINGS // 2))


def readings(tag: BundleId, numbers: range) -> Iterator[e.Event]:
    """What was read of each node's journal, again and again."""
    for number in numbers:
        for index in range(NODES):
            yield e.JournalConsumed(tag, f"node.{index}.0123456789abcdef.journal", 400 * (number + 1))


def over_events(number: int, jobs: range, at: str) -> Iterator[e.Event]:
    """All that the journal tells of a bundle that is over."""
    tag = bundle_id(number)
    yield from bundle_events(number, jobs, at, runs=True)
    yield from readings(tag, range(READINGS // 2, READINGS))
    for index in jobs:
        job = make_job(index)
        files = tuple(FileReport(lfn, f"{index:032x}", 10**8 + index, "0badcafe") for lfn in job.outputs)
        outcome = Outcome(0, 20000, 27000.0, 26500.0, 900.0, files)
        verdict = Verdict(JobStatus.FINISHED, 0, "finished", "job")
        yield e.JobJudged(at, job.panda_id, 1, verdict, outcome, PANDA_SERVER)
        yield e.FinalAccepted(at, job.panda_id, 1, PANDA_SERVER)
    yield e.BatchJobEnded(at, tag, 1, BatchId(f"{100000 + number}.{SERVER}"), "over", used_s=28000)
    yield e.BundleClosed(at, tag)
    yield e.BundleSettled(at, tag)


def write_directory(shared: Path, number: int, at: str, *, runs: bool) -> None:
    """The bundle's directory, as far as the edge reads it."""
    directory = shared / "bundles" / bundle_id(number)
    directory.mkdir(parents=True)
    (directory / "script.1.sh").write_text("#!/bin/sh\n")
    if runs:
        batch_id = f"{100000 + number}.{SERVER}"
        body = {"who": "gate", "round": 1, "batch_id": batch_id, "host": "nid00001", "pid": 1, "nonce": "n"}
        (directory / "claim.1").write_text(json.dumps({**body, "utc": at}))


def render_listing(count: int) -> str:
    """`qstat -x` of so many batch jobs that run."""
    rows = (
        f"<Job><Job_Id>{100000 + number}.{SERVER}</Job_Id><Job_Name>{escape(bundle_id(number))}.1</Job_Name>"
        f"<Job_Owner>me@login</Job_Owner><job_state>R</job_state><queue>normal</queue>"
        f"<Resource_List><walltime>{WALLTIME_S // 3600}:00:00</walltime></Resource_List></Job>"
        for number in range(count)
    )
    return f"<Data>{''.join(rows)}</Data>\n"


def _jobs_of(number: int, at_most: int = sys.maxsize) -> range:
    first = number * NODES * SLOTS
    return range(first, min(first + NODES * SLOTS, at_most))


def main(directory: Path, jobs: int, turns: int = 0) -> int:
    """Write it all."""
    at, per_bundle = datetime.now(UTC).isoformat(), NODES * SLOTS
    state, shared = directory / "state", directory / "shared"
    state.mkdir()
    lease = take_lease(state)
    assert isinstance(lease, Lease)
    store, commit, sealed = FileStore(state, lease.epoch), 0, 0
    count = -(-jobs // per_bundle)
    over = [over_events(count + 1 + n, _jobs_of(count + 1 + n), at) for n in range(count * turns)]
    running = [bundle_events(n, _jobs_of(n, jobs), at, runs=True) for n in range(count)]
    waiting = bundle_events(count, range(count * per_bundle, count * per_bundle + 1), at, runs=False)
    for events in (*over, *running, waiting):
        records = [encode(event) for event in events]
        commit += len(records)
        answer = store.append(commit, records)
        if not isinstance(answer, Appended):
            raise SystemExit(str(answer))
        sealed = answer.sealed
    store.close()
    for number in range(count + 1):
        write_directory(shared, number, at, runs=number < count)
    if turns:
        taken = run_snapshot(str(state), SNAPSHOT_S, lease.epoch, sealed)
        if not isinstance(taken, Done):
            raise SystemExit(str(taken))
    (directory / "listing.xml").write_text(render_listing(count))
    return count


if __name__ == "__main__":
    main(Path(sys.argv[1]), *(int(word) for word in sys.argv[2:]))
