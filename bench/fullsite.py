"""A site whose machine is full: `python -m bench.fullsite DIRECTORY JOBS` writes what a daemon has left behind.

A journal in which so many jobs run in bundles of 512, their directories with a claim each, and the listing of their
batch jobs. One more bundle has its directory and waits for its qsub.
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
from pilot.ports import BatchId, BundleId, Claim, Job, PandaId

QUEUE, SERVER, PANDA_QUEUE, PANDA_SERVER = "full", "sim", "BW_COMPASS_MCORE", "panda"
NODES, SLOTS, WALLTIME_S = 16, 32, 86400
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


def main(directory: Path, jobs: int) -> int:
    """Write it all."""
    at, per_bundle = datetime.now(UTC).isoformat(), NODES * SLOTS
    state, shared = directory / "state", directory / "shared"
    state.mkdir()
    lease = take_lease(state)
    assert isinstance(lease, Lease)
    store, commit = FileStore(state, lease.epoch), 0
    count = -(-jobs // per_bundle)
    for number in range(count + 1):
        runs = number < count
        first = number * per_bundle
        own = range(first, min(first + per_bundle, jobs) if runs else first + 1)
        records = [encode(event) for event in bundle_events(number, own, at, runs=runs)]
        commit += len(records)
        answer = store.append(commit, records)
        if not hasattr(answer, "commit"):
            raise SystemExit(str(answer))
        write_directory(shared, number, at, runs=runs)
    store.close()
    (directory / "listing.xml").write_text(render_listing(count))
    return count


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
