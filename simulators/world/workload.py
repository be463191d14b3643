"""What the PanDA servers of the world know of all jobs: who waits, who was handed out, who is over."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pilot.ports import Job
from simulators.panda.job import PandaJob
from simulators.panda.jobspec import SubmittedJob
from simulators.panda.model import PandaModel
from simulators.panda.told import Ledger, Told
from simulators.world.panda import LABEL, Wire
from simulators.world.truth import Who

# Of two servers PandaIDs are far apart: a person who reads a trace knows whose job a number is.
IDS_APART = 1_000_000


@dataclass(slots=True)
class Workload:
    """Servers by name; `server_of` gives the server of a PanDA queue."""

    wires: Mapping[str, Wire]
    server_of: Mapping[str, str]

    def submit(self, jobs: Sequence[Job]) -> None:
        """Put jobs into the servers of their queues, one by one, as a submitter would."""
        for job in jobs:
            wire = self.wires[self.server_of[job.panda_queue]]
            wire.model.advance(wire.now())
            wire.model.submit([_submitted(job)])

    def jobs(self) -> list[PandaJob]:
        """All jobs of all servers, each brought to now."""
        found: list[PandaJob] = []
        for wire in self.wires.values():
            wire.model.advance(wire.now())
            found.extend(wire.model.jobs.values())
        return found

    def who(self, job: PandaJob) -> Who:
        """Whose job it is."""
        return self.server_of[job.queue], job.panda_id

    def waiting(self) -> list[PandaJob]:
        """Jobs that no pilot has."""
        return [job for job in self.jobs() if job.status in ("defined", "activated")]

    def handed_out(self) -> list[PandaJob]:
        """Jobs that a pilot was given."""
        return [job for job in self.jobs() if any(status == "sent" for _, status in job.history)]

    def open(self) -> list[PandaJob]:
        """Jobs that were handed out and are not over."""
        return [job for job in self.handed_out() if not job.archived]

    def told(self) -> list[Told]:
        """Everything that the servers were told; what one forgets when it is restored stays here."""
        return [told for wire in self.wires.values() for told in wire.model.ledger.entries]

    def at_rest(self) -> bool:
        """Nothing waits, nothing is open."""
        return not any(not job.archived for job in self.jobs())


def _submitted(job: Job) -> SubmittedJob:
    attributes = {
        "computingSite": job.panda_queue,
        "jobName": job.job_name,
        "transformation": job.transformation,
        "jobParameters": job.job_pars,
        "prodSourceLabel": LABEL,
        "attemptNr": job.attempt_nr,
        "assignedPriority": 1000,
    }
    files = [{"lfn": lfn, "type": "output"} for lfn in job.outputs]
    files += [{"lfn": job.log_lfn, "type": "log"}] if job.log_lfn else []
    return SubmittedJob(attributes, tuple(files))


def make_wires(
    servers: Mapping[str, str], now: Callable[[], float], note: Callable[[str], None], epoch_s: float
) -> dict[str, Wire]:
    """One server of each name; PandaIDs begin far apart."""
    wires = {}
    for number, name in enumerate(sorted(servers)):
        model = PandaModel(next_id=1 + number * IDS_APART)
        model.epoch_s, model.ledger = epoch_s, Ledger(kept=True, server=name)
        wires[name] = Wire(name, model, now, note)
    return wires
