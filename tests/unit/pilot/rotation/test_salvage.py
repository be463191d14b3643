"""Salvage: a further PandaID of work that is done already follows it, and is finished by a second link."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from rig import Rig, Site, good_end, make_job

from pilot.multijob import actions as a
from pilot.multijob import knownjobs, model
from pilot.multijob.apply import apply
from pilot.multijob.events import BundlePlanned, JobBound, JobFetched, JobReturned, KillOrdered
from pilot.multijob.model import JobState, State
from pilot.multijob.salvage import bundles_of, retired_of, work_of
from pilot.ports import Ack, BundleId, Job, JobStatus, PandaId, Refused, ServerStatus


def _again(job: Job, panda_id: int) -> Job:
    """The same work under a new PandaID and attempt."""
    outputs = tuple(lfn.replace(".a1.", ".a2.") for lfn in job.outputs)
    log = job.log_lfn.replace(".a1.", ".a2.") if job.log_lfn else None
    return replace(job, panda_id=PandaId(panda_id), attempt_nr=2, outputs=outputs, log_lfn=log)


class Walk:
    """A rig whose site starts what waits; `gone`: PandaIDs that the server has given up."""

    def __init__(self, jobs: list[Job]) -> None:
        self.site, self.rig = Site(jobs), Rig()
        self.gone: set[int] = set()
        self.links: list[a.LinkOutputs] = []
        self.link_answer: Any = None
        self.starts: list[int] = []

    def respond(self, action: a.Action) -> Any:
        outcome = self.site.respond(action)
        match action:
            case a.ReportJobs():
                return tuple(
                    Ack(u.panda_id, u.attempt_nr, True, "tobekilled" if u.panda_id in self.gone else "")
                    for u in action.updates
                )
            case a.AskStatus():
                return tuple(ServerStatus(i, 0, "failed") for i in action.ids)
            case a.LinkOutputs():
                self.links.append(action)
                return self.link_answer if self.link_answer is not None else outcome
        return outcome

    def run(self, ticks: int, *, ends: bool) -> None:
        for _ in range(ticks):
            self.rig.run(self.respond, 1, 60.0)
            for batch_id, job in list(self.site.batch.items()):
                tag = job.name.partition(".")[0]
                if job.state == "waiting" and self.site.start(batch_id):
                    for panda_id in self.rig.state.bundles[tag].job_keys:
                        attempt = self.rig.state.jobs[panda_id].job.attempt_nr
                        self.starts.append(panda_id)
                        self.site.line(tag, "job_started", panda_id=panda_id, attempt_nr=attempt)
                elif job.state == "running" and ends:
                    for panda_id in self.rig.state.bundles[tag].job_keys:
                        record = self.rig.state.jobs.get(panda_id)
                        if record is not None:
                            self.site.line(tag, "job_ended", **good_end(record.job))
                    self.site.end(batch_id)
                elif job.state == "running":
                    self.site.line(tag, "heartbeat", running=[])


def _orphaned() -> tuple[Walk, Job]:
    """Job 1 runs, the server has given it up, and its work came again as job 101."""
    first = [make_job(n) for n in range(1, 5)]
    walk = Walk(first)
    walk.run(12, ends=False)
    walk.gone = {1}
    walk.run(60, ends=False)
    assert walk.rig.state.jobs[PandaId(1)].orphaned
    again = _again(first[0], 101)
    walk.site.waiting = [again]
    walk.run(15, ends=False)
    return walk, again


def test_a_new_panda_id_of_an_orphans_work_follows_it_and_does_not_run() -> None:
    walk, again = _orphaned()
    record = walk.rig.state.jobs[again.panda_id]
    assert record.state is JobState.BOUND
    running = [u for u in walk.site.reports if u.panda_id == again.panda_id]
    assert running == [] or {u.status for u in running} <= {JobStatus.STARTING, JobStatus.RUNNING}
    walk.run(40, ends=True)
    assert 101 not in walk.starts
    (link,) = walk.links
    source, target = link.pairs[0]
    assert source.endswith(".a1.root")
    assert target.rpartition("/")[2] == again.outputs[0]
    totals = walk.rig.state.totals["long"]
    assert totals.finished == 5
    assert totals.failed == 0


def test_where_the_outputs_cannot_be_linked_the_new_one_runs() -> None:
    walk, again = _orphaned()
    walk.link_answer = Refused("missing", "is not there")
    walk.run(60, ends=True)
    assert again.panda_id in walk.starts


def test_what_was_finished_while_the_server_was_away_is_kept_for_the_new_panda_id() -> None:
    first = [make_job(n) for n in range(1, 5)]
    walk = Walk(first)
    walk.run(12, ends=False)
    walk.gone = {1, 2, 3, 4}
    walk.run(20, ends=True)
    assert all(record.kept for record in walk.rig.state.jobs.values())
    walk.gone = set()
    walk.site.waiting = [_again(job, 100 + job.panda_id) for job in first]
    walk.run(30, ends=True)
    assert len(walk.links) == 4
    assert not any(panda_id > 100 for panda_id in walk.starts)
    assert walk.rig.state.totals["long"].finished == 8


def test_a_job_that_is_handed_out_again_is_judged_by_its_evidence_and_never_runs_again() -> None:
    first = [make_job(n) for n in range(1, 5)]
    walk = Walk(first)
    walk.run(40, ends=True)
    assert not walk.rig.state.jobs
    walk.site.waiting = [first[0]]
    walk.run(20, ends=True)
    assert walk.starts.count(1) == 1
    assert walk.rig.state.totals["long"].finished == 5
    assert not walk.rig.state.jobs


def test_a_job_that_is_handed_out_again_after_the_retention_of_its_bundle_never_runs_again() -> None:
    """A restored server knows nothing of its end, and no directory tells of it any more."""
    first = [make_job(n) for n in range(1, 5)]
    walk = Walk(first)
    walk.run(40, ends=True)
    walk.run(60 * 26, ends=True)
    assert not walk.rig.state.bundles
    walk.site.waiting = [first[0], make_job(9)]
    walk.run(40, ends=True)
    assert walk.starts.count(1) == 1 and walk.starts.count(9) == 1
    assert walk.rig.state.totals["long"].finished == 5
    assert not walk.rig.state.jobs


def test_only_the_bundles_retired_last_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(knownjobs, "RETIRED_BUNDLES", 2)
    state = State(servers={"panda": 0})
    for number in (1, 2, 3):
        bundle = model.Bundle(BundleId(f"b{number}"), "long", "", ((PandaId(number),),), 600)
        state.bundles[bundle.bundle_id] = bundle
        knownjobs.retire(state, bundle)
    assert not state.bundles
    assert retired_of(state, "panda", map(PandaId, (1, 2, 3, 4))) == {2, 3}
    assert retired_of(state, "panda", map(PandaId, (3, 4))) == {3}
    assert not retired_of(state, "panda", [PandaId(4)])


def test_another_servers_job_with_the_same_number_is_another_job() -> None:
    """Also of an old journal, which named no servers: there the queue tells whose it is."""
    state = State(servers={"": 0, "panda": 1})
    for number, place in ((1, "long"), (2, "long")):
        bundle = model.Bundle(BundleId(f"b{number}"), place, "", ((PandaId(number),),), 600)
        bundle.state = model.BundleState.SETTLED
        state.bundles[bundle.bundle_id] = bundle
    knownjobs.retire(state, state.bundles[BundleId("b1")])
    ids = [PandaId(1), PandaId(2)]
    found = bundles_of(state, "panda", ids, {"short"})
    assert (
        retired_of(state, "panda", ids, {"short"}) == {1} and set(found) == {2} and found[PandaId(2)][1] == ""
    )
    assert not retired_of(state, "panda", ids, {"long"}) and not bundles_of(state, "panda", ids, {"long"})
    state.servers = {"other": 0, "panda": 1}
    assert not retired_of(state, "panda", ids) and not bundles_of(state, "panda", ids)
    assert retired_of(state, "other", ids) == {1} and set(bundles_of(state, "other", ids)) == {2}


def test_a_retired_bundle_takes_what_it_kept_with_it() -> None:
    first = [make_job(n) for n in range(1, 5)]
    walk = Walk(first)
    walk.run(12, ends=False)
    walk.gone = {1, 2, 3, 4}
    walk.run(20, ends=True)
    walk.run(60 * 26, ends=True)
    assert not walk.rig.state.bundles
    assert not walk.rig.state.jobs
    assert not walk.rig.state.works


def test_a_follower_that_the_server_gives_up_goes_with_the_bundle_that_it_followed() -> None:
    walk, _ = _orphaned()
    walk.gone = {1, 101}
    walk.run(40, ends=True)
    assert walk.links
    walk.run(60 * 26, ends=True)
    assert not walk.rig.state.jobs
    assert not walk.rig.state.works


def test_the_same_key_for_another_kind_of_work_is_other_work() -> None:
    first = [make_job(n) for n in range(1, 5)]
    walk = Walk(first)
    walk.run(12, ends=False)
    walk.site.waiting = [replace(_again(first[0], 101), transformation="DDD filtering")]
    walk.run(15, ends=False)
    assert not walk.rig.state.bound
    job = first[0]
    keys = {work_of(job, "panda"), work_of(job, "panda2"), work_of(replace(job, panda_queue="Q2"), "panda")}
    assert len(keys) == 3


def test_what_follows_a_job_goes_with_it_from_bundle_to_bundle() -> None:
    """Its reports name the batch job in which that one is, and an order to end it finds a bundle that is there."""
    state, at = State(), "2026-01-01T00:00:00+00:00"
    first, again = PandaId(1), PandaId(101)
    apply(state, JobFetched(at, "long", make_job(1), "w"))
    apply(state, JobFetched(at, "long", make_job(101), "w"))
    apply(state, BundlePlanned(at, BundleId("a" * 9), "long", ((first,),), 600))
    apply(state, JobBound(at, again, first))
    assert state.jobs[again].bundle_id == "a" * 9
    apply(state, JobReturned(at, first, "not started"))
    assert state.jobs[again].bundle_id is None
    apply(state, BundlePlanned(at, BundleId("b" * 9), "long", ((first,),), 600))
    assert state.jobs[again].bundle_id == "b" * 9
    apply(state, KillOrdered(at, again))
    assert state.bundles[BundleId("b" * 9)].orders == 1
