"""PanDA's v1 texts <-> values. Pure. Source: docs/facts, panda-protocol section 4.2 (calls)."""

import json
import re
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from pydantic.dataclasses import dataclass as table

from prodsys_core import ports
from prodsys_core.yamlfile import load_table

Value = TypeVar("Value")


@table(frozen=True, slots=True, config={"extra": "forbid"})
class JobSpec:
    """`data/jobspec.yaml`: attributes of a job and of its files in order, where those come from that are submitted,
    and what a server says that has changed nothing."""

    job: tuple[str, ...]
    file: tuple[str, ...]
    submitted: dict[str, str]
    constants: dict[str, Any]
    file_constants: dict[str, str]
    refusals: tuple[str, ...]


JOB_SPEC = load_table("jobspec.yaml", JobSpec)
UNSET = "NULL"
_BLOCKS = uuid.UUID("8a1c6a0e-6f0b-5c1e-9a57-2a7c0f3f1d11")
CODE_FIELDS = [name for name in JOB_SPEC.job if name.endswith(("ErrorCode", "ExitCode"))]
DIAG_FIELDS = [name for name in JOB_SPEC.job if name.endswith("Diag")]
DIAG_MAX = 400
EMPTY = (None, "", UNSET)
NO_CODE = (None, UNSET, 0, "0")
_ADLER = re.compile(r"(?:ad:)?([0-9a-fA-F]{8})")
_WRITTEN = re.compile(r"(?<!\S)eventsWritten=(\d{1,18})(?!\S)", re.ASCII)
"""In a record's jobMetrics; nEvents is what was read, of a merge what was written."""


def positional(job: ports.PandaJob) -> list[Any]:
    """A job as every server reads it, its files at the end."""
    block = f"panda.destDB.{uuid.uuid5(_BLOCKS, job.job_name)}"
    fields = {name: getattr(job, ours) for name, ours in JOB_SPEC.submitted.items()} | JOB_SPEC.constants
    fields["destinationDBlock"] = block
    values = [UNSET if fields.get(name) is None else fields[name] for name in JOB_SPEC.job]
    return [*values, [_positional_file(lfn, kind, block) for lfn, kind in job.outputs.items()]]


def _positional_file(lfn: str, kind: str, block: str) -> list[Any]:
    fields = {"lfn": lfn, "type": kind, "dataset": block, "destinationDBlock": block}
    fields |= JOB_SPEC.file_constants
    return [*(fields.get(name, UNSET) for name in JOB_SPEC.file), None]


def parse_envelope(status: int, text: str) -> Any | ports.Failure:
    """`data` of a v1 answer, or the failure it stands for."""
    if status != 200:
        return http_failure(status, text)
    try:
        answer = json.loads(text)
        success, message = answer["success"], str(answer.get("message") or "")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return ports.Broken("not the JSON of a PanDA answer", excerpt(text, 500))
    if success is True:
        return answer.get("data")
    if any(words in message for words in JOB_SPEC.refusals):
        return ports.Refused(excerpt(message, 300))
    return ports.Unavailable(excerpt(message, 300) or "success is false without a message")


def http_failure(status: int, text: str) -> ports.Refused | ports.Unavailable:
    """What a status other than 200 stands for."""
    kind = ports.Refused if status in (401, 403) else ports.Unavailable
    return kind(f"HTTP {status}: {excerpt(text, 200)}")


def parse_submitted(answer: Any) -> dict[str, int | None] | ports.Broken:
    """Answer of `job/submit`: a list of [PandaID, jobDefinitionID, jobName]."""
    return _parsed(answer, lambda items: {str(item[2]): _panda_id(item[0]) for item in items})


def parse_ids(answer: Any) -> tuple[int, ...] | ports.Broken:
    """Answer of `task/get_job_ids`."""
    return _parsed(answer, lambda items: tuple(sorted(set(map(_integer, items)))))


def parse_statuses(ids: Sequence[int], answer: Any) -> dict[int, str] | ports.Broken:
    """Answer of `job/get_status`: one item per id, in the order asked for."""
    return _parsed(answer, lambda items: dict(zip(ids, map(_status, items), strict=True)))


def _status(item: object) -> str:
    """Of an item that makes no sense nothing is known: its record is asked for."""
    return str(item.get("status", "unknown")) if isinstance(item, dict) else "unknown"


def parse_descriptions(answer: Any) -> dict[int, ports.Description] | ports.Broken:
    """Answer of `job/get_description_incl_archive`. Items that are null or make no sense are left out: unknown."""
    return _parsed(answer, _described)


def parse_cancelled(ids: Sequence[int], answer: Any) -> dict[int, bool] | ports.Broken:
    """Answer of `job/kill`: one boolean per id."""
    return _parsed(answer, lambda items: dict(zip(ids, (item is True for item in items), strict=True)))


def _parsed(answer: Any, build: Callable[[list[Any]], Value]) -> Value | ports.Broken:
    """`build` of a list that is what was asked for."""
    try:
        if isinstance(answer, list):
            return build(answer)
        problem = "not a list"
    except (TypeError, ValueError, IndexError, KeyError) as error:
        problem = f"{type(error).__name__}: {error}"
    return ports.Broken(f"not what was asked for: {problem}"[:200], excerpt(repr(answer), 500))


def _described(items: Iterable[Any]) -> dict[int, ports.Description]:
    records = (_description(item) for item in items if isinstance(item, dict))
    return {record.panda_id: record for record in records if record is not None}


def _description(item: Mapping[str, Any]) -> ports.Description | None:
    written = _WRITTEN.search(str(item.get("jobMetrics") or ""))
    try:
        return ports.Description(
            _integer(item["PandaID"]),
            str(item["jobName"]),
            _integer(item["attemptNr"]),
            str(item["jobStatus"]),
            _count(item.get("nEvents")) or None,  # 0: nobody has reported any
            {name: code for name in CODE_FIELDS if (code := _code(item.get(name)))},
            {name: excerpt(str(item[name]), DIAG_MAX) for name in DIAG_FIELDS if item.get(name) not in EMPTY},
            tuple(_file(file) for file in item.get("Files") or ()),
            excerpt(str(item.get("modificationHost") or ""), 128),
            _count(written[1]) if written else None,
        )
    except (TypeError, ValueError, KeyError, AttributeError):
        return None


def _file(item: Mapping[str, Any]) -> ports.FileSeen:
    size = _count(item.get("fsize")) or 0
    return ports.FileSeen(str(item["lfn"]), str(item.get("type", "")), size, _adler(item.get("checksum")))


def _adler(checksum: object) -> str | None:
    """`ad:01234567` or the bare 8 hex digits."""
    found = _ADLER.fullmatch(str(checksum or ""))
    return found[1].lower() if found else None


def _code(value: object) -> int:
    """transExitCode comes as text, the others as integers; anything else is no code."""
    try:
        return int(str(value)) if value not in NO_CODE else 0
    except ValueError:
        return 0


def _panda_id(value: object) -> int | None:
    return None if value in EMPTY else _integer(value)


def _integer(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, str)) or not 0 <= int(value) < 2**63:
        raise ValueError(f"not an integer that can be stored: {value!r}")
    return int(value)


def _count(value: object) -> int | None:
    """Of events or bytes; None where the server has none, or something else."""
    try:
        return _integer(value)
    except ValueError:
        return None


def excerpt(text: str, length: int) -> str:
    """First characters, control characters escaped: the text of a server goes to logs and pages."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text[:length])
