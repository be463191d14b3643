"""Slurm behind its Torque wrappers (qsub, qstat, qdel of slurm-wlm-torque): a dialect of its own. Pure.

Sources: Slurm 22.05 of Debian 12 as captured in tests/data/torque-fixtures/slurm-wrappers, and the wrappers' own text;
docs/facts/torque.md. The script carries #SBATCH lines, which the wrapper's sbatch reads: the wrapper itself reads no
directives, lets a second -l override the first, and takes a node feature for a host name. Its ids are bare numbers and
nothing in its texts names the server, so `batch.server` is only the name that this pilot gives it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from pilot.batch.dialect import Reply, escape_text
from pilot.batch.torque import STATES, parse_duration, parse_exec_host, render_walltime
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

UNKNOWN_ID, USAGE = 153, 2
ERROR_HEAD = "There was an error running the Slurm sbatch command."

# What sbatch says when it gets a definite no (slurm_errno texts; the first five captured).
REFUSALS = (
    "Invalid node name specified",
    "Invalid partition name specified",
    "Requested time limit is invalid",
    "More processors requested than permitted",
    "Requested node configuration is not available",
    "Unable to open file",
    "Invalid account or account/partition combination specified",
    "Job violates accounting/QOS policy",
    "Access/permission denied",
    "Invalid feature specification",
    "Node count specification invalid",
    "Requested partition configuration not available now",
    "Batch script contains DOS line breaks",
    "Batch script is empty",
    "This does not look like a batch script",
    "Invalid user id",
)
# The controller did not answer, or its answer was lost: whether a job exists is open.
NO_ANSWER = (
    "Unable to contact slurm controller",
    "Socket timed out",
    "Connection refused",
    "Connection timed out",
    "Communication connection failure",
    "Zero Bytes were transmitted or received",
    "Transport endpoint is not connected",
    "Slurm backup controller in standby mode",
    "Unable to resolve",
    "Munge",
    "Protocol authentication error",
    "slurm_load",
    "Problem loading",
    "Resource temporarily unavailable",
)

# The wrapper hands these words to a shell, unquoted.
_WORD = re.compile(r"[A-Za-z0-9._:+@=/-]+")
_ID = re.compile(r"[0-9]{1,10}")
_SCRIPT = re.compile(r"(/[A-Za-z0-9._+@=/-]*)/script\.(\d{1,6})\.sh")


def render_directives(request: BatchRequest) -> str:
    """#SBATCH lines of one batch job, never requeued. ValueError for a value that no directive can carry."""
    if request.flags is not None:
        raise ValueError(f"flags: expected none, they are Moab's; found {request.flags!r}")
    rows = [
        ("job-name", _word("name", request.name)),
        ("partition", _word("queue", request.queue)),
        ("nodes", str(request.nodes)),
        ("ntasks-per-node", str(request.slots_per_node)),
        ("time", render_walltime(request.walltime_s)),
        ("output", _word("stdout", request.stdout)),
    ]
    if request.account is not None:
        rows.append(("account", _word("account", request.account)))
    if request.features:
        rows.append(("constraint", "&".join(_word("features", feature) for feature in request.features)))
    return "".join(f"#SBATCH --{name}={value}\n" for name, value in rows) + "#SBATCH --no-requeue\n"


def render_submit(command: str, script: str, name: str) -> tuple[str, ...]:
    """qsub. The wrapper always says where outputs go, so that the script's line does not count: said here again."""
    found = _SCRIPT.fullmatch(script)
    if found is None:
        raise ValueError(f"script: expected a path of plain characters to script.N.sh; found {script!r}")
    output = f"{found[1]}/batch.{found[2]}.out"
    return (command, "-r", "n", "-N", _word("name", name), "-j", "oe", "-o", output, script)


def render_list(command: str, batch_id: BatchId | None) -> tuple[str, ...]:
    """qstat -f for all jobs, or for one id; there is no XML."""
    return (command, "-f") if batch_id is None else (command, "-f", batch_id)


def render_cancel(command: str, batch_id: BatchId) -> tuple[str, ...]:
    """qdel."""
    return (command, batch_id)


def render_holes(command: str) -> tuple[str, ...]:
    """No command of the wrappers shows backfill windows."""
    return (command,)


def parse_holes(reply: Reply) -> tuple[Hole, ...] | Failure:
    """Unavailable: the wrappers have none."""
    return Unavailable("Slurm's wrappers show no backfill windows")


def _word(field: str, value: str) -> str:
    if not _WORD.fullmatch(value):
        raise ValueError(f"{field}: expected letters, digits and ._:+@=/- only; found {value!r}")
    return value


