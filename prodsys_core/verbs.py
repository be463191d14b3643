"""What the verbs of the command do (`data/verbs.yaml` names them): each prints, and returns the exit code.

What cannot be done raises NotPossible.
"""

import getpass
import json
import signal
import sys
import threading
from argparse import Namespace
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any

from django.conf import settings

from prodsys_core import selectors
from prodsys_core.config import load_config
from prodsys_core.lifecycle import BadUsage, NotPossible, StepStatus
from prodsys_core.models import Task
from prodsys_core.panda import open_sink
from prodsys_core.services import looks, tasks
from prodsys_core.services.actions import ACTIONS, Pick
from prodsys_core.services.moves import Mover
from prodsys_core.services.sending import queue_uses
from prodsys_core.taskfile import TaskFile
from prodsys_core.tick import run_loop
from prodsys_core.tick import tick as tick_once
from prodsys_core.yamlfile import load_yaml

_now = partial(datetime.now, UTC)
THREADS = 4
"""Pages are for a few managers; each thread has its own database connection."""


def _manager() -> Mover:
    return tasks.as_manager(getpass.getuser(), _now())


def _task(name: str) -> Task:
    task = Task.objects.filter(name=name).first()
    if task is None:
        raise NotPossible(f"no task named {name}")
    return task


def task_create(options: Namespace) -> int:
    """Store a draft."""
    file = load_yaml(options.file, TaskFile)
    try:
        task = tasks.task_create(settings.PRODSYS, file, _manager(), options.replace)
    except tasks.CannotCreate as error:
        raise NotPossible(f"{options.file}: {error}") from error
    print(f"task {task.name} created, status {task.status}")
    return 0


def task_list(options: Namespace) -> int:
    """Tasks with their counts."""
    rows = selectors.task_rows(options.names)
    missing = sorted(set(options.names) - {row["name"] for row in rows})
    if options.json:
        print(json.dumps(rows, indent=1))
    else:
        for row in rows:
            jobs = ", ".join(f"{n} {status}" for status, n in sorted(row["jobs"].items())) or "none"
            why = f"  ({row['message']})" if row["message"] else ""
            print(f"{row['name']}\t{row['status']}\tjobs: {jobs}{why}")
    if missing:
        raise NotPossible("\n".join(f"no task named {name}" for name in missing))
    return 0


def _words(row: Mapping[str, Any], columns: str) -> list[str]:
    return ["" if row.get(name) is None else str(row[name]) for name in columns.split()]


def _print_row(*words: str) -> None:
    print("\t".join(words).rstrip("\t"))


def task_rows(options: Namespace) -> int:
    """Jobs or runs of a task: the columns of a selector's rows that the table of verbs names; what of a run is not
    finished."""
    rows = getattr(selectors, options.selector)(_task(options.name))
    if options.json:
        print(json.dumps(rows, indent=1))
    else:
        for row in rows:
            _print_row(*_words(row, options.columns))
            for step in row.get("steps", ()):
                if step["status"] not in (StepStatus.FINISHED, StepStatus.CANCELLED):
                    _print_row("", *_words(step, "kind product piece status reason message"))
    return 0


def sites(options: Namespace) -> int:
    """Sites of the configuration as they are now, a row for each of their queues."""
    config, now = settings.PRODSYS, _now()
    uses, rows = queue_uses(config, now), []
    for site in config.sites:
        down = site.downtime_at(now)
        names = {"site": site.name, "status": site.status_at(now)}
        times = {"begins": down.begins.isoformat(), "ends": down.ends.isoformat()} if down else {}
        for queue in dict.fromkeys((site.panda_queue, site.merge_queue)):
            use = uses[queue]
            counts = {"waiting": use.waiting, "running": use.running, "ended": use.ended}
            room = use.room(config.panda.active_max, config.panda.waiting_min)
            rows.append({**names, "queue": queue, **counts, "room": room, "downtime": times or None})
    if options.json:
        print(json.dumps(rows, indent=1))
        return 0
    for row in rows:
        down = row["downtime"]
        downtime = f"downtime {down['begins']} to {down['ends']}" if down else ""
        counts = f"{row['waiting']} waiting, {row['running']} running, {row['ended']} ended, room for {row['room']}"
        _print_row(row["site"], row["status"], row["queue"], counts, downtime)
    return 0


def _look(options: Namespace, look: Callable[[Task], looks.Look], left: int = 0) -> int:
    """Show what would be touched; with --yes, or where nothing needs a second look, do it. `left`: code if nothing was
    done."""
    seen = look(_task(options.name))
    print("".join(f"{line}\n" for line in seen.lines), end="")
    if not options.yes and not seen.unasked:
        print(f"{len(seen.lines)} shown, nothing done; add --yes")
        return left
    done = seen.perform(_manager())
    print(f"{done} done")
    return int(seen.unasked and not done)


def task_set(options: Namespace) -> int:
    """A task's next status."""
    return _look(options, lambda task: looks.look_set(task, options.status, _manager()), left=1)


def task_resend(options: Namespace) -> int:
    """One more attempt for what waits for a person."""
    return _look(options, lambda task: looks.look_resend(task, options.status))


def act(options: Namespace) -> int:
    """An action on jobs or runs."""
    if options.list:
        print("\n".join(f"{name}\t{item.text}" for name, item in ACTIONS.items()))
        return 0
    if options.action not in ACTIONS or options.name is None:
        raise BadUsage(f"act: expected ACTION NAME; actions: {', '.join(ACTIONS)}")
    pick = Pick(tuple(options.runs), tuple(options.file), options.why, options.events, options.home)
    return _look(options, lambda task: looks.look_act(options.action, task, pick))


def delivery(options: Namespace) -> int:
    """Raw files against a delivery list."""
    return _look(options, lambda task: looks.look_delivery(task, options.list, options.sizes_only))


def tick(options: Namespace) -> int:
    """One tick, or one after the other until SIGTERM."""
    config = settings.PRODSYS
    sink = open_sink(config.panda)
    if options.loop is not None:
        stop = threading.Event()
        _on_stop(stop.set)
        run_loop(config, sink, options.loop, stop, _now, load_config)
        return 0
    report = tick_once(config, sink, _now(), _now)
    if report.held_by:
        raise NotPossible(f"another tick runs: {report.held_by}")
    print("".join(f"{name}: {count}\n" for name, count in report.counts.items() if count), end="")
    return int(bool(report.failed))


def serve(options: Namespace) -> int:
    """The web pages: Django behind waitress, on loopback, until SIGTERM, SIGINT or SIGHUP."""
    from django.core.wsgi import get_wsgi_application  # not for the other verbs: a quarter of a second
    from waitress.server import create_server

    web, application = settings.PRODSYS.web, get_wsgi_application()
    port = web.port if options.port is None else options.port
    try:
        server = create_server(application, host=web.host, port=port, threads=THREADS, ident="prodsys")
    except OSError as error:
        raise NotPossible(f"{web.host}:{port}: {error.strerror}") from error
    _on_stop(sys.exit)
    print(f"serving on http://{web.host}:{server.effective_port}/", file=sys.stderr, flush=True)
    try:
        server.run()
    finally:
        server.close()
    return 0


def _on_stop(call: Callable[[], None]) -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: call())
