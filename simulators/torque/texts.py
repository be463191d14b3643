"""What qstat and pbsnodes print, to the character, as Torque 6.1.3 does. Pure; the machine's clock shows UTC."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from xml.sax.saxutils import escape

from simulators.torque.job import BatchJob, JobArray, Letter, Stop
from simulators.torque.resources import render_walltime
from simulators.torque.schedule import Placement
from simulators.torque.site import TorqueSite

# Columns of a line of qstat -f (a tab counts 8 or 9, a comma nothing: as the original counts).
_LINE_MAX = 77
_HEAD = (
    "Job ID                    Name             User            Time Use S Queue\n"
    "------------------------- ---------------- --------------- -------- - -----\n"
)

# An attribute: name, value as text, value in XML (None: the same text).
Row = tuple[str, str, str | None]


def render_table(lines: Sequence[str]) -> str:
    """Plain qstat; nothing at all for no jobs."""
    return _HEAD + "".join(lines) if lines else ""


def render_lines(jobs: Iterable[BatchJob], now: float, site: TorqueSite) -> list[str]:
    """Lines of plain qstat. Time Use is CPU time: 0 before the first poll."""
    lines = []
    for job in jobs:
        used = "00:00:00" if _polled(job, now, site) else "0"
        name = job.name if len(job.name) <= 16 else f"...{job.name[-13:]}"
        owner, queue = job.submission.owner[:15], job.queue[:15]
        lines.append(f"{job.batch_id:<26} {name:<16} {owner:<15} {used:>8} {job.state} {queue:<15}\n")
    return lines


def render_full(jobs: Iterable[BatchJob], now: float, site: TorqueSite, one_line: bool) -> str:
    """qstat -f of batch jobs, with -1 one line an attribute."""
    return "".join(render_block("Job Id", job.batch_id, job_rows(job, now, site), one_line) for job in jobs)


def render_block(title: str, name: str, rows: Iterable[Row], one_line: bool) -> str:
    """A block of qstat -f: of a job, a queue or the server."""
    lines = [f"    {key} = {text if one_line else _fold(key, text)}\n" for key, text, _ in rows]
    return f"{title}: {name}\n{''.join(lines)}\n"


def render_xml(jobs: Iterable[BatchJob], now: float, site: TorqueSite) -> str:
    """qstat -x of batch jobs."""
    return render_data((job.batch_id, job_rows(job, now, site)) for job in jobs)


def render_data(blocks: Iterable[tuple[str, Iterable[Row]]]) -> str:
    """qstat -x of (id, rows): one line, times as epoch seconds."""
    body = "".join(f"<Job><Job_Id>{batch_id}</Job_Id>{_xml(rows)}</Job>" for batch_id, rows in blocks)
    return f'<?xml version="1.0"?>\n<Data>{body}</Data>\n'


def render_exec_host(placement: Placement, site: TorqueSite) -> str:
    """`nid00016/0-31+...`, in Cray mode `16/0-31+...`."""
    names = zip(hosts(placement, site), placement, strict=True)
    return "+".join(f"{name}/{render_ranges(share.slots)}" for name, share in names)


def hosts(placement: Placement, site: TorqueSite) -> tuple[str, ...]:
    """Names of the nodes of a job, as exec_host spells them."""
    return tuple(str(share.node) if site.cray else site.node_name(share.node) for share in placement)


def used_walltime_s(job: BatchJob, now: float, site: TorqueSite) -> int | None:
    """Seconds that a job has used as far as the server knows; None before the first poll."""
    if job.started_at is None or not _polled(job, now, site):
        return None
    return int((job.script_ended_at if job.script_ended_at is not None else now) - job.started_at)


def job_rows(job: BatchJob, now: float, site: TorqueSite) -> Iterator[Row]:
    """Attributes of a batch job in Torque's order. A dot in a name makes an inner element in XML."""
    made = job.submission
    out, err = output_paths(job)
    yield "Job_Name", job.name, None
    yield "Job_Owner", f"{made.owner}@localhost", None
    yield from _used(job, now, site)
    yield "job_state", job.state, None
    yield "queue", job.queue, None
    yield "server", site.server_name, None
    if made.account is not None:
        yield "Account_Name", made.account, None
    yield "Checkpoint", "u", None
    yield _time("ctime", job.created_at)
    if made.depend:
        yield "depend", made.depend, None
    yield "Error_Path", f"{made.host}:{err}", None
    if job.placement:
        yield "exec_host", render_exec_host(job.placement, site), None
    if made.start_after is not None:
        yield _time("Execution_Time", made.start_after)
    if job.index is None:
        yield "Hold_Types", job.holds or "n", None
    yield "Join_Path", made.join, None
    yield "Keep_Files", "n", None
    yield "Mail_Points", made.mail_points, None
    yield _time("mtime", job.changed_at)
    yield "Output_Path", f"{made.host}:{out}", None
    yield "Priority", str(made.priority), None
    yield _time("qtime", job.created_at)
    yield "Rerunable", str(made.rerunable), None
    for name, value in job.resources:
        yield f"Resource_List.{name}", value, None
    if job.start_count:
        yield "session_id", str(job.session_id), None
    if made.shell:
        yield "Shell_Path_List", made.shell, None
    partition = (("BATCH_PARTITION_ID", str(job.reservation)),) if _reservation_known(job, now, site) else ()
    listed = ",".join(f"{k}={v}" for k, v in (*partition, *variables(job, site)))
    if listed:
        yield "Variable_List", listed, None
    yield "euser", made.owner, None
    yield "egroup", made.owner, None
    yield "queue_type", "E", None
    if job.hint:
        yield "sched_hint", job.hint, None
    if job.comment:
        yield "comment", job.comment, None
    yield from _end_rows(job, now, site)


