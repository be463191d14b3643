"""A site whose state directory may be put back to an older copy: directories, batch jobs and PanDA stay as they are."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from rig import Rig, Site, good_end, make_limits

from pilot.multijob import actions as a
from pilot.multijob.adoption import parse_found
from pilot.multijob.apply import replay
from pilot.multijob.codec import decode
from pilot.multijob.events import BundleAdopted
from pilot.multijob.model import Limits, State
from pilot.ports import (
    GONE,
    Ack,
    AlreadyThere,
    BatchId,
    BatchState,
    BundleId,
    BundlesFound,
    Claim,
    DirectorySeen,
    Done,
    EvidenceSeen,
    Job,
    JobStatus,
    Refused,
    ServerStatus,
)

FINAL = ("finished", "failed")


class Place(Site):
    """Directories with their manifests; gates and agents obey them. `runs` counts starts of each PandaID."""

    def __init__(self, jobs: list[Job], limits: Limits) -> None:
        super().__init__(jobs)
        self.limits = limits
        self.all = {job.panda_id: job for job in jobs}
        self.manifests: dict[BundleId, str] = {}
        self.scripts: dict[BundleId, set[int]] = {}
        self.server: dict[int, str] = {}
        self.runs: Counter[int] = Counter()
        self.names: Counter[str] = Counter()
        self.judged: dict[int, list[str]] = {}
        self.asks = True
        # whether answers to reports carry orders
        self.commands = True

    # --- the daemon's calls ---------------------------------------------------------------------------------

    def respond(self, action: a.Action) -> Any:
        match action:
            case a.FindBundles():
                return BundlesFound(tuple(self.manifests))
            case a.AdoptBundle():
                return self._adopt(action.bundle_id)
            case a.PrepareBundle():
                return self._prepare(action)
            case a.AddScript():
                self.scripts[action.bundle_id].add(action.number)
            case a.SubmitBatchJob():
                self.names[action.name] += 1
            case a.RemoveBundle():
                self.manifests.pop(action.bundle_id, None)
            case a.ReportJobs():
                return self._report(action)
            case a.AskStatus() if self.asks:
                return tuple(ServerStatus(i, 0, self.server.get(i, "unknown")) for i in action.ids)
            case a.AskStatus():
                return None
            case a.ReadEvidence() | a.MakeClaim() if action.bundle_id not in self.manifests:
                return Refused(GONE, "not there")
        outcome = super().respond(action)
        if isinstance(action, a.FetchJobs):
            self.server.update({job.panda_id: "sent" for job in outcome.jobs})
        return outcome

    def _prepare(self, action: a.PrepareBundle) -> AlreadyThere | Done | Refused:
        if action.bundle_id in self.manifests:
            return AlreadyThere()
        files = action.render()
        if isinstance(files, Refused):
            return files
        self.manifests[action.bundle_id] = files.manifest
        self.scripts[action.bundle_id] = {1}
        return Done()

    def _adopt(self, bundle_id: BundleId) -> DirectorySeen:
        self._claim(bundle_id, 1)
        claims = (number for tag, number in self.claims if tag == bundle_id)
        return DirectorySeen(
            bundle_id, self.manifests[bundle_id], max(*claims, *self.scripts[bundle_id], 1, 1)
        )

    def _report(self, action: a.ReportJobs) -> tuple[Ack, ...]:
        acks = []
        for update in action.updates:
            over = self.server[update.panda_id] in FINAL
            if update.status in (JobStatus.FINISHED, JobStatus.FAILED):
                self.judged.setdefault(update.panda_id, []).append(update.status.value)
            if not over:
                self.server[update.panda_id] = update.status.value
            acks.append(
                Ack(update.panda_id, update.attempt_nr, True, "tobekilled" if over and self.commands else "")
            )
        return tuple(acks)

    def _read(self, bundle_id: BundleId, offsets: Mapping[str, int]) -> EvidenceSeen:
        return replace(super()._read(bundle_id, offsets), scripts=tuple(self.scripts[bundle_id]))

    # --- what happens by itself -------------------------------------------------------------------------------

    def jobs_of(self, bundle_id: BundleId) -> list[Job]:
        """The jobs of a directory, as its agents read them."""
        raw = json.loads(self.manifests[bundle_id])
        return [self.all[item["panda_id"]] for node in raw["nodes"] for item in node["jobs"]]

    def waiting_jobs(self) -> list[BatchId]:
        """Batch jobs that have not started."""
        return [batch_id for batch_id, job in self.batch.items() if job.state is BatchState.WAITING]

    def running_jobs(self) -> list[BatchId]:
        """Batch jobs that run."""
        return [batch_id for batch_id, job in self.batch.items() if job.state is BatchState.RUNNING]

    def end(self, batch_id: BatchId) -> None:
        """It is over, if the batch system has it."""
        if batch_id in self.batch:
            super().end(batch_id)

    def begin(self, batch_id: BatchId, share: int = 1) -> None:
        """It starts; a gate that owns its round starts every `share`th of its jobs."""
        tag = BundleId(self.batch[batch_id].name.partition(".")[0])
        if tag not in self.manifests or not self.start(batch_id):
            self.end(batch_id)
            return
        for job in self.jobs_of(tag)[::share]:
            self.runs[job.panda_id] += 1
            self.line(tag, "job_started", panda_id=job.panda_id, attempt_nr=job.attempt_nr)

    def work_ends(self, batch_id: BatchId) -> None:
        """What it had started ends well, and with that the batch job."""
        tag = BundleId(self.batch[batch_id].name.partition(".")[0])
        lines = self.lines.get(tag, [])
        ended = {body["panda_id"] for kind, body in lines if kind == "job_ended"}
        started = [body["panda_id"] for kind, body in lines if kind == "job_started"]
        for panda_id in started:
            if panda_id not in ended:
                self.line(tag, "job_ended", **good_end(self.all[panda_id]))
        self.end(batch_id)

    def known_somewhere(self, rig: Rig) -> set[int]:
        """PandaIDs that the daemon or a directory knows."""
        found = {job.panda_id for bundle_id in self.manifests for job in self.jobs_of(bundle_id)}
        return {int(i) for i in found} | {int(i) for i in rig.state.jobs}

    def watch(self, rig: Rig) -> None:
        """PanDA's watcher: a job that nobody knows any more has no heartbeat and is failed."""
        known = self.known_somewhere(rig)
        for panda_id, status in self.server.items():
            if status not in FINAL and panda_id not in known:
                self.server[panda_id] = "failed"


def begin_again(rig: Rig, records: list[dict[str, Any]]) -> Rig:
    """A new daemon over these durable records."""
    again = Rig(rig.limits, replay(decode(record) for record in records))
    again.durable, again.now_s, again._tags = list(records), rig.now_s, rig._tags
    again.memory.started_s = rig.now_s
    again.memory.inherit(again.state)
    return again


def short_limits(**changes: Any) -> Limits:
    """Bundles are removed soon after they are settled."""
    return make_limits(
        retain_ok_s=400.0, retain_failed_s=400.0, listing_every_s=20.0, submit_retry_s=5.0, **changes
    )


def found_in(place: Place, bundle_id: BundleId, limits: Limits) -> BundleAdopted | str:
    """What is made of a directory."""
    return parse_found(DirectorySeen(bundle_id, place.manifests[bundle_id], 1), limits)


def start(place: Place) -> Rig:
    """The first daemon of this site, over nothing."""
    rig = Rig(place.limits, State())
    rig.memory.inherit(rig.state)
    return rig


__all__ = ["FINAL", "Claim", "Place", "begin_again", "found_in", "short_limits", "start"]
