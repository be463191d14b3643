"""Texts of qstat's list forms: -a and its like, -q, -Q, -B. Pure, to the character as Torque 6.1.3 prints them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from simulators.torque.job import BatchJob, Letter
from simulators.torque.model import TorqueModel
from simulators.torque.resources import render_walltime
from simulators.torque.texts import Row, render_exec_host

_STATES = ("Transit", "Queued", "Held", "Waiting", "Running", "Exiting", "Complete")
_LETTERS = {
    "Queued": Letter.QUEUED,
    "Held": Letter.HELD,
    "Waiting": Letter.WAITING,
    "Running": Letter.RUNNING,
    "Complete": Letter.COMPLETE,
}
_DASHES = "----------------   ---   ----    --    --   ---   ---   ---   ---   ---   --- -   ---\n"
_SERVER_DASHES = "----------------   ---   ---   ---   ---   ---   ---   ---   ---   --- ----------\n"
_LONG_HEAD = (
    f"{'':82}Req'd       Req'd       Elap\n"
    "Job ID                  Username    Queue    Jobname          "
    "SessID  NDS   TSK   Memory      Time    S   Time\n"
    "----------------------- ----------- -------- ---------------- "
    "------ ----- ------ --------- --------- - ---------\n"
)
_QUEUE_DASHES = "---------------- ------ -------- -------- ----  --- --- --  -----\n"
# Settings of the captured server that nothing here depends on.
_FIXED = (
    ("scheduler_iteration", "600"),
    ("node_check_rate", "150"),
    ("tcp_timeout", "300"),
)


def render_long(jobs: Iterable[BatchJob], model: TorqueModel, now: float, hosts: bool) -> str:
    """qstat -a; with -n1 the nodes at the end of the line. Nothing at all for no jobs."""
    lines = [_long_line(job, now) + (f"   {_hosts(job, model)}" if hosts else "") + "\n" for job in jobs]
    if not lines:
        return ""
    return f"\n{model.site.server_name}: \n{_LONG_HEAD}{''.join(lines)}"


def _hosts(job: BatchJob, model: TorqueModel) -> str:
    return render_exec_host(job.placement, model.site) if job.placement else " -- "


def _long_line(job: BatchJob, now: float) -> str:
    nodes = sum(part.count for part in job.parts)
    tasks = sum(part.count * part.ppn for part in job.parts)
    session = str(job.session_id) if job.start_count else "-- "
    elapsed = f"{render_walltime(int(now - job.start)):>9}" if job.state is Letter.RUNNING else f"{'--':>8} "
    return (
        f"{job.batch_id:<23} {job.submission.owner[:11]:<11} {job.queue[:8]:<8} {job.name[:16]:<16} {session:>6} "
        f"{nodes:>5} {tasks:>6} {'--':>8}  {render_walltime(job.walltime_s):>9} {job.state} {elapsed}"
    )


def render_queues(model: TorqueModel) -> str:
    """qstat -q."""
    lines = [f"\nserver: {model.site.server_name}\n\n"]
    lines.append("Queue            Memory CPU Time Walltime Node  Run Que Lm  State\n" + _QUEUE_DASHES)
    running = waiting = 0
    for name, queue in model.site.queues.items():
        counts = _counts(job for job in model.jobs.values() if job.queue == name)
        most = "   --   " if queue.walltime_max_s is None else render_walltime(queue.walltime_max_s)
        state = f"{'E' if queue.enabled else 'D'} {'R' if queue.started else 'S'}"
        going, queued = counts["Running"], counts["Queued"] + counts["Held"] + counts["Waiting"]
        running, waiting = running + going, waiting + queued
        lines.append(f"{name:<16}   --      --   {most:>9}   --  {going:>3} {queued:>3} --   {state}\n")
    lines.append(f"{'':47}----- -----\n{'':47}{running:>5} {waiting:>5}\n")
    return "".join(lines)


def render_queue_table(model: TorqueModel, names: Sequence[str]) -> str:
    """qstat -Q."""
    lines = [
        "Queue              Max    Tot   Ena   Str   Que   Run   Hld   Wat   Trn   Ext T   Cpt\n",
        _DASHES,
    ]
    for name in names:
        queue = model.site.queues[name]
        counts = _counts(job for job in model.jobs.values() if job.queue == name)
        words = ("yes" if queue.enabled else "no", "yes" if queue.started else "no")
        head = f"{name:<16} {queue.jobs_max or 0:>5} {sum(counts.values()):>6} {words[0]:>5} {words[1]:>5}"
        lines.append(f"{head} {_columns(counts)} E {counts['Complete']:>5}\n")
    return "".join(lines)


def render_server_line(model: TorqueModel) -> str:
    """qstat -B."""
    counts = _counts(model.jobs.values())
    head = "Server             Max   Tot   Que   Run   Hld   Wat   Trn   Ext   Com Status    \n"
    line = f"{model.site.server_name:<16} {0:>5} {sum(counts.values()):>5} {_columns(counts)} {counts['Complete']:>5}"
    return f"{head}{_SERVER_DASHES}{line} {_server_state(model):<10}\n"


def queue_rows(name: str, model: TorqueModel) -> Iterator[Row]:
    """Attributes of a queue, as qstat -Q -f has them."""
    queue = model.site.queues[name]
    jobs = [job for job in model.jobs.values() if job.queue == name]
    yield "queue_type", "Execution", None
    if queue.priority:
        yield "Priority", str(queue.priority), None
    if queue.jobs_max is not None:
        yield "max_queuable", str(queue.jobs_max), None
    if queue.user_jobs_max is not None:
        yield "max_user_queuable", str(queue.user_jobs_max), None
    yield "total_jobs", str(len(jobs)), None
    yield "state_count", _state_count(jobs), None
    if queue.walltime_max_s is not None:
        yield "resources_max.walltime", render_walltime(queue.walltime_max_s), None
    if queue.nodes_max is not None:
        yield "resources_max.nodect", str(queue.nodes_max), None
    yield "resources_default.walltime", render_walltime(queue.walltime_default_s), None
    if queue.nodes_default is not None:
        yield "resources_default.nodes", queue.nodes_default, None
    yield "mtime", str(int(model.made_at)), None
    yield from _assigned(jobs)
    if queue.keep_completed_s is not None:
        yield "keep_completed", f"{queue.keep_completed_s:g}", None
    yield "enabled", str(queue.enabled), None
    yield "started", str(queue.started), None


def server_rows(model: TorqueModel) -> Iterator[Row]:
    """Attributes of the server, as qstat -B -f has them. In Cray mode another scheduler decides: Idle."""
    site = model.site
    jobs = list(model.jobs.values())
    yield "server_state", _server_state(model), None
    yield "scheduling", str(not site.cray), None
    yield "total_jobs", str(len(jobs)), None
    yield "state_count", _state_count(jobs), None
    yield "acl_hosts", site.server_name, None
    yield "managers", f"root@{site.server_name}", None
    yield "operators", f"root@{site.server_name}", None
    yield "default_queue", site.default_queue, None
    yield "log_events", "2047", None
    yield "mail_from", "adm", None
    yield "query_other_jobs", "True", None
    yield from _assigned(jobs)
    for name, value in _FIXED:
        yield name, value, None
    yield "job_stat_rate", f"{site.job_stat_s:g}", None
    yield "poll_jobs", "True", None
    yield "log_level", "3", None
    yield "down_on_error", "True", None
    yield "mom_job_sync", "True", None
    yield "pbs_version", "6.1.3", None
    yield "keep_completed", f"{site.keep_completed_s:g}", None
    yield "next_job_number", str(model.next_sequence), None
    yield "net_counter", "1 0 0", None
    yield "moab_array_compatible", "True", None
    if site.cray:
        yield "cray_enabled", "True", None
    yield "nppcu", "1", None
    yield "timeout_for_job_delete", "120", None
    yield "timeout_for_job_requeue", "120", None
    yield "note_append_on_error", "True", None


def _server_state(model: TorqueModel) -> str:
    return "Idle" if model.site.cray else "Active"


def _assigned(jobs: Iterable[BatchJob]) -> Iterator[Row]:
    nodes = sum(part.count for job in jobs if job.state is Letter.RUNNING for part in job.parts)
    if nodes:
        yield "resources_assigned.nodect", str(nodes), None


def _counts(jobs: Iterable[BatchJob]) -> dict[str, int]:
    listed = [job.state for job in jobs]
    return {word: listed.count(_LETTERS[word]) if word in _LETTERS else 0 for word in _STATES}


def _state_count(jobs: Iterable[BatchJob]) -> str:
    # Torque ends this value with a blank.
    return "".join(f"{word}:{count} " for word, count in _counts(jobs).items())


def _columns(counts: dict[str, int]) -> str:
    words = ("Queued", "Running", "Held", "Waiting", "Transit", "Exiting")
    return " ".join(f"{counts[word]:>5}" for word in words)
