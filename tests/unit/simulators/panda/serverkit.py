"""A model with jobs in it, for tests of the simulated PanDA server."""

from __future__ import annotations

import json
from typing import Any

from simulators.panda.flavour import FLAVOURS
from simulators.panda.jobspec import ATTRIBUTES, parse_jobs
from simulators.panda.model import PandaModel
from simulators.panda.rules import PandaTimes, Wish

LFNS = ("a.root", "b.root", "l.job.log.tgz")
EPOCH_S = 1_795_000_000.0
HOUR = 3600.0


def positional(number: int = 0, **changes: Any) -> list[Any]:
    """One job as submitters send it."""
    values: dict[str, Any] = {
        "jobName": f"j{number}",
        "computingSite": "Q",
        "prodSourceLabel": "prod_test",
        "attemptNr": 1,
        "assignedPriority": 1000,
        "transformation": "mass production",
        "jobParameters": "reco",
        "jediTaskID": 900,
        "nEvents": 5,
        **changes,
    }
    files = [
        ["NULL", "NULL", "NULL", lfn, "log" if lfn.endswith("tgz") else "output", *["NULL"] * 13, None]
        for lfn in LFNS
    ]
    return [*(values.get(name, "NULL") for name in ATTRIBUTES), files]


def report(lfns: tuple[str, ...] = LFNS, **changes: Any) -> str:
    """An output report as a pilot sends it; `changes` by "field": value in the first file, None takes it away."""
    files: dict[str, dict[str, Any]] = {
        lfn: {"guid": f"g-{lfn}", "fsize": 100 + n, "adler32": f"0000000{n}"} for n, lfn in enumerate(lfns)
    }
    for name, value in changes.items():
        files[lfns[0]].pop(name, None)
        if value is not None:
            files[lfns[0]][name] = value
    return json.dumps(files)


class Rig:
    """A model and its time."""

    def __init__(self, flavour: str = "both", **times: float) -> None:
        defaults = {"activate_s": 0.0, "adder_s": 10.0}
        self.model = PandaModel(PandaTimes(**{**defaults, **times}), FLAVOURS[flavour], epoch_s=EPOCH_S)
        self.at_s = 0.0

    def later(self, seconds: float) -> None:
        """Time passes."""
        self.at_s += seconds
        self.model.advance(self.at_s)

    def submit(self, *jobs: list[Any]) -> list[int]:
        """Store jobs and let them become activated."""
        ids = [item[0] for item in self.model.submit(parse_jobs(list(jobs or [positional()])))]
        self.later(1.0)
        return ids

    def sent(self, **changes: Any) -> int:
        """One job that a pilot has."""
        (panda_id,) = self.submit(positional(**changes))
        self.model.hand_out(Wish("Q", 1))
        return panda_id

    def update(self, panda_id: int, state: str, attempt: int | None = 1, **fields: Any) -> str:
        """A pilot's report."""
        return self.model.update(panda_id, state, attempt, fields)

    def finish(
        self, panda_id: int, text: str | None, state: str = "finished", **fields: Any
    ) -> tuple[str, Any]:
        """A final report, and what the adder makes of it: status and ddmErrorDiag."""
        self.update(panda_id, state, report=text, **fields)
        self.later(11.0)
        return self.status(panda_id), self.model.jobs[panda_id].attributes.get("ddmErrorDiag")

    def status(self, panda_id: int) -> str:
        """The job's status."""
        return self.model.jobs[panda_id].status

    def error(self, panda_id: int, field: str = "jobDispatcherError") -> tuple[Any, Any]:
        """Code and text of one error field."""
        attributes = self.model.jobs[panda_id].attributes
        return attributes.get(f"{field}Code"), attributes.get(f"{field}Diag")
