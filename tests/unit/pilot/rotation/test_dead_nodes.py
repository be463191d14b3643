"""A dead node keeps its batch job running for ever: cancelled when nothing more will come, harvested at once."""

from __future__ import annotations

from dataclasses import replace

import pytest
from rig import Rig, Site, good_end, make_job, make_limits

from pilot.multijob import actions as a
from pilot.multijob.model import BundleState, JobState, State
from pilot.ports import (
    BatchId,
    BatchState,
    BundleId,
    CancelResult,
    EvidenceSeen,
    JobStatus,
    JournalLine,
    Refused,
    Unavailable,
)

SILENT_S = 1000.0
REFUSED = Refused("224", "qdel exited 224: the node's daemon does not answer: the batch job stays as it is")


class TwoNodes(Site):
    """Two nodes of two slots; each has a journal of its own."""

    def __init__(self) -> None:
        super().__init__([make_job(n) for n in range(1, 5)])
        self.journals: dict[int, list[tuple[str, dict[str, object]]]] = {0: [], 1: []}
        self.cancels: list[str] = []
        self.cancel_answer: object = CancelResult.ASKED
        self.reading = True
        self.over_walltime: tuple[int, ...] = ()

    def respond(self, action: a.Action) -> object:
        if isinstance(action, a.CancelBatchJob):
            self.cancels.append(action.why)
            return self.cancel_answer
        if isinstance(action, a.ReadEvidence) and not self.reading:
            return Unavailable("the filesystem hangs")
        return super().respond(action)

    def _read(self, bundle_id: BundleId, offsets: object) -> EvidenceSeen:
        seen = super()._read(bundle_id, {})
        lines = tuple(
            JournalLine(f"node.{index}.x.journal", n + 1, n + 1, kind, body)
            for index, journal in self.journals.items()
            for n, (kind, body) in enumerate(journal)
            if n >= offsets.get(f"node.{index}.x.journal", 0)  # type: ignore[attr-defined]
        )
        return replace(seen, lines=lines, over_walltime=self.over_walltime if seen.closed else ())

    def began(self, core: Rig) -> tuple[BundleId, BatchId]:
        """The only bundle runs; every job has its start line."""
        core.run(self.respond, 40)
        (batch_id,), (bundle,) = self.batch, core.state.bundles.values()
        self.start(batch_id)
        for index, node in enumerate(bundle.nodes):
            for panda_id in node:
                self.journals[index].append(("job_started", {"panda_id": panda_id, "attempt_nr": 1}))
        core.run(self.respond, 20)
        return bundle.bundle_id, batch_id

    def finish(self, state: State, bundle_id: BundleId, index: int) -> None:
        """All jobs of one node end well."""
        for panda_id in state.bundles[bundle_id].nodes[index]:
            self.journals[index].append(("job_ended", good_end(state.jobs[panda_id].job)))
        self.journals[index].append(("agent_ended", {"reason": "list worked", "left_behind": []}))


def make_rig() -> Rig:
    return Rig(make_limits(silent_s=SILENT_S, evidence_every_s=5.0, cancel_again_s=100.0))


def test_one_silent_node_after_the_others_have_ended_is_cancelled() -> None:
    core, site = make_rig(), TwoNodes()
    bundle_id, _ = site.began(core)
    site.finish(core.state, bundle_id, 0)
    core.run(site.respond, 90, after_s=10.0)
    assert site.cancels == []
    core.run(site.respond, 30, after_s=10.0)
    assert site.cancels
    assert site.cancels[0].startswith("node 1 silent for 1000 s")


def test_a_node_that_speaks_is_never_cancelled() -> None:
    core, site = make_rig(), TwoNodes()
    bundle_id, _ = site.began(core)
    site.finish(core.state, bundle_id, 0)
    for _ in range(30):
        site.journals[1].append(("heartbeat", {"running": []}))
        core.run(site.respond, 20, after_s=10.0)
    assert site.cancels == []


def test_a_silent_node_beside_one_that_works_is_left_alone() -> None:
    core, site = make_rig(), TwoNodes()
    site.began(core)
    for _ in range(30):
        site.journals[0].append(("heartbeat", {"running": []}))
        core.run(site.respond, 20, after_s=10.0)
    assert site.cancels == []


def test_silence_counts_only_where_the_evidence_could_be_read() -> None:
    core, site = make_rig(), TwoNodes()
    bundle_id, _ = site.began(core)
    site.finish(core.state, bundle_id, 0)
    core.run(site.respond, 5, after_s=10.0)
    site.reading = False
    core.run(site.respond, 400, after_s=10.0)
    assert site.cancels == []


def test_a_refused_cancel_is_an_alarm_and_what_ended_is_reported() -> None:
    core, site = make_rig(), TwoNodes()
    bundle_id, batch_id = site.began(core)
    site.finish(core.state, bundle_id, 0)
    site.cancel_answer = REFUSED
    core.run(site.respond, 200, after_s=10.0)
    name = f"cannot-cancel-{bundle_id}"
    assert "224" in core.memory.alarms[name].reason
    finals = [update for update in site.reports if update.status is JobStatus.FINISHED]
    assert len(finals) == 2
    assert {record.state for record in core.state.jobs.values()} == {JobState.STARTED}
    assert core.state.bundles[bundle_id].state is BundleState.OPEN
    # An operator purges it: the id is unknown from then on.
    del site.batch[batch_id]
    core.run(site.respond, 60, after_s=10.0)
    assert name not in core.memory.alarms
    lost = [update for update in site.reports if update.status is JobStatus.FAILED]
    assert [update.pilot_error_code for update in lost] == [1379, 1379]


@pytest.mark.parametrize("how", ["listing", "text", "neither"])
def test_walltime_is_told_by_text_or_time_or_status(how: str) -> None:
    core, site = make_rig(), TwoNodes()
    _, batch_id = site.began(core)
    site.batch[batch_id] = replace(
        site.batch[batch_id], state=BatchState.OVER, over_walltime=how == "listing"
    )
    site.over_walltime = (1,) if how == "text" else ()
    core.run(site.respond, 60, after_s=10.0)
    ended = [update.pilot_error_code for update in site.reports if update.status is JobStatus.FAILED]
    assert ended == [1379 if how == "neither" else 1213] * 4
