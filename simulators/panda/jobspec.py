"""Positional job lists as submitters send them -> values (panda-jobmodel section 4). Pure.

The order of attributes is that of real servers: they are only ever appended, so an older list is a prefix and the
last element is always the list of files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

ATTRIBUTES: tuple[str, ...] = tuple(
    """PandaID jobDefinitionID schedulerID pilotID creationTime creationHost modificationTime modificationHost
    AtlasRelease transformation homepackage prodSeriesLabel prodSourceLabel prodUserID assignedPriority
    currentPriority attemptNr maxAttempt jobStatus jobName maxCpuCount maxCpuUnit maxDiskCount maxDiskUnit
    ipConnectivity minRamCount minRamUnit startTime endTime cpuConsumptionTime cpuConsumptionUnit commandToPilot
    transExitCode pilotErrorCode pilotErrorDiag exeErrorCode exeErrorDiag supErrorCode supErrorDiag ddmErrorCode
    ddmErrorDiag brokerageErrorCode brokerageErrorDiag jobDispatcherErrorCode jobDispatcherErrorDiag
    taskBufferErrorCode taskBufferErrorDiag computingSite computingElement jobParameters metadata prodDBlock
    dispatchDBlock destinationDBlock destinationSE nEvents grid cloud cpuConversion sourceSite destinationSite
    transferType taskID cmtConfig stateChangeTime prodDBUpdateTime lockedby relocationFlag jobExecutionID VO
    pilotTiming workingGroup processingType prodUserName nInputFiles countryGroup batchID parentID specialHandling
    jobsetID coreCount nInputDataFiles inputFileType inputFileProject inputFileBytes nOutputDataFiles
    outputFileBytes jobMetrics workQueue_ID jediTaskID jobSubStatus actualCoreCount reqID maxRSS maxVMEM maxSWAP
    maxPSS avgRSS avgVMEM avgSWAP avgPSS maxWalltime nucleus eventService failedAttempt hs06sec gshare hs06
    totRCHAR totWCHAR totRBYTES totWBYTES rateRCHAR rateWCHAR rateRBYTES rateWBYTES resource_type diskIO
    memory_leak memory_leak_x2 container_name job_label gco2_regional gco2_global cpu_architecture_level
    outputFileType""".split()
)
FILE_ATTRIBUTES: tuple[str, ...] = tuple(
    """row_ID PandaID GUID lfn type dataset status prodDBlock prodDBlockToken dispatchDBlock dispatchDBlockToken
    destinationDBlock destinationDBlockToken destinationSE fsize md5sum checksum scope""".split()
)


def render_record(record: Mapping[str, Any]) -> list[Any]:
    """A job's record by name -> the positional list that clients read, with its files and their owner at the end."""
    files = [[*(_positional(entry.get(name)) for name in FILE_ATTRIBUTES), None] for entry in record["Files"]]
    return [*(_positional(record.get(name)) for name in ATTRIBUTES), files]


def _positional(value: Any) -> Any:
    """Unset is the text NULL; a time is what clients make a datetime of."""
    if isinstance(value, dict):
        text = str(value["__datetime__"]).replace("T", " ")
        return {"_datetime_object": text if "." in text else f"{text}.000000"}
    return "NULL" if value is None else value


class BadJobList(Exception):
    """What a submitter sent is no list of jobs."""


@dataclass(frozen=True, slots=True)
class SubmittedJob:
    """One job as submitted: its set attributes by name, and its files."""

    attributes: Mapping[str, Any]
    files: tuple[Mapping[str, Any], ...]


def parse_jobs(value: Any) -> list[SubmittedJob]:
    """Jobs of a submitted list; raises BadJobList."""
    if not isinstance(value, list):
        raise BadJobList("jobs is no list")
    return [_job(item) for item in value]


def _job(item: Any) -> SubmittedJob:
    if not isinstance(item, list) or len(item) < 2 or not isinstance(item[-1], list):
        raise BadJobList("a job is no positional list that ends in its files")
    return SubmittedJob(_named(ATTRIBUTES, item[:-1]), tuple(_file(entry) for entry in item[-1]))


def _file(entry: Any) -> Mapping[str, Any]:
    if not isinstance(entry, list):
        raise BadJobList("a file is no positional list")
    named = _named(FILE_ATTRIBUTES, entry)
    if not isinstance(named.get("lfn"), str):
        raise BadJobList("a file has no lfn")
    return named


def _named(names: Sequence[str], values: Sequence[Any]) -> dict[str, Any]:
    """What is set. Datetimes ({"_datetime_object": ...}) are left out: the server sets its own."""
    pairs = zip(names, values, strict=False)
    return {
        name: value
        for name, value in pairs
        if value is not None and value != "NULL" and not isinstance(value, dict)
    }
