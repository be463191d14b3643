"""Torque's dialect: directives, argv of qsub, qstat, qdel and showbf, and the reading of their texts. Pure.

Sources: Torque 6.1.3 as captured in tests/data/torque-fixtures; docs/facts. The listing is asked for as XML
(`qstat -x`), the only form in which no value can look like another job; `qstat -f -1` is understood as well.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from xml.etree import ElementTree

from pilot.batch import exits
from pilot.batch.dialect import Reply, escape_text
from pilot.batch.exits import Exits, Verdict
from pilot.ports import (
    BatchId,
    BatchJobSeen,
    BatchRequest,
    BatchState,
    Broken,
    CancelResult,
    Failure,
    Hole,
    Listing,
    Refused,
    Unavailable,
)

# Letter of qstat -> state, with the reason.
STATES: Mapping[str, tuple[BatchState, str]] = {
    "T": (BatchState.WAITING, "in transit to its queue"),
    "Q": (BatchState.WAITING, "queued"),
    "W": (BatchState.WAITING, "waits for its earliest start (-a)"),
    "H": (BatchState.HELD, "held by user, operator or a dependency"),
    "R": (BatchState.RUNNING, "running; also while ALPS releases, and for ever when its node is dead"),
    "E": (BatchState.EXITING, "its script has ended, files are being delivered"),
    "S": (BatchState.SUSPENDED, "suspended"),
    "C": (BatchState.OVER, "kept for keep_completed seconds after its end"),
}

# JOB_EXEC_OVERLIMIT_WT
OVER_WALLTIME = -11

_BATCH_ID = re.compile(r"\d+(\[\d*\])?\.[\w.-]+")
_WORD = re.compile(r"[A-Za-z0-9._:+@%=/-]+")
_PATH = re.compile(r"/[^\x00-\x1f\x7f\"'\\:$]*")
_JOB_XML = re.compile(r"<Job>(.*?)</Job>", re.DOTALL)
_JOB_ID_XML = re.compile(r"<Job_Id>([^<]+)</Job_Id>")
_LISTING_XML = re.compile(r"(?:<\?xml[^>]*\?>)?\s*<Data>(.*)</Data>\s*", re.DOTALL)
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_UNKNOWN_ID = re.compile(r"qstat: Unknown Job Id(?: Error)? (\S+)")


# --- values -> text ---------------------------------------------------------------------------------------------


def render_directives(request: BatchRequest) -> str:
    """The #PBS lines of one batch job, never rerunnable. ValueError for a value that no directive can carry."""
    nodes = ":".join((f"{request.nodes}:ppn={request.slots_per_node}", *request.features))
    rows = [
        ("-N", _word("name", request.name)),
        ("-q", _word("queue", request.queue)),
        ("-l", _word("nodes", f"nodes={nodes}")),
        ("-l", f"walltime={render_walltime(request.walltime_s)}"),
        ("-j", "oe"),
        ("-o", _path("stdout", request.stdout)),
        ("-r", "n"),
    ]
    if request.flags is not None:
        rows.append(("-l", _word("flags", f"flags={request.flags}")))
    if request.account is not None:
        rows.append(("-A", _word("account", request.account)))
    return "".join(f"#PBS {option} {value}\n" for option, value in rows)


def render_walltime(walltime_s: int) -> str:
    """Seconds as HH:MM:SS; hours may have more than two digits."""
    if walltime_s < 1:
        raise ValueError(f"walltime: expected at least 1 s, found {walltime_s}")
    return f"{walltime_s // 3600:02d}:{walltime_s // 60 % 60:02d}:{walltime_s % 60:02d}"


def render_submit(command: str, script: str, name: str) -> tuple[str, ...]:
    """qsub; -r n and -N stand on the command line too, where no directive of the script can undo them."""
    return (command, "-r", "n", "-N", name, script)


def render_list(command: str, batch_id: BatchId | None) -> tuple[str, ...]:
    """qstat for all jobs of the server in one question, or for one id."""
    return (command, "-x") if batch_id is None else (command, "-x", batch_id)


def render_cancel(command: str, batch_id: BatchId) -> tuple[str, ...]:
    """qdel."""
    return (command, batch_id)


def render_holes(command: str) -> tuple[str, ...]:
    """showbf."""
    return (command, "--blocking")


def _word(field: str, value: str) -> str:
    if not _WORD.fullmatch(value):
        raise ValueError(f"{field}: expected letters, digits and ._:+@%=/- only; found {value!r}")
    return value


def _path(field: str, value: str) -> str:
    if not _PATH.fullmatch(value):
        raise ValueError(
            f"{field}: expected an absolute path without quotes, backslash, ':' and '$'; found {value!r}"
        )
    return f'"{value}"' if " " in value else value


# --- text -> values ---------------------------------------------------------------------------------------------


