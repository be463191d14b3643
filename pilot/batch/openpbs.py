"""OpenPBS and PBS Professional: a dialect from documents. *Untried*: no server of this kind was ever asked.

Sources: qsub(1B), qstat(1B), qdel(1B) of OpenPBS 20-23, and answers of real servers quoted in public issue threads.
The listing is asked for as JSON (`-F json`), which names its server and is closed; with history (`-x`), so that a job
that has ended is shown as F and not missing. docs/facts/torque.md tells what differs from Torque.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from pilot.batch import exits
from pilot.batch.dialect import Reply, escape_text
from pilot.batch.exits import Verdict
from pilot.batch.torque import is_over_walltime, parse_duration, parse_exec_host, render_walltime
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
    "T": (BatchState.WAITING, "in transit to another queue"),
    "Q": (BatchState.WAITING, "queued"),
    "W": (BatchState.WAITING, "waits for its earliest start"),
    "H": (BatchState.HELD, "held"),
    "R": (BatchState.RUNNING, "running"),
    "B": (BatchState.RUNNING, "array has begun"),
    "E": (BatchState.EXITING, "its script has ended"),
    "S": (BatchState.SUSPENDED, "suspended by the server"),
    "U": (BatchState.SUSPENDED, "suspended: its workstation is busy"),
    "F": (BatchState.OVER, "finished; kept for job_history_duration"),
    "X": (BatchState.OVER, "a finished element of an array"),
}
# "M", moved to another server, is in no table: this server does not know how the job goes on (OTHER).

# JOB_EXEC_KILL_WALLTIME
OVER_WALLTIME = -29
HISTORY = 35
_BATCH_ID = re.compile(r"\d+(\[\d*\])?\.[\w.-]+")
_WORD = re.compile(r"[A-Za-z0-9._+@%=/-]+")
_PATH = re.compile(r"/[^\x00-\x1f\x7f\"'\\:$, ]*")


def render_directives(request: BatchRequest) -> str:
    """The #PBS lines of one batch job, never rerunnable: chunks by select, each on a host of its own."""
    if request.flags is not None:
        raise ValueError(f"flags: expected none, they are Moab's; found {request.flags!r}")
    slots = request.slots_per_node
    chunk = [f"{request.nodes}:ncpus={slots}:mpiprocs={slots}"]
    chunk += [f"{_word('features', feature)}=true" for feature in request.features]
    rows = [
        ("-N", _word("name", request.name)),
        ("-q", _word("queue", request.queue)),
        ("-l", f"select={':'.join(chunk)}"),
        ("-l", "place=scatter:excl"),
        ("-l", f"walltime={render_walltime(request.walltime_s)}"),
        ("-j", "oe"),
        ("-o", _path("stdout", request.stdout)),
        ("-r", "n"),
    ]
    if request.account is not None:
        rows.append(("-A", _word("account", request.account)))
    return "".join(f"#PBS {option} {value}\n" for option, value in rows)


def render_submit(command: str, script: str, name: str) -> tuple[str, ...]:
    """qsub; -r n and -N stand on the command line too, where no directive of the script can undo them."""
    return (command, "-r", "n", "-N", _word("name", name), script)


def render_list(command: str, batch_id: BatchId | None) -> tuple[str, ...]:
    """qstat as JSON, ended jobs included, for all jobs or for one id."""
    words = (command, "-x", "-f", "-F", "json")
    return words if batch_id is None else (*words, batch_id)


def render_cancel(command: str, batch_id: BatchId) -> tuple[str, ...]:
    """qdel."""
    return (command, batch_id)


def render_holes(command: str) -> tuple[str, ...]:
    """No command of OpenPBS shows backfill windows."""
    return (command,)


def parse_holes(reply: Reply) -> tuple[Hole, ...] | Failure:
    """Unavailable: there are none."""
    return Unavailable("OpenPBS shows no backfill windows")


def _word(field: str, value: str) -> str:
    if not _WORD.fullmatch(value):
        raise ValueError(f"{field}: expected letters, digits and ._+@%=/- only; found {value!r}")
    return value


def _path(field: str, value: str) -> str:
    if not _PATH.fullmatch(value):
        raise ValueError(
            f"{field}: expected an absolute path without quotes, blanks, ':', ',', '$'; found {value!r}"
        )
    return value


def parse_submit(reply: Reply, server: str) -> BatchId | Failure:
    """The id that qsub printed. No code is known to be a definite no: the round is looked for by its name."""
    if reply.exit_code != 0:
        if reply.stdout.strip():
            return _broken("qsub failed and printed something all the same", reply)
        return _failure("qsub", reply)
    words = reply.stdout.split()
    if len(words) != 1 or not _BATCH_ID.fullmatch(words[0]):
        return _broken("qsub printed no job id", reply)
    return _foreign(words[0], server) or BatchId(words[0])