def parse_submit(reply: Reply, server: str) -> BatchId | Failure:
    """The number that qsub printed. Errors stand on stdout, with the command that was given to a shell."""
    text = reply.stdout
    if reply.exit_code == 0:
        words = text.split()
        if len(words) != 1 or not _ID.fullmatch(words[0]):
            return _broken("qsub printed no job id", reply)
        return BatchId(words[0])
    if reply.exit_code < 0:
        return Unavailable(f"qsub was ended by signal {-reply.exit_code}")
    said = escape_text(" ".join(_sbatch_said(text).split()) or " ".join(reply.stderr.split()))
    if reply.exit_code == USAGE and "Usage:" in reply.stderr + text:
        return Refused("2", f"qsub does not take these options: {said}")
    if any(words in text or words in reply.stderr for words in NO_ANSWER):
        return Unavailable(f"qsub exited {reply.exit_code}: {said}")
    if text.startswith(ERROR_HEAD) and any(words in _sbatch_said(text) for words in REFUSALS):
        return Refused(str(reply.exit_code), said)
    return _broken("qsub failed in a way that is not known", reply)


def _sbatch_said(text: str) -> str:
    """What sbatch printed, without the command line (a path in it is no answer)."""
    return text.partition("and the output was:\n")[2]


def parse_cancel(reply: Reply, batch_id: BatchId) -> CancelResult | Failure:
    """qdel says nothing: exit 1 without a text is an unknown id or a job that is over, and cannot be told apart."""
    said = " ".join((reply.stdout + " " + reply.stderr).split())
    if reply.exit_code == 0 and not said:
        return CancelResult.ASKED
    if reply.exit_code == 1 and not said:
        return CancelResult.UNKNOWN_ID
    if reply.exit_code < 0 or any(words in said for words in NO_ANSWER):
        return Unavailable(f"qdel exited {reply.exit_code}: {escape_text(said) or 'nothing'}")
    if "permission denied" in said or "Access/permission denied" in said:
        return Refused(str(reply.exit_code), escape_text(said))
    return _broken("qdel failed in a way that is not known", reply)


def parse_listing(reply: Reply, server: str, asked: BatchId | None) -> Listing | Failure:
    """`qstat -f`: blocks of `Job Id:`, closed by an empty line. Exit 153 without any text: it looked, and found none.

    153 for a single id is a definite unknown id; a controller that does not answer shows as an error text.
    """
    if reply.exit_code == UNKNOWN_ID and not reply.stdout and not reply.stderr:
        return Listing(server, ()) if asked is None else Listing(server, (), (asked,), (asked,))
    if reply.exit_code != 0:
        said = escape_text(" ".join((reply.stderr or reply.stdout).split()))
        text = f"qstat exited {reply.exit_code}: {said or 'nothing'}"
        no_answer = reply.exit_code < 0 or any(words in said for words in NO_ANSWER)
        return Unavailable(text) if no_answer else Broken(text, escape_text(reply.stdout))
    if not reply.stdout.startswith("Job Id:\t"):
        return _broken("qstat -f printed something else than a list of jobs", reply)
    if not reply.stdout.endswith("\n\n"):
        return Unavailable(f"the text of qstat -f is not closed after {len(reply.stdout)} characters")
    jobs: dict[BatchId, BatchJobSeen] = {}
    for block in reply.stdout.removesuffix("\n\n").split("\n\n"):
        seen = _job(_fields(block))
        if seen is None:
            return _broken("a job without an id in qstat -f", reply)
        if seen.batch_id in jobs:
            return _broken(f"{seen.batch_id} is listed twice", reply)
        jobs[seen.batch_id] = seen
    if asked is None:
        return Listing(server, tuple(jobs.values()))
    if set(jobs) != {asked}:
        return _broken(f"asked for {asked}, the answer shows {', '.join(jobs)}", reply)
    return Listing(server, tuple(jobs.values()), (asked,))


def _fields(block: str) -> dict[str, str]:
    fields: dict[str, str] = {}
    for line in block.split("\n"):
        if line.startswith("Job Id:\t"):
            fields.setdefault("id", line.partition("\t")[2].strip())
        elif line.startswith("\t") and " = " in line:
            name, _, value = line.strip().partition(" = ")
            fields.setdefault(name, value)
    return fields


def _job(row: Mapping[str, str]) -> BatchJobSeen | None:
    """The wrapper shows no exit status, no used walltime and no start count."""
    batch_id = row.get("id", "")
    if not _ID.fullmatch(batch_id):
        return None
    letter = row.get("job_state", "")
    return BatchJobSeen(
        batch_id=BatchId(batch_id),
        name=escape_text(row.get("Job_Name", "")),
        state=STATES[letter][0] if letter in STATES else BatchState.OTHER,
        queue=escape_text(row.get("queue", "")),
        owner=escape_text(row.get("Job_Owner", "").partition("@")[0]),
        walltime_s=parse_duration(row.get("Resource_List.walltime", "")),
        exec_hosts=parse_exec_host(row.get("exec_host", "")),
    )


def _broken(reason: str, reply: Reply) -> Broken:
    return Broken(f"{reason} (exit {reply.exit_code})", escape_text(reply.stdout or reply.stderr))
