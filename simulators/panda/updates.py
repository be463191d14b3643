"""Parameters of a pilot's update in both dialects, and what the server keeps of them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from simulators.panda.rules import DatabaseTrouble

INTEGER_MAX = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter: its names ("" : not in that dialect), v1's type, the attribute it is kept in (None: not kept)."""

    legacy: str
    v1: str
    kind: type
    attribute: str | None
    keep: Callable[[Any], Any]


def text(limit: int) -> Callable[[Any], Any]:
    """Kept as text, cut."""
    return lambda value: str(value)[:limit]


def integer(value: Any) -> int:
    """Kept as a number; anything else fails the whole statement."""
    try:
        number = int(str(value))
    except ValueError as error:
        raise DatabaseTrouble(str(error)) from error
    if abs(number) > INTEGER_MAX:
        raise DatabaseTrouble("out of range")
    return number


def soft_integer(value: Any) -> int | None:
    """A number, stored positive; dropped if it is none."""
    try:
        number = int(str(value))
    except ValueError:
        return None
    return integer(abs(number))


def soft_text(value: Any) -> str | None:
    """A number kept as text; dropped if it is none."""
    number = soft_integer(value)
    return None if number is None else str(int(str(value)))


def moment(value: Any) -> float | None:
    """`%Y-%m-%d %H:%M:%S` in UTC as epoch seconds; anything else is dropped."""
    try:
        return datetime.strptime(str(value), "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None


def some_text(limit: int) -> Callable[[Any], Any]:
    """As text; an empty one is not stored."""
    return lambda value: str(value)[:limit] or None


_P = Parameter
PARAMETERS: tuple[Parameter, ...] = (
    _P("attemptNr", "attempt_nr", int, None, str),
    _P("timeout", "timeout", int, None, str),
    _P("siteName", "site_name", str, None, str),
    _P("stdout", "stdout", str, None, str),
    _P("pilotLog", "pilot_log", str, None, str),
    _P("timestamp", "", str, None, str),
    _P("workdir", "", str, None, str),
    _P("token", "", str, None, str),
    _P("messageLevel", "", str, None, str),
    _P("remainingSpace", "", str, None, str),
    _P("computingElement", "", str, None, str),
    _P("corruptedFiles", "corrupted_files", str, None, str),
    _P("jobSubStatus", "job_sub_status", str, "jobSubStatus", some_text(80)),
    _P("startTime", "start_time", str, "startTime", moment),
    _P("endTime", "end_time", str, "endTime", moment),
    _P("pilotTiming", "pilot_timing", str, "pilotTiming", text(100)),
    _P("node", "node", str, "modificationHost", text(128)),
    _P("schedulerID", "scheduler_id", str, "schedulerID", text(128)),
    _P("pilotID", "pilot_id", str, "pilotID", text(200)),
    _P("batchID", "batch_id", str, "batchID", some_text(80)),
    _P("transExitCode", "trans_exit_code", int, "transExitCode", soft_text),
    _P("pilotErrorCode", "pilot_error_code", int, "pilotErrorCode", soft_integer),
    _P("pilotErrorDiag", "pilot_error_diag", str, "pilotErrorDiag", some_text(500)),
    _P("exeErrorCode", "exe_error_code", int, "exeErrorCode", integer),
    _P("exeErrorDiag", "exe_error_diag", str, "exeErrorDiag", some_text(500)),
    _P("nEvents", "n_events", int, "nEvents", integer),
    _P("nInputFiles", "n_input_files", int, "nInputFiles", integer),
    _P("coreCount", "core_count", int, "actualCoreCount", integer),
    _P("meanCoreCount", "mean_core_count", int, None, integer),
    _P("cpuConsumptionTime", "cpu_consumption_time", int, "cpuConsumptionTime", integer),
    _P("cpuConsumptionUnit", "cpu_consumption_unit", str, "cpuConsumptionUnit", text(128)),
    _P("cpuConversionFactor", "cpu_conversion_factor", float, "cpuConversion", str),
    _P("cpu_architecture_level", "cpu_architecture_level", str, "cpu_architecture_level", text(20)),
    _P("jobMetrics", "job_metrics", str, "jobMetrics", text(500)),
    _P("metaData", "meta_data", str, None, str),
    _P("grid", "grid", str, "grid", text(50)),
    _P("sourceSite", "source_site", str, "sourceSite", text(36)),
    _P("destinationSite", "destination_site", str, "destinationSite", text(36)),
    *(
        _P(f"{kind}{what}", f"{kind}_{what.lower()}", int, f"{kind}{what}", integer)
        for kind in ("max", "avg")
        for what in ("RSS", "VMEM", "SWAP", "PSS")
    ),
    *(
        _P(f"{kind}{what}", f"{kind}_{what.lower()}", int, f"{kind}{what}", integer)
        for kind in ("tot", "rate")
        for what in ("RCHAR", "WCHAR", "RBYTES", "WBYTES")
    ),
    _P("xml", "job_output_report", str, "report", str),
)
BY_LEGACY: Mapping[str, Parameter] = {item.legacy: item for item in PARAMETERS if item.legacy}
BY_V1: Mapping[str, Parameter] = {item.v1: item for item in PARAMETERS if item.v1}


def kept_fields(known: Mapping[str, Parameter], given: Mapping[str, Any]) -> dict[str, Any]:
    """What is stored of an update, by attribute. Raises DatabaseTrouble."""
    fields: dict[str, Any] = {}
    for name, value in given.items():
        parameter = known.get(name)
        if parameter is None or parameter.attribute is None or value is None:
            continue
        kept = parameter.keep(value)
        if kept is not None:
            fields[parameter.attribute] = kept
    return fields