def parse_cancel(reply: Reply, batch_id: BatchId) -> CancelResult | Failure:
    """What qdel said of one id."""
    if reply.exit_code == 0:
        return CancelResult.ASKED
    if "Job has finished" in reply.stderr:
        return CancelResult.ALREADY_OVER
    if "Unknown Job Id" in reply.stderr and batch_id in reply.stderr:
        return CancelResult.UNKNOWN_ID
    if "Unauthorized Request" in reply.stderr:
        return Refused(str(reply.exit_code), escape_text(" ".join(reply.stderr.split())))
    return _failure("qdel", reply)


def parse_listing(reply: Reply, server: str, asked: BatchId | None) -> Listing | Failure:
    """One JSON document: `pbs_server`, and `Jobs` by id (missing where there are none).

    Exit 153 with `Unknown Job Id` and the id, asked singly, is a definite unknown id.
    """
    if asked is not None and (wrong := _foreign(asked, server)):
        return wrong
    if reply.exit_code != 0:
        if asked is not None and f"Unknown Job Id {asked}" in " ".join(reply.stderr.split()):
            return Listing(server, (), (asked,), (asked,))
        if reply.exit_code == HISTORY:
            return _broken("qstat -x does not show a finished job", reply)
        return _failure("qstat", reply)
    try:
        document = json.loads(reply.stdout)
    except (ValueError, RecursionError):
        cut = not reply.stdout.rstrip().endswith("}")
        return (
            Unavailable("the JSON of qstat is not closed") if cut else _broken("qstat printed no JSON", reply)
        )
    rows = document.get("Jobs", {}) if isinstance(document, dict) else None
    if not isinstance(rows, dict) or not isinstance(document.get("pbs_server"), str):
        return _broken("the JSON of qstat is no list of jobs", reply)
    if document["pbs_server"].partition(".")[0] != server.partition(".")[0]:
        return Broken(f"expected a listing of the server {server!r}", escape_text(document["pbs_server"]))
    for batch_id in rows:
        if wrong := _foreign(batch_id, server):
            return wrong
    jobs = tuple(_job(BatchId(name), row if isinstance(row, dict) else {}) for name, row in rows.items())
    if asked is None:
        return Listing(server, jobs)
    if set(rows) != {asked}:
        return _broken(f"asked for {asked}, the answer shows {', '.join(rows) or 'nothing'}", reply)
    return Listing(server, jobs, (asked,))


def _job(batch_id: BatchId, row: Mapping[str, Any]) -> BatchJobSeen:
    letter = row.get("job_state")
    state = STATES[letter][0] if isinstance(letter, str) and letter in STATES else BatchState.OTHER
    exit_status = _integer(row.get("Exit_status")) if state is BatchState.OVER else None
    asked = parse_duration(_text(_within(row, "Resource_List").get("walltime")))
    used = parse_duration(_text(_within(row, "resources_used").get("walltime")))
    return BatchJobSeen(
        batch_id=batch_id,
        name=escape_text(_text(row.get("Job_Name"))),
        state=state,
        queue=escape_text(_text(row.get("queue"))),
        owner=escape_text(_text(row.get("Job_Owner")).partition("@")[0]),
        exit_status=exit_status,
        walltime_s=asked,
        used_walltime_s=used,
        start_count=_integer(row.get("run_count")),
        exec_hosts=parse_exec_host(_text(row.get("exec_host"))),
        comment=escape_text(_text(row.get("comment"))),
        over_walltime=state is BatchState.OVER and is_over_walltime(exit_status, asked, used, OVER_WALLTIME),
    )


def _within(row: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = row.get(name)
    return found if isinstance(found, dict) else {}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _integer(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _foreign(batch_id: str, server: str) -> Broken | None:
    if _BATCH_ID.fullmatch(batch_id) and batch_id.partition(".")[2] == server:
        return None
    return Broken(f"expected ids of the server {server!r}", escape_text(batch_id))


def _failure(command: str, reply: Reply) -> Failure:
    """Codes are numbers of errors modulo 256 as in Torque; only those for every command are taken over."""
    code, said = reply.exit_code, escape_text(" ".join(reply.stderr.split()))
    if code < 0:
        return Unavailable(f"{command} was ended by signal {-code}")
    verdict, reason = exits.ANY.get(code, (Verdict.BROKEN, "an exit code of no known meaning"))
    text = f"{command} exited {code}: {reason}; it said: {said or 'nothing'}"
    return Unavailable(text) if verdict is Verdict.UNAVAILABLE else Broken(text, escape_text(reply.stdout))


def _broken(reason: str, reply: Reply) -> Broken:
    return Broken(f"{reason} (exit {reply.exit_code})", escape_text(reply.stdout or reply.stderr))