def parse_submit(reply: Reply, server: str) -> BatchId | Failure:
    """The id that qsub printed. Without one nothing is known, unless the exit code is a definite no."""
    if reply.exit_code != 0:
        if reply.stdout.strip():
            return _broken("qsub failed and printed something all the same", reply)
        return _failure("qsub", reply, exits.SUBMIT)
    words = reply.stdout.split()
    if len(words) != 1 or not _BATCH_ID.fullmatch(words[0]):
        return _broken("qsub printed no job id", reply)
    return _foreign(words[0], server) or BatchId(words[0])


def parse_cancel(reply: Reply, batch_id: BatchId) -> CancelResult | Failure:
    """What qdel said of one id."""
    match reply.exit_code:
        case 0:
            return CancelResult.ASKED
        case 153 if "nonexistent job id" in reply.stderr or "Unknown Job Id" in reply.stderr:
            return CancelResult.UNKNOWN_ID
        case 170 if "COMPLETE" in reply.stderr:
            return CancelResult.ALREADY_OVER
        case 170 if "EXITING" in reply.stderr:
            return CancelResult.ASKED
    return _failure("qdel", reply, exits.CANCEL)


def parse_listing(reply: Reply, server: str, asked: BatchId | None) -> Listing | Failure:
    """A listing of all jobs (`asked` None) or the answer to a question for one id.

    A text that is not closed is `Unavailable`: what is missing in it may have been cut off. An id of another
    server is `Broken`. A job whose text cannot be read is listed by its id with state OTHER: it is not absent.
    """
    if asked is not None and (wrong := _foreign(asked, server)):
        return wrong
    if reply.exit_code == 153:
        return _unknown_id(reply, server, asked)
    if reply.exit_code != 0:
        return _failure("qstat", reply, exits.LIST)
    read = _read_xml if reply.stdout.lstrip().startswith("<") else _read_text
    rows = read(reply)
    if isinstance(rows, Unavailable | Broken):
        return rows
    jobs: dict[BatchId, BatchJobSeen] = {}
    for row in rows:
        seen = _job(row)
        if wrong := _foreign(seen.batch_id, server):
            return wrong
        if seen.batch_id in jobs:
            return _broken(f"{seen.batch_id} is listed twice", reply)
        jobs[seen.batch_id] = seen
    if asked is None:
        return Listing(server, tuple(jobs.values()))
    if set(jobs) != {asked}:
        return _broken(f"asked for {asked}, the answer shows {', '.join(jobs) or 'nothing'}", reply)
    return Listing(server, tuple(jobs.values()), asked_ids=(asked,))


def parse_holes(reply: Reply) -> tuple[Hole, ...] | Failure:
    """Backfill windows of showbf: two header lines, then partition, procs, nodes, duration, offset, date."""
    if reply.exit_code != 0:
        return _failure("showbf", reply, exits.HOLES)
    holes = []
    for line in reply.stdout.split("\n")[2:]:
        words = line.split()
        if not words:
            continue
        duration = parse_duration(words[3]) if len(words) > 3 else None
        endless = len(words) > 3 and words[3] == "INFINITY"
        if len(words) < 4 or not words[2].isdecimal() or (duration is None and not endless):
            return _broken("showbf printed a line that is no window", reply)
        holes.append(Hole(int(words[2]), duration))
    return tuple(holes)


def parse_duration(text: str) -> int | None:
    """Seconds of [[[D:]H:]M:]S; None where it is none."""
    parts = text.split(":")
    if len(parts) > 4 or not all(part.isdecimal() for part in parts):
        return None
    sizes = (1, 60, 3600, 86400)
    return sum(int(part) * size for part, size in zip(reversed(parts), sizes, strict=False))


# --- inside a listing ---------------------------------------------------------------------------------------------


def _read_xml(reply: Reply) -> list[dict[str, str]] | Unavailable | Broken:
    whole = _LISTING_XML.fullmatch(reply.stdout)
    if whole is None:
        if reply.stdout.rstrip().endswith("</Data>"):
            return _broken("qstat -x printed something else than a list of jobs", reply)
        return Unavailable(f"the text of qstat -x is not closed after {len(reply.stdout)} characters")
    rows, rest = [], _JOB_XML.sub("", whole[1])
    if rest.strip():
        return Broken("text between the jobs of qstat -x", escape_text(rest.strip()))
    for block in _JOB_XML.findall(whole[1]):
        row = _read_job_xml(block)
        if "Job_Id" not in row:
            return Broken("a job without an id in qstat -x", escape_text(block))
        rows.append(row)
    return rows


def _read_job_xml(block: str) -> dict[str, str]:
    """Attributes of one job, `Resource_List.walltime` and the like flattened; only its id where it is no XML."""
    try:
        # A DTD, the door to entity attacks, cannot stand inside an element: expat refuses it.
        job = ElementTree.fromstring(f"<Job>{_NOT_XML.sub('?', block)}</Job>")  # noqa: S314
    except ElementTree.ParseError:
        found = _JOB_ID_XML.search(block)
        return {"Job_Id": found[1]} if found else {}
    return {name: text for child in job for name, text in _flatten(child)}


