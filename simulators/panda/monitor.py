"""The monitor page of the simulated server: what a production manager asks a PanDA monitor. Pure: model -> HTML.

By task and run: jobs by status and type, events done and expected, errors by code. By PandaID: all its attempts.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any
from urllib.parse import parse_qs, quote

from simulators.panda.job import FINAL, PandaJob, utc_text
from simulators.panda.model import PandaModel

PATH = "/sim/monitor"
# A page is for reading; the table at /sim/table has everything.
ROWS_MAX = 500
# The run stands in the names of outputs: mDST-RUN-..., RUN-CHUNK-SLOT.root, evtdump3-CHUNK-RUN.raw, histsum-RUN-...
_RUN = re.compile(r"^(?:mDST-|histsum-)?(\d{1,9})-|^evtdump\d+-(?:\d+-)?(\d{1,9})\.")
_WORK = re.compile(r"(?:^|\s)PRODSYS_WORK=([A-Za-z0-9._-]{1,100})(?:\s|$)")
_EVENTS = re.compile(r"(?:^|\s)PRODSYS_NEVENTS=(\d{1,15})(?:\s|$)")
_CODES = (
    "pilotErrorCode",
    "ddmErrorCode",
    "jobDispatcherErrorCode",
    "taskBufferErrorCode",
    "supErrorCode",
    "transExitCode",
)
_STYLE = (
    "body{font:14px sans-serif;margin:2em}table{border-collapse:collapse}"
    "td,th{border:1px solid #ccc;padding:2px 8px}"
)


@dataclass(slots=True)
class Group:
    """Jobs of one task and run. A work counts once in events: by its finished attempt, else by its latest."""

    task: str
    run: str
    statuses: Counter[tuple[str, str]] = field(default_factory=Counter)
    errors: Counter[tuple[str, int]] = field(default_factory=Counter)
    done: dict[str, int] = field(default_factory=dict)
    expected: dict[str, int] = field(default_factory=dict)


def run_of(job: PandaJob) -> str:
    """The run in the names of its outputs, "-" where none has one."""
    for entry in job.files:
        found = _RUN.match(str(entry.get("lfn"))) if entry.get("type") == "output" else None
        if found:
            return found[1] or found[2]
    return "-"


def work_of(job: PandaJob) -> str:
    """What its attempts have in common: the work key, or the job name without its attempt."""
    found = _WORK.search(str(job.attributes.get("jobParameters") or ""))
    return found[1] if found else re.sub(r"-\d+$", "", str(job.attributes.get("jobName")))


def events_expected(job: PandaJob) -> int:
    """What the submitter announced."""
    found = _EVENTS.search(str(job.attributes.get("jobParameters") or ""))
    return int(found[1]) if found else _number(job.attributes.get("nEvents"))


def _number(value: Any) -> int:
    """What a submitter wrote where a number belongs is any text: 0 for what is none."""
    text = str(value)
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 16 else 0


def errors_of(job: PandaJob) -> list[tuple[str, int, str]]:
    """(who, code, text) of each error of an ended job."""
    if job.status not in FINAL or job.status == "finished":
        return []
    found = []
    for name in _CODES:
        code = _number(job.attributes.get(name))
        if code:
            found.append((name, code, str(job.attributes.get(name.replace("Code", "Diag")) or "")))
    return found


def group_jobs(jobs: Iterable[PandaJob]) -> list[Group]:
    """By task and run, ascending."""
    groups: dict[tuple[str, str], Group] = {}
    for job in jobs:
        key = str(job.attributes.get("jediTaskID") or "-"), run_of(job)
        group = groups.setdefault(key, Group(*key))
        kind = str(job.attributes.get("transformation") or "-")
        group.statuses[kind, job.status] += 1
        group.errors.update((who, code) for who, code, _ in errors_of(job))
        work = f"{kind} {work_of(job)}"
        group.expected[work] = events_expected(job)
        if job.status == "finished":
            group.done[work] = _number(job.attributes.get("nEvents"))
    return [groups[key] for key in sorted(groups)]


def render_monitor(model: PandaModel, query: str) -> str:
    """The page for a query string: nothing, `task=N`, `run=N`, or `panda_id=N`."""
    asked = {name: values[0] for name, values in parse_qs(query).items()}
    if "panda_id" in asked:
        return _page(f"Attempts of PandaID {asked['panda_id']}", _attempts(model, asked["panda_id"]))
    groups = group_jobs(model.jobs.values())
    for name in ("task", "run"):
        if name in asked:
            groups = [group for group in groups if getattr(group, name) == asked[name]]
    parts = [_table(("task", "run", "type", "status", "jobs"), _statuses(groups))]
    parts += ["<h2>Events</h2>", _table(("task", "run", "done", "expected"), _events(groups))]
    parts += ["<h2>Errors</h2>", _table(("task", "run", "component", "code", "jobs"), _errors(groups))]
    if asked:
        wanted = {(group.task, group.run) for group in groups}
        jobs = [
            j
            for j in model.jobs.values()
            if (str(j.attributes.get("jediTaskID") or "-"), run_of(j)) in wanted
        ]
        parts += ["<h2>Jobs</h2>", _jobs(model, jobs)]
    return _page("PanDA: tasks and runs", "".join(parts))


def _statuses(groups: Sequence[Group]) -> list[Sequence[Any]]:
    return [
        (_link("task", group.task), _link("run", group.run), escape(kind), escape(status), count)
        for group in groups
        for (kind, status), count in sorted(group.statuses.items())
    ]


def _events(groups: Sequence[Group]) -> list[Sequence[Any]]:
    return [(escape(g.task), escape(g.run), sum(g.done.values()), sum(g.expected.values())) for g in groups]


def _errors(groups: Sequence[Group]) -> list[Sequence[Any]]:
    return [
        (escape(group.task), escape(group.run), who, code, count)
        for group in groups
        for (who, code), count in sorted(group.errors.items())
    ]


def _attempts(model: PandaModel, text: str) -> str:
    job = model.jobs.get(int(text)) if text.isdecimal() and len(text) < 16 else None
    if job is None:
        return "<p>no such job</p>"
    work = work_of(job)
    same = [other for other in model.jobs.values() if work_of(other) == work and run_of(other) == run_of(job)]
    return f"<p>work {escape(work)}</p>{_jobs(model, same)}"


def _jobs(model: PandaModel, jobs: Sequence[PandaJob]) -> str:
    rows: list[Sequence[Any]] = []
    for job in jobs[:ROWS_MAX]:
        said = "; ".join(f"{who} {code} {text}"[:200] for who, code, text in errors_of(job))
        since = utc_text(job.since_s + model.epoch_s)[:19]
        facts: Mapping[str, Any] = job.attributes
        rows.append(
            (
                _link("panda_id", str(job.panda_id)),
                escape(str(facts.get("jobName"))),
                job.attempt_nr,
                escape(job.status),
                since,
                _number(facts.get("nEvents")) if job.status == "finished" else "",
                escape(str(facts.get("batchID") or "")),
                escape(said),
            )
        )
    more = f"<p>{len(jobs) - ROWS_MAX} more: /sim/table</p>" if len(jobs) > ROWS_MAX else ""
    return (
        _table(("PandaID", "name", "attempt", "status", "since", "events", "batch job", "errors"), rows)
        + more
    )


def _link(name: str, value: str) -> str:
    return f'<a href="{PATH}?{name}={quote(value)}">{escape(value)}</a>'


def _table(heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Cells are HTML already."""
    head = "".join(f"<th>{name}</th>" for name in heads)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def _page(title: str, content: str) -> str:
    shown = escape(title)
    head = f'<meta charset="utf-8"><title>{shown}</title><style>{_STYLE}</style>'
    top = f'<!DOCTYPE html><html lang="en"><head>{head}</head>'
    return f'{top}<body><p><a href="{PATH}">all tasks</a></p><h1>{shown}</h1>{content}</body></html>'