def variables(job: BatchJob, site: TorqueSite) -> Iterator[tuple[str, str]]:
    """The variables that a batch job carries, in Torque's order."""
    if job.index is not None:
        yield "PBS_ARRAYID", str(job.index)
    yield "PBS_O_QUEUE", job.queue
    yield from job.submission.user_variables
    yield from job.submission.variables
    yield "PBS_O_WORKDIR", job.submission.work_dir
    yield "PBS_O_HOST", job.submission.host
    yield "PBS_O_SERVER", site.server_name


def _end_rows(job: BatchJob, now: float, site: TorqueSite) -> Iterator[Row]:
    if job.state is not Letter.HELD:
        yield _time("etime", job.created_at)
    if job.exit_status is not None:
        yield "exit_status", str(job.exit_status), None
    if job.submission.submit_args:
        yield "submit_args", job.submission.submit_args, None
    if job.index is not None:
        yield "job_array_id", str(job.index), None
    if job.last_start_at is not None:
        yield _time("start_time", job.last_start_at)
    if job.state is Letter.RUNNING:
        yield "Walltime.Remaining", str(max(0, int(job.start + job.walltime_s - now))), None
    if job.start_count:
        yield "start_count", str(job.start_count), None
    yield "fault_tolerant", "False", None
    if job.completed_at is not None and job.started_at is not None:
        yield _time("comp_time", job.completed_at)
    yield "job_radix", "0", None
    if job.completed_at is not None and job.started_at is not None:
        # A restarted server has forgotten the start: it counts from the epoch (captured).
        started_at = 0.0 if job.restarted else job.started_at
        yield "total_runtime", f"{job.completed_at - started_at:.6f}", None
    yield "submit_host", job.submission.host, None
    yield "init_work_dir", job.submission.work_dir, None
    if _reservation_known(job, now, site):
        yield "reservation_id", str(job.reservation), None
    if site.cray and job.start_count:
        login = 1 + job.reservation % site.login_nodes
        yield "login_node_id", f"login{login}", None
        yield "nppcu", "1", None
        yield "login_node_key", str(login), None
    yield "request_version", "1", None


def _used(job: BatchJob, now: float, site: TorqueSite) -> Iterator[Row]:
    used_s = used_walltime_s(job, now, site)
    if used_s is not None:
        used = {
            "cput": "00:00:00",
            "vmem": "0kb",
            "walltime": render_walltime(used_s),
            "mem": "0kb",
            "energy_used": "0",
        }
        for name in sorted(used) if _status_seen(job, now, site) else used:
            yield f"resources_used.{name}", used[name], None


def _status_seen(job: BatchJob, now: float, site: TorqueSite) -> bool:
    """The MOM has sent a status of the job before its end: resources are then sorted by name (captured)."""
    if job.started_at is None:
        return False
    until = now if job.completed_at is None else job.completed_at
    return job.restarted or job.stop is Stop.WALLTIME or until - job.started_at >= site.job_stat_s


def _reservation_known(job: BatchJob, now: float, site: TorqueSite) -> bool:
    """In Cray mode the server hears of the ALPS reservation with the first status."""
    return site.cray and bool(job.start_count) and _status_seen(job, now, site)


def output_paths(job: BatchJob) -> tuple[str, str]:
    """Paths of stdout and stderr; of joined ones the second is the first where the user gave that."""
    made = job.submission
    base = made.work_dir.rstrip("/")
    out = made.stdout or f"{base}/{job.default_output('o')}"
    joined = made.stdout if made.join == "oe" else None
    return out, made.stderr or joined or f"{base}/{job.default_output('e')}"


