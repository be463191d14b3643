"""The command `prodsys`: its own verbs here, every other one is Django's."""

import argparse
import getpass
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

OK, FAILED, USAGE = 0, 1, 2
OWN_VERBS = ("task", "jobs", "runs", "act", "delivery", "tick", "serve")
EPILOG = """\
Configuration: the YAML file named by the environment variable PRODSYS_CONFIG.
Any other verb is passed to Django: `prodsys migrate` makes or updates the tables, `prodsys createsuperuser` adds a
user for the pages, `prodsys help` lists all of them. Exit codes: 0 done, 1 refused or failed, 2 bad usage or file.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "prodsys_core.settings.local")
    from prodsys_core.yamlfile import BadFile

    try:
        if words and not words[0].startswith("-") and words[0] not in OWN_VERBS:
            return _with_database(lambda: _django(words))
        options = _parser().parse_args(words)
        _set_up(options.verbose)
        return _with_database(lambda: int(options.run(options)))
    except BadFile as error:
        return _complain(*error.problems, code=USAGE)
    except NoTask as error:
        return _complain(str(error), code=FAILED)
    except BrokenPipeError:  # the reader of our output has gone: `prodsys jobs NAME | head`
        sys.stdout = None  # type: ignore[assignment]
        return OK
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="prodsys",
        description="Production system: tasks, jobs, submission to PanDA, merging, cross-check, archive.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="log more")
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    _add_task_verbs(verbs)
    jobs = _verb(verbs, "jobs", _rows, "list the jobs of a task", NAME, JSON)
    jobs.set_defaults(
        rows="job_rows", columns="file events read written status attempt panda_id reason message"
    )
    runs = _verb(
        verbs, "runs", _rows, "list the runs of a task with merges, cross-check and tape", NAME, JSON
    )
    runs.set_defaults(rows="run_rows", columns="run site status reason message")
    _add_act_verb(verbs)
    _verb(
        verbs,
        "delivery",
        _delivery,
        "hold jobs whose raw files are not as a delivery list says",
        NAME,
        _argument("list", metavar="LIST", help="file with lines PATH SIZE [ADLER32]"),
        _argument("--sizes-only", action="store_true", help="do not read files to compare checksums"),
        YES,
    )
    tick = _verb(verbs, "tick", _tick, "do everything that is due")
    how = tick.add_mutually_exclusive_group()
    text = "again every so many seconds, until SIGTERM"
    how.add_argument("--loop", type=_seconds, metavar="SECONDS", help=text)
    how.add_argument("--once", action="store_true", help="one tick (default)")
    port = _argument("--port", type=_port, help="instead of the configured one; 0: any free one")
    _verb(verbs, "serve", _serve, "web pages on loopback: Django's admin", port)
    return parser


def _argument(*names: str, **options: Any) -> tuple[tuple[str, ...], dict[str, Any]]:
    return names, options


NAME = _argument("name", metavar="NAME", help="name of the task")
JSON = _argument("--json", action="store_true", help="a JSON list")
YES = _argument("--yes", action="store_true", help="do it; without it only what it would touch is shown")


def _verb(verbs: Any, name: str, run: Callable[[Any], int], text: str, *arguments: Any) -> Any:
    parser = verbs.add_parser(name, help=text)
    for names, options in arguments:
        parser.add_argument(*names, **options)
    parser.set_defaults(run=run)
    return parser


def _add_task_verbs(verbs: Any) -> None:
    task = verbs.add_parser("task", help="create, list and set tasks")
    actions = task.add_subparsers(metavar="ACTION", required=True)
    file = _argument("file", type=Path, metavar="FILE.yaml")
    _verb(actions, "create", _task_create, "store a draft from a YAML file", file)
    names = _argument("names", nargs="*", metavar="NAME", help="only these tasks")
    _verb(actions, "list", _task_list, "tasks with their counts", names, JSON)
    status = _argument("status", metavar="STATUS", help="ready, send, paused, ... (one word in quotes)")
    _verb(actions, "set", _task_set, "set a task's status, as its manager", NAME, status, YES)
    which = _argument("status", choices=("failed", "manual check is needed"), help="which of them")
    text = "one more attempt for jobs and merges that wait for a person"
    _verb(actions, "resend", _task_resend, text, NAME, which, YES)


def _add_act_verb(verbs: Any) -> None:
    repeated = {"action": "append", "default": []}
    _verb(
        verbs,
        "act",
        _act,
        "what a manager does to some of a task's jobs and runs; --list names it all",
        _argument("action", metavar="ACTION", nargs="?", help="see --list"),
        _argument("name", metavar="NAME", nargs="?", help="name of the task"),
        _argument("--list", action="store_true", help="all actions"),
        _argument("--run", dest="runs", type=int, metavar="N", help="a run; again for more", **repeated),
        _argument("--file", metavar="FILE", help="a raw file; again for more", **repeated),
        _argument("--events", type=int, metavar="N", help="correct: number of events"),
        _argument("--home", metavar="DIR/", help="correct: where the raw files lie"),
        _argument("--why", default="", metavar="TEXT", help="kept with the change, at most 40 characters"),
        YES,
    )


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a number of seconds") from error
    if not 0.05 <= value <= 86400:
        raise argparse.ArgumentTypeError(f"found {text}, expected 0.05 to 86400 seconds")
    return value


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected 0 to 65535")
    return int(text)


def _set_up(verbose: bool) -> None:
    import django

    logging.basicConfig(
        stream=sys.stderr,
        level=logging.DEBUG if verbose else logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    for name in ("urllib3", "mysql", "django.db.backends"):
        logging.getLogger(name).setLevel(logging.WARNING)
    django.setup()


def _django(words: Sequence[str]) -> int:
    from django.core.management import execute_from_command_line

    execute_from_command_line(["prodsys", *words])
    return OK


def _complain(*lines: str, code: int) -> int:
    for line in lines:
        print(f"prodsys: {line}", file=sys.stderr)
    return code


def _with_database(call: Callable[[], int]) -> int:
    """Run `call`; a database that is not there or has no tables is one clear line."""
    from django.db import DatabaseError

    try:
        return call()
    except DatabaseError as error:
        hint = " (run `prodsys migrate`)" if "no such table" in str(error) or "1146" in str(error) else ""
        return _complain(f"database: {error}{hint}", code=FAILED)


def _config() -> Any:
    from django.conf import settings

    return settings.PRODSYS


def _now() -> datetime:
    return datetime.now(UTC)


def _task_create(options: argparse.Namespace) -> int:
    from prodsys_core.services.tasks import CannotCreate, task_create
    from prodsys_core.taskfile import TaskFile
    from prodsys_core.yamlfile import load_yaml

    file = load_yaml(options.file, TaskFile)
    try:
        task = task_create(_config(), file, _manager())
    except CannotCreate as error:
        return _complain(f"{options.file}: {error}", code=FAILED)
    print(f"task {task.name} created, status {task.status}")
    return OK


def _task_list(options: argparse.Namespace) -> int:
    from prodsys_core.selectors import task_rows

    rows = task_rows(options.names)
    missing = sorted(set(options.names) - {row["name"] for row in rows})
    if options.json:
        print(json.dumps(rows, indent=1))
    else:
        for row in rows:
            jobs = ", ".join(f"{n} {status}" for status, n in sorted(row["jobs"].items())) or "none"
            why = f"  ({row['message']})" if row["message"] else ""
            print(f"{row['name']}\t{row['status']}\tjobs: {jobs}{why}")
    return _complain(*(f"no task named {name}" for name in missing), code=FAILED) if missing else OK


class NoTask(Exception):
    """There is none of the name that was given."""


def _task(options: argparse.Namespace) -> Any:
    from prodsys_core.models import Task

    task = Task.objects.filter(name=options.name).first()
    if task is None:
        raise NoTask(f"no task named {options.name}")
    return task


def _manager() -> Any:
    from prodsys_core.services.tasks import as_manager

    return as_manager(getpass.getuser(), _now())


def _look(options: argparse.Namespace, look: Callable[[Any, Any], Any], left: int = OK) -> int:
    """Show what would be touched; with --yes, or where nothing needs a second look, do it. `look` is given the
    services of that name and the task. `left`: code if nothing was done."""
    from prodsys_core.services import looks
    from prodsys_core.services.moves import NotAllowed

    try:
        seen = look(looks, _task(options))
        print("".join(f"{line}\n" for line in seen.lines), end="")
        if not options.yes and not seen.unasked:
            print(f"{len(seen.lines)} shown, nothing done; add --yes")
            return left
        done = seen.perform(_manager())
    except (looks.BadPick, NotAllowed) as error:
        return _complain(str(error), code=FAILED)
    print(f"{done} done")
    return FAILED if seen.unasked and not done else OK


def _task_set(options: argparse.Namespace) -> int:
    return _look(options, lambda looks, task: looks.look_set(task, options.status, _manager()), FAILED)


def _task_resend(options: argparse.Namespace) -> int:
    return _look(options, lambda looks, task: looks.look_resend(task, options.status))


def _act(options: argparse.Namespace) -> int:
    from prodsys_core.services.actions import ACTIONS, Pick

    if options.list:
        print("\n".join(f"{name}\t{item.text}" for name, item in ACTIONS.items()))
        return OK
    if options.action not in ACTIONS or options.name is None:
        return _complain(f"act: expected ACTION NAME; actions: {', '.join(ACTIONS)}", code=USAGE)
    pick = Pick(tuple(options.runs), tuple(options.file), options.why, options.events, options.home)
    return _look(options, lambda looks, task: looks.look_act(options.action, task, pick))


def _delivery(options: argparse.Namespace) -> int:
    return _look(options, lambda looks, task: looks.look_delivery(task, options.list, options.sizes_only))


def _rows(options: argparse.Namespace) -> int:
    from prodsys_core import selectors

    rows = getattr(selectors, options.rows)(_task(options))
    if options.json:
        print(json.dumps(rows, indent=1))
    else:
        for row in rows:
            words = ("" if row[name] is None else str(row[name]) for name in options.columns.split())
            print("\t".join(words).rstrip("\t"))
    return OK


def _tick(options: argparse.Namespace) -> int:
    from prodsys_core.config import load_config
    from prodsys_core.panda import open_sink
    from prodsys_core.tick import run_loop, tick

    config = _config()
    sink = open_sink(config.panda)
    if options.loop is not None:
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: stop.set())
        run_loop(config, sink, options.loop, stop, _now, load_config)
        return OK

    report = tick(config, sink, _now(), _now)
    if report.held_by:
        return _complain(f"another tick runs: {report.held_by}", code=FAILED)
    print("".join(f"{name}: {count}\n" for name, count in report.counts.items() if count), end="")
    return FAILED if report.failed else OK


def _serve(options: argparse.Namespace) -> int:
    from prodsys_core.serve import serve

    config = _config()
    port = config.web.port if options.port is None else options.port
    try:
        serve(config.web.host, port)
    except OSError as error:
        return _complain(f"{config.web.host}:{port}: {error.strerror}", code=FAILED)
    return OK


if __name__ == "__main__":
    sys.exit(main())