def _flatten(element: ElementTree.Element) -> Iterator[tuple[str, str]]:
    if len(element) == 0:
        yield element.tag, element.text or ""
    for child in element:
        yield f"{element.tag}.{child.tag}", child.text or ""


def _read_text(reply: Reply) -> list[dict[str, str]] | Unavailable | Broken:
    """Jobs of `qstat -f` and `qstat -f -1`. Nothing at all may be an empty server or a lost answer: unknown."""
    text = reply.stdout
    if not text:
        return Unavailable("qstat printed nothing; an empty listing has its closing mark")
    if not text.startswith("Job Id: "):
        return _broken("qstat -f printed something else than a list of jobs", reply)
    if not text.endswith("\n\n"):
        return Unavailable(f"the text of qstat -f is not closed after {len(text)} characters")
    rows: list[dict[str, str]] = []
    key = ""
    for line in text.split("\n"):
        if line.startswith("Job Id: "):
            rows.append({"Job_Id": line.removeprefix("Job Id: ").strip()})
        elif line.startswith("    ") and " = " in line:
            key, _, value = line.strip().partition(" = ")
            rows[-1].setdefault(key, value)
        elif line.startswith("\t") and key:
            rows[-1][key] += line.strip()
    return rows


def _job(row: Mapping[str, str]) -> BatchJobSeen:
    letter = row.get("job_state", "").strip()
    state = STATES[letter][0] if letter in STATES else BatchState.OTHER
    exit_status = _integer(row.get("exit_status")) if state is BatchState.OVER else None
    asked = parse_duration(row.get("Resource_List.walltime", ""))
    used = parse_duration(row.get("resources_used.walltime", ""))
    return BatchJobSeen(
        batch_id=BatchId(row["Job_Id"].strip()),
        name=escape_text(row.get("Job_Name", "")),
        state=state,
        queue=escape_text(row.get("queue", "")),
        owner=escape_text(row.get("Job_Owner", "").partition("@")[0]),
        # A requeued job waits with the exit status of its last start: it says nothing about an end.
        exit_status=exit_status,
        walltime_s=asked,
        used_walltime_s=used,
        start_count=_integer(row.get("start_count")),
        exec_hosts=parse_exec_host(row.get("exec_host", "")),
        comment=escape_text(row.get("comment", "")),
        over_walltime=state is BatchState.OVER and is_over_walltime(exit_status, asked, used, OVER_WALLTIME),
    )


def is_over_walltime(exit_status: int | None, asked_s: int | None, used_s: int | None, code: int) -> bool:
    """Whether an ended job ended by its walltime. Some sites and versions have no status of its own for it, so the
    time used decides as well; total_runtime never does (garbage after a server's restart)."""
    all_used = asked_s is not None and used_s is not None and asked_s > 0 and used_s >= asked_s
    return exit_status == code or all_used


def parse_exec_host(text: str) -> tuple[str, ...]:
    """Node names in the order given, each once.

    Three forms: `nid00016/0-31+nid00015/0-31` (6.x), `nid00016/31+nid00016/30` (4, 5), `101/0-31` (Cray mode).
    """
    return tuple(dict.fromkeys(part.partition("/")[0] for part in text.split("+") if part))


def _integer(text: str | None) -> int | None:
    return int(text) if text is not None and re.fullmatch(r"-?\d{1,9}", text) else None


# --- failures -------------------------------------------------------------------------------------------------------


def _unknown_id(reply: Reply, server: str, asked: BatchId | None) -> Listing | Failure:
    """Exit 153: a definite unknown id, where it was asked for singly and is named."""
    found = _UNKNOWN_ID.search(reply.stderr)
    if asked is None:
        return Unavailable("qstat does not know an id that nobody asked for: its answer is partial")
    if found is None or found[1] != asked or reply.stdout.strip():
        return _broken(f"qstat exited 153 and did not name {asked}", reply)
    return Listing(server, (), asked_ids=(asked,), unknown_ids=(asked,))


def _foreign(batch_id: str, server: str) -> Broken | None:
    if _BATCH_ID.fullmatch(batch_id) and batch_id.partition(".")[2] == server:
        return None
    return Broken(f"expected ids of the server {server!r}", escape_text(batch_id))


def _failure(command: str, reply: Reply, table: Exits) -> Failure:
    code, said = reply.exit_code, escape_text(" ".join(reply.stderr.split()))
    if code < 0:
        return Unavailable(f"{command} was ended by signal {-code}")
    verdict, reason = (
        table.get(code) or exits.ANY.get(code) or (Verdict.BROKEN, "an exit code of no known meaning")
    )
    text = f"{command} exited {code}: {reason}; it said: {said or 'nothing'}"
    match verdict:
        case Verdict.UNAVAILABLE:
            return Unavailable(text)
        case Verdict.REFUSED:
            return Refused(str(code), text)
        case Verdict.BROKEN:
            return Broken(text, escape_text(reply.stdout))


def _broken(reason: str, reply: Reply) -> Broken:
    return Broken(f"{reason} (exit {reply.exit_code})", escape_text(reply.stdout or reply.stderr))
