"""What qstat and pbsnodes print, to the character, as Torque 6.1.3 does. Pure; the machine's clock shows UTC."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from xml.sax.saxutils import escape

from simulators.torque.job import BatchJob, Letter, Node
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


def render_table(jobs: Iterable[BatchJob], now: float, site: TorqueSite) -> str:
    """Plain qstat; nothing at all for no jobs. Time Use is CPU time: 0 before the first poll."""
    lines = []
    for job in jobs:
        used = "00:00:00" if _polled(job, now, site) else "0"
        name = job.submission.name if len(job.submission.name) <= 16 else f"...{job.submission.name[-13:]}"
        owner, queue = job.submission.owner[:15], job.queue[:15]
        lines.append(f"{job.batch_id:<26} {name:<16} {owner:<15} {used:>8} {job.state} {queue:<15}\n")
    return _HEAD + "".join(lines) if lines else ""


def render_full(jobs: Iterable[BatchJob], now: float, site: TorqueSite, one_line: bool) -> str:
    """qstat -f, with -1 one line an attribute."""
    blocks = []
    for job in jobs:
        lines = [f"Job Id: {job.batch_id}\n"]
        for name, text, _ in job_rows(job, now, site):
            lines.append(f"    {name} = {text if one_line else _fold(name, text)}\n")
        blocks.append("".join(lines) + "\n")
    return "".join(blocks)


def render_xml(jobs: Iterable[BatchJob], now: float, site: TorqueSite) -> str:
    """qstat -x: one line, times as epoch seconds."""
    body = "".join(
        f"<Job><Job_Id>{job.batch_id}</Job_Id>{_xml(job_rows(job, now, site))}</Job>" for job in jobs
    )
    return f'<?xml version="1.0"?>\n<Data>{body}</Data>\n'


def render_exec_host(placement: Placement, site: TorqueSite) -> str:
    """`nid00016/0-31+...`, in Cray mode `16/0-31+...`."""
    names = zip(hosts(placement, site), placement, strict=True)
    return "+".join(f"{name}/{_ranges(share.slots)}" for name, share in names)


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
    sequence, host = job.sequence, made.host
    outputs = [made.stdout, made.stderr]
    out, err = (
        path or f"{made.work_dir.rstrip('/')}/{made.name}.{letter}{sequence}"
        for path, letter in zip(outputs, "oe", strict=True)
    )
    yield "Job_Name", made.name, None
    yield "Job_Owner", f"{made.owner}@localhost", None
    yield from _used(job, now, site)
    yield "job_state", job.state, None
    yield "queue", job.queue, None
    yield "server", site.server_name, None
    if made.account is not None:
        yield "Account_Name", made.account, None
    yield "Checkpoint", "u", None
    yield _time("ctime", job.created_at)
    yield "Error_Path", f"{host}:{err}", None
    if job.placement:
        yield "exec_host", render_exec_host(job.placement, site), None
    yield "Hold_Types", "u" if job.state is Letter.HELD else "n", None
    yield "Join_Path", made.join, None
    yield "Keep_Files", "n", None
    yield "Mail_Points", made.mail_points, None
    yield _time("mtime", job.changed_at)
    yield "Output_Path", f"{host}:{out}", None
    yield "Priority", str(made.priority), None
    yield _time("qtime", job.created_at)
    yield "Rerunable", str(made.rerunable), None
    for name, value in job.resources:
        yield f"Resource_List.{name}", value, None
    if job.start_count:
        yield "session_id", str(job.session_id), None
    yield "Variable_List", ",".join(f"{k}={v}" for k, v in variables(job, site)), None
    yield "euser", made.owner, None
    yield "egroup", made.owner, None
    yield "queue_type", "E", None
    if job.comment:
        yield "comment", job.comment, None
    yield from _end_rows(job, now, site)


def variables(job: BatchJob, site: TorqueSite) -> Iterator[tuple[str, str]]:
    """The variables that a batch job carries, in Torque's order."""
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
    if job.started_at is not None:
        yield _time("start_time", job.started_at)
        if job.state is Letter.RUNNING:
            yield "Walltime.Remaining", str(max(0, int(job.started_at + job.walltime_s - now))), None
    if job.start_count:
        yield "start_count", str(job.start_count), None
    yield "fault_tolerant", "False", None
    if job.completed_at is not None and job.started_at is not None:
        yield _time("comp_time", job.completed_at)
    yield "job_radix", "0", None
    if job.completed_at is not None and job.started_at is not None:
        yield "total_runtime", f"{job.completed_at - job.started_at:.6f}", None
    yield "submit_host", job.submission.host, None
    yield "init_work_dir", job.submission.work_dir, None
    if site.cray and job.start_count:
        yield "reservation_id", str(job.reservation), None
        yield "login_node_id", "login1", None
        yield "nppcu", "1", None
        yield "login_node_key", "1", None
    yield "request_version", "1", None


def _used(job: BatchJob, now: float, site: TorqueSite) -> Iterator[Row]:
    used_s = used_walltime_s(job, now, site)
    if used_s is not None:
        walltime = render_walltime(used_s)
        for name, value in (("cput", "00:00:00"), ("vmem", "0kb"), ("walltime", walltime), ("mem", "0kb")):
            yield f"resources_used.{name}", value, None
        yield "resources_used.energy_used", "0", None


def _polled(job: BatchJob, now: float, site: TorqueSite) -> bool:
    """The server has heard of resources used: after the first poll, or at the end."""
    if job.started_at is None:
        return False
    return job.script_ended_at is not None or now - job.started_at >= site.job_stat_s


def _time(name: str, at: float) -> Row:
    return name, f"{datetime.fromtimestamp(int(at), UTC):%a %b %e %H:%M:%S %Y}", str(int(at))


def _ranges(slots: tuple[int, ...]) -> str:
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


# --- pbsnodes -----------------------------------------------------------------------------------------------


def node_state(node: Node, site: TorqueSite) -> str:
    """`free`, `job-exclusive` or `down`, joined as pbsnodes does."""
    held = sum(len(slots) for slots in node.jobs.values())
    exclusive = bool(node.jobs) and (site.cray or held >= site.slots)
    states = [word for word, holds in (("down", not node.up), ("job-exclusive", exclusive)) if holds]
    return ",".join(states) or "free"


def render_node(node: Node, site: TorqueSite, now: float) -> str:
    """One block of pbsnodes."""
    properties = (*(("cray_compute",) if site.cray else ()), *site.features)
    lines = [
        f"state = {node_state(node, site)}",
        f"power_state = {'Running' if node.up else 'Offline'}",
        f"np = {site.slots}",
        f"properties = {','.join(properties)}",
        "ntype = cluster",
    ]
    if node.jobs:
        jobs = ", ".join(f"{_ranges(slots)}/{batch_id}" for batch_id, slots in sorted(node.jobs.items()))
        lines.append(f"jobs = {jobs}")
    if node.up:
        lines.append(f"status = state=UP,name={site.node_name(node.number)},rectime={int(now)}")
    lines += ["mom_service_port = 15002", "mom_manager_port = 15003"]
    return f"{node_label(node, site)}\n" + "".join(f"     {line}\n" for line in lines) + "\n"


def node_label(node: Node, site: TorqueSite) -> str:
    """Name of a node in pbsnodes: in Cray mode its number."""
    return str(node.number) if site.cray else site.node_name(node.number)