def array_rows(array: JobArray, elements: Sequence[BatchJob], site: TorqueSite) -> Iterator[Row]:
    """Attributes of an array as a whole."""
    made = array.submission
    base = f"{made.host}:{made.work_dir.rstrip('/')}/{made.name}"
    listed = ("PBS_O_QUEUE", array.queue), *made.user_variables, *made.variables
    tail = ("PBS_O_WORKDIR", made.work_dir), ("PBS_O_HOST", made.host), ("PBS_O_SERVER", site.server_name)
    yield "Job_Name", made.name, None
    yield "Job_Owner", f"{made.owner}@localhost", None
    yield "job_state", array_state(elements), None
    yield "queue", array.queue, None
    yield "server", site.server_name, None
    yield "Checkpoint", "u", None
    yield _time("ctime", array.created_at)
    yield "Error_Path", f"{base}.e{array.sequence}", None
    yield "Hold_Types", "n", None
    yield "Join_Path", made.join, None
    yield "Keep_Files", "n", None
    yield "Mail_Points", made.mail_points, None
    yield _time("mtime", max(job.changed_at for job in elements))
    yield "Output_Path", f"{base}.o{array.sequence}", None
    yield "Priority", str(made.priority), None
    yield "Rerunable", str(made.rerunable), None
    for name, value in array.resources:
        yield f"Resource_List.{name}", value, None
    yield "Variable_List", ",".join(f"{k}={v}" for k, v in (*listed, *tail)), None
    yield "euser", made.owner, None
    yield "egroup", made.owner, None
    yield "queue_type", "E", None
    yield _time("etime", array.created_at)
    yield "submit_args", made.submit_args, None
    yield "job_array_request", made.array or "", None
    yield "fault_tolerant", "False", None
    yield "job_radix", "0", None
    yield "submit_host", made.host, None
    yield "init_work_dir", made.work_dir, None
    yield "request_version", "1", None


def array_state(elements: Sequence[BatchJob]) -> Letter:
    """C when all have ended, R when one was started, else that of the first."""
    if all(job.state is Letter.COMPLETE for job in elements):
        return Letter.COMPLETE
    if any(job.start_count for job in elements):
        return Letter.RUNNING
    return elements[0].state


def render_array_line(array: JobArray, elements: Sequence[BatchJob]) -> str:
    """An array as a line of plain qstat."""
    made = array.submission
    state = array_state(elements)
    return f"{array.batch_id:<26} {made.name[:16]:<16} {made.owner[:15]:<15} {'0':>8} {state} {array.queue:<15}\n"


def _polled(job: BatchJob, now: float, site: TorqueSite) -> bool:
    """The server has heard of resources used: after the first poll, or at the end."""
    if job.started_at is None:
        return False
    return job.script_ended_at is not None or now - job.started_at >= site.job_stat_s


def _time(name: str, at: float) -> Row:
    return name, f"{datetime.fromtimestamp(int(at), UTC):%a %b %e %H:%M:%S %Y}", str(int(at))


def render_ranges(slots: tuple[int, ...]) -> str:
    """`0-31`, `3`, `0-1,5`."""
    parts: list[list[int]] = []
    for slot in slots:
        if parts and slot == parts[-1][1] + 1:
            parts[-1][1] = slot
        else:
            parts.append([slot, slot])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in parts)


def _fold(name: str, text: str) -> str:
    """Break a value as qstat -f does: before a part between commas that does not fit, and inside longer ones."""
    done: list[str] = []
    column = len(name) + 7
    for index, part in enumerate(text.split(",")):
        if index:
            done.append(",")
        if column + len(part) < _LINE_MAX:
            done.append(part)
            column += len(part)
            continue
        if index:
            done.append("\n\t")
            column = 9
        for character in part:
            done.append(character)
            column += 1
            if column > _LINE_MAX:
                done.append("\n\t")
                column = 8
    return "".join(done)


def _xml(rows: Iterable[Row]) -> str:
    done: list[str] = []
    group = ""
    for name, text, xml_text in rows:
        outer, dot, inner = name.partition(".")
        if group and (not dot or outer != group):
            done.append(f"</{group}>")
            group = ""
        if dot and not group:
            done.append(f"<{outer}>")
            group = outer
        tag = inner if dot else name
        done.append(f"<{tag}>{escape(text if xml_text is None else xml_text)}</{tag}>")
    return "".join(done) + (f"</{group}>" if group else "")
