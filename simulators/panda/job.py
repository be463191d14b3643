"""One PanDA job of the simulated server: what it holds, what a pilot is given of it, what a description shows. Pure.

Shapes: captured answers of panda-server 0.8.1 and 1.0.4 (`tests/data/panda-samples`). Times are seconds of
the model's clock; `epoch_s` is the UTC epoch time of its zero.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from simulators.panda.jobspec import ATTRIBUTES, FILE_ATTRIBUTES

FINAL = frozenset({"finished", "failed", "cancelled", "closed"})
TIMES = frozenset(
    {"creationTime", "modificationTime", "startTime", "endTime", "stateChangeTime", "prodDBUpdateTime"}
)
ZEROS = frozenset(name for name in ATTRIBUTES if name.endswith("ErrorCode")) | {
    "cpuConsumptionTime",
    "nOutputDataFiles",
    "outputFileBytes",
    "jobExecutionID",
}
BLANK = {name: 0 if name in ZEROS else None for name in ATTRIBUTES}
"""What is shown of an attribute that was never set."""
SERVER_FILE_ATTRIBUTES = (*FILE_ATTRIBUTES, "jediTaskID", "datasetID", "fileID", "attemptNr")
_GUIDS = uuid.UUID("5b1c0d0e-2a55-5f0e-8f0e-6d2f60a1c1f7")


@dataclass(slots=True)
class PandaJob:
    """`attributes` holds what is set. `heard_s` is modificationTime, `since_s` stateChangeTime.

    `final_state` and `report` come with the final update; `report_attempt` is the attempt under which the report is
    stored (0 if the update named none: the adder then drops it). `history`: every status with its time.
    `updates`: accepted reports by the state that the pilot gave.
    """

    panda_id: int
    attributes: dict[str, Any]
    files: list[dict[str, Any]]
    status: str
    since_s: float
    heard_s: float
    timer_s: float | None = None
    final_state: str | None = None
    report: str | None = None
    report_attempt: int = 0
    archived_s: float | None = None
    history: list[tuple[float, str]] = field(default_factory=list)
    updates: dict[str, int] = field(default_factory=dict)

    @property
    def attempt_nr(self) -> int:
        """The attempt that updates must name."""
        return int(self.attributes.get("attemptNr") or 0)

    @property
    def queue(self) -> str:
        """PanDA queue (computingSite)."""
        return str(self.attributes.get("computingSite"))

    @property
    def label(self) -> str | None:
        """prodSourceLabel."""
        found = self.attributes.get("prodSourceLabel")
        return None if found is None else str(found)

    @property
    def priority(self) -> int:
        """currentPriority."""
        return int(self.attributes.get("currentPriority") or 0)

    @property
    def command(self) -> str | None:
        """commandToPilot."""
        found = self.attributes.get("commandToPilot")
        return None if found is None else str(found)

    @property
    def archived(self) -> bool:
        """Whether it left the active table."""
        return self.archived_s is not None


def guid_of(panda_id: int, lfn: str) -> str:
    """The GUID that the server gives a log file: the same for the same job and name, so that a run is repeatable."""
    return str(uuid.uuid5(_GUIDS, f"{panda_id}:{lfn}"))


def utc_text(at_s: float) -> str:
    """ISO text as the server renders a datetime (no zone, microseconds where there are any)."""
    return datetime.fromtimestamp(at_s, UTC).replace(tzinfo=None).isoformat()


# What a pilot receives, in the server's order: name, where it comes from (a constant, the job, an attribute, a column
# of its inputs, outputs, plain outputs or logs; one without a name is empty), name there, value if absent.
DICTIONARY: tuple[tuple[str, str, str, Any], ...] = (
    ("StatusCode", "constant", "", 0),
    ("PandaID", "job", "panda_id", None),
    ("prodSourceLabel", "attributes", "prodSourceLabel", "NULL"),
    ("swRelease", "attributes", "AtlasRelease", "NULL"),
    ("homepackage", "attributes", "homepackage", "NULL"),
    ("transformation", "attributes", "transformation", "NULL"),
    ("jobName", "attributes", "jobName", "NULL"),
    ("jobDefinitionID", "attributes", "jobDefinitionID", 0),
    ("cloud", "attributes", "cloud", "NULL"),
    ("inFiles", "inputs", "lfn", ""),
    ("dispatchDblock", "inputs", "dispatchDBlock", ""),
    ("dispatchDBlockToken", "inputs", "dispatchDBlockToken", ""),
    ("dispatchDBlockTokenForOut", "outputs", "dispatchDBlockToken", ""),
    ("outFiles", "outputs", "lfn", ""),
    ("destinationDblock", "outputs", "destinationDBlock", ""),
    ("destinationDBlockToken", "outputs", "destinationDBlockToken", ""),
    ("prodDBlocks", "inputs", "prodDBlock", ""),
    ("prodDBlockToken", "inputs", "prodDBlockToken", ""),
    ("realDatasets", "outputs", "dataset", ""),
    ("realDatasetsIn", "inputs", "dataset", ""),
    ("fileDestinationSE", "outputs", "destinationSE", ""),
    ("logFile", "logs", "lfn", "NULL"),
    ("logGUID", "logs", "GUID", "NULL"),
    ("jobPars", "attributes", "jobParameters", "NULL"),
    ("attemptNr", "job", "attempt_nr", None),
    ("GUID", "inputs", "GUID", ""),
    ("checksum", "inputs", "checksum", ""),
    ("fsize", "inputs", "fsize", ""),
    ("scopeIn", "inputs", "scope", ""),
    ("scopeOut", "plain", "scope", ""),
    ("scopeLog", "logs", "scope", ""),
    ("ddmEndPointIn", "inputs", "", ""),
    ("ddmEndPointOut", "outputs", "", ""),
    ("destinationSE", "attributes", "destinationSE", "NULL"),
    ("prodUserID", "attributes", "prodUserID", "NULL"),
    ("maxCpuCount", "attributes", "maxCpuCount", 0),
    ("minRamCount", "attributes", "minRamCount", 0),
    ("maxDiskCount", "attributes", "maxDiskCount", 0),
    ("cmtConfig", "attributes", "cmtConfig", "NULL"),
    ("processingType", "attributes", "processingType", "NULL"),
    ("transferType", "attributes", "transferType", "NULL"),
    ("sourceSite", "attributes", "sourceSite", "NULL"),
    ("currentPriority", "job", "priority", None),
    ("taskID", "attributes", "taskID", "NULL"),
    ("coreCount", "attributes", "coreCount", 1),
    ("jobsetID", "attributes", "jobsetID", "NULL"),
    ("reqID", "attributes", "reqID", "NULL"),
    ("nucleus", "attributes", "nucleus", "NULL"),
    ("maxWalltime", "attributes", "maxWalltime", "NULL"),
    ("resource_type", "attributes", "resource_type", "Undefined"),
    ("ioIntensity", "constant", "", None),
    ("ioIntensityUnit", "constant", "", None),
    ("nSent", "constant", "", 0),
)


def job_dictionary(job: PandaJob) -> dict[str, Any]:
    """What a pilot receives of a job: no event count, absent values as the text "NULL"."""
    kinds = {"inputs": ("input",), "outputs": ("output", "log"), "plain": ("output",), "logs": ("log",)}
    files = {
        place: [entry for entry in job.files if entry.get("type") in kind] for place, kind in kinds.items()
    }
    return {key: _value(job, files, place, name, absent) for key, place, name, absent in DICTIONARY}


def _value(
    job: PandaJob, files: Mapping[str, Sequence[Mapping[str, Any]]], place: str, name: str, absent: Any
) -> Any:
    match place:
        case "constant":
            return absent
        case "job":
            return getattr(job, name)
        case "attributes":
            found = job.attributes.get(name)
            return absent if found is None else found
        case _:
            column = ("" if not name else _shown_in_column(entry.get(name)) for entry in files[place])
            return ",".join(column) or absent


def _shown_in_column(value: Any) -> str:
    return "NULL" if value is None else str(value)


def describe(job: PandaJob, epoch_s: float) -> dict[str, Any]:
    """All attributes by name, with the files, as job/get_description gives them."""
    shown = {name: value for name, value in job.attributes.items() if value is not None and name in BLANK}
    record: dict[str, Any] = BLANK | shown
    record |= {"modificationTime": job.heard_s, "stateChangeTime": job.since_s}
    for name in TIMES:
        if record[name] is not None:
            record[name] = {"__datetime__": utc_text(record[name] + epoch_s)}
    record["Files"] = [{name: entry.get(name) for name in SERVER_FILE_ATTRIBUTES} for entry in job.files]
    return record


def table_row(job: PandaJob, epoch_s: float) -> dict[str, Any]:
    """Everything that the server knows of a job, for readers of evidence. Times are epoch seconds."""
    return {
        "panda_id": job.panda_id,
        "status": job.status,
        "attempt_nr": job.attempt_nr,
        "job_name": job.attributes.get("jobName"),
        "queue": job.queue,
        "command": job.command,
        "attributes": {
            name: round(value + epoch_s, 3) if name in TIMES else value
            for name, value in job.attributes.items()
        },
        "files": job.files,
        "final_state": job.final_state,
        "report": job.report,
        "updates": job.updates,
        "history": [[round(at_s + epoch_s, 3), status] for at_s, status in job.history],
    }
