"""`pilot`: the operator's command."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from pilot.background import run_in_background
from pilot.config import ConfigError, load_config
from pilot.configkeys import Config
from pilot.control import ControlError, ask_daemon, order_daemon
from pilot.log import escaped, set_up_log
from pilot.monitor.status import render_text
from pilot.rotation.checks import check_environment
from pilot.rotation.daemon import CLOSING_S, StartError, package_version, read_events, run_daemon, show_bundle
from pilot.rotation.loginnode import look_around
from pilot.rotation.probe import probe_nodes
from pilot.rotation.story import story
from pilot.rotation.wiring import WiringError

EXIT_OK, EXIT_FAILED, EXIT_USAGE = 0, 1, 2
SITES = Path(__file__).parent / "sites"
# A daemon that stops waits for its journal and its lanes; then the command says that it still runs.
GONE_WITHIN_S = 2 * CLOSING_S + 30.0


def main(argv: list[str] | None = None) -> int:
    """Entry point: returns the exit code (0 done, 1 failed, 2 usage or bad config)."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.command == "init":
        return _init(arguments.profile)
    if arguments.command == "caldb":
        from pilot.caldb import cli as caldb_cli

        return caldb_cli.run(arguments)
    try:
        config = load_config(Path(arguments.config))
    except ConfigError as error:
        print("\n".join(error.lines), file=sys.stderr)
        return EXIT_USAGE
    return COMMANDS[arguments.command](config, arguments)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pilot", description="Edge Pilot: runs PanDA jobs in bundles on an HPC machine."
    )
    parser.add_argument("--version", action="version", version=f"edge-pilot {package_version()}")
    verbs = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    init = verbs.add_parser("init", help="print an annotated config for a known kind of site")
    init.add_argument("profile", choices=sorted(path.stem for path in SITES.glob("*.yaml")))
    check = verbs.add_parser("check", help="check config and environment; exit 0 or 1, 2 for a bad config")
    check.add_argument(
        "--probe",
        action="store_true",
        help="also submit a batch job of one node: interpreter, space, memory, visibility, link(2) between hosts",
    )
    check.add_argument("--queue", metavar="NAME", help="with --probe: default: the first queue of the config")
    check.add_argument(
        "--wait",
        type=_seconds,
        default=600.0,
        metavar="S",
        help="with --probe: so long for its start (default: 600)",
    )
    run = verbs.add_parser("run", help="run the daemon in the foreground")
    run.add_argument(
        "--once", action="store_true", help="one pilot, one bundle, then exit (3: no jobs given)"
    )
    start = verbs.add_parser("start", help="run the daemon in the background; returns when it is ready")
    for verb in (run, start):
        verb.add_argument(
            "--take-over", action="store_true", help="the daemon of another host is gone for certain"
        )
    stop = verbs.add_parser("stop", help="end the daemon; batch jobs run on, says when jobs start to fail")
    drain = verbs.add_parser("drain", help="start nothing more, end waiting jobs as not started (1344)")
    drain.add_argument("--cancel-queued", action="store_true", help="cancel bundles that have not started")
    drain.add_argument(
        "--until",
        type=_time,
        metavar="TIME",
        help="resume by itself then: 2026-07-01T08:00 (local) or ...+00:00",
    )
    pause = verbs.add_parser("pause", help="start nothing more; waiting jobs stay in the pool")
    resume = verbs.add_parser("resume", help="end a pause or a drain")
    for verb in (drain, pause, resume):
        verb.add_argument(
            "--queue", action="append", default=[], metavar="NAME", help="only this queue; may stand twice"
        )
    resume.add_argument(
        "--task",
        action="append",
        default=[],
        metavar="TASK",
        help="a stopped task as status names it, or all",
    )
    confirm = verbs.add_parser(
        "confirm-kill", help="obey the orders to end jobs that are held (alarm mass-kill)"
    )
    confirm.add_argument(
        "--at-most", type=_count, metavar="N", help="do nothing if more than N orders are held by now"
    )
    reload = verbs.add_parser("reload", help="take over the changed configuration, whole or not at all")
    status = verbs.add_parser("status", help="bundles, jobs by state, lanes, alarms with reasons")
    status.add_argument("--json", action="store_true", help="the whole document as JSON")
    story_of = verbs.add_parser("story", help="every event of one id, from the journal; needs no daemon")
    story_of.add_argument("id", help="PanDA id or SERVER/ID, bundle id, batch id, or <bundle>.<round>")
    why = verbs.add_parser("why", help="what one id or queue waits for now; asks the daemon")
    why.add_argument("id", help="PanDA id or SERVER/ID, bundle id, batch id, or name of a queue")
    bundle = verbs.add_parser("bundle", help="what would be submitted next: nothing is done")
    bundle.add_argument("--dry-run", action="store_true", required=True, help="the only way there is")
    bundle.add_argument("--queue", metavar="NAME", help="default: the first queue of the config")
    orders = (stop, drain, pause, resume, confirm, reload)
    for verb in (check, run, start, *orders, status, story_of, why, bundle):
        verb.add_argument("-c", "--config", required=True, metavar="FILE", help="the configuration (YAML)")
    from pilot.caldb import cli as caldb_cli

    caldb_cli.add_parser(verbs)
    return parser


def _time(text: str) -> str:
    """A time of the command line as UTC; without a zone it is local time."""
    try:
        return datetime.fromisoformat(text).astimezone(UTC).isoformat(timespec="seconds")
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"{text!a} is no time; expected 2026-07-01T08:00 or with +00:00"
        ) from error


def _count(text: str) -> int:
    """A number of jobs of the command line."""
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"{text[:60]!a} is no number of jobs")
    return int(text)


def _seconds(text: str) -> float:
    """Seconds of the command line."""
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 7 * 86400):
        raise argparse.ArgumentTypeError(f"{text[:60]!a} is no number of seconds from 1 to 604800")
    return float(text)


def _init(profile: str) -> int:
    """Print a profile with this user's home and python filled in."""
    text = (SITES / f"{profile}.yaml").read_text()
    python = shutil.which("python3", path="/usr/bin:/bin:/usr/local/bin") or sys.executable
    base = str(Path(os.environ.get("XDG_STATE_HOME", Path.home() / ".local/state")) / "edge-pilot")
    sys.stdout.write(text.replace("@BASE@", base).replace("@PYTHON@", python))
    return EXIT_OK


def _run(config: Config, arguments: argparse.Namespace) -> int:
    try:
        set_up_log(config.log_file)
    except OSError as error:
        return _sorry(f"log_file {config.log_file}: {error.strerror}")
    path = Path(arguments.config).absolute()
    return run_daemon(config, once=arguments.once, take_over=arguments.take_over, path=path)


def _start(config: Config, arguments: argparse.Namespace) -> int:
    """In the background; without a `log_file` the log goes to pilot.log in the state directory."""
    state_dir = Path(config.state_dir)
    log = Path(config.log_file) if config.log_file else state_dir / "pilot.log"
    path = Path(arguments.config).absolute()

    def body(say: Callable[[bool, str], None]) -> int:
        set_up_log(str(log))
        return run_daemon(config, take_over=arguments.take_over, say=say, path=path)

    try:
        state_dir.mkdir(parents=True, exist_ok=True)
        ready, line = run_in_background(log, body)
    except OSError as error:
        return _sorry(f"{error.filename or log}: {error.strerror}")
    if not ready:
        return _sorry(line)
    print(f"{line}; log: {log}")
    return EXIT_OK


def _check(config: Config, arguments: argparse.Namespace) -> int:
    """Print one line per check; 1 if one does not hold."""
    names = [queue.name for queue in config.queues]
    name = arguments.queue or names[0]
    if name not in names:
        return _sorry(f"no queue {name[:60]!a}; known: {', '.join(names)}")
    holds = True
    for results in (check_environment, lambda config: probe_nodes(config, name, arguments.wait)):
        for result in results(config):
            detail = f": {escaped(result.detail)}" if result.detail else ""
            print(f"{'ok  ' if result.holds else 'FAIL'} {result.what}{detail}", flush=True)
            holds = holds and result.holds
        if not arguments.probe:
            break
    return EXIT_OK if holds else EXIT_FAILED


def _status(config: Config, arguments: argparse.Namespace) -> int:
    try:
        document = ask_daemon(Path(config.state_dir), "status")
    except ControlError as error:
        return _sorry(str(error))
    document["login_node"] = [asdict(check) for check in look_around(config, document["pid"])]
    sys.stdout.write(json.dumps(document, indent=1) + "\n" if arguments.json else render_text(document))
    return EXIT_OK


def _order(config: Config, arguments: argparse.Namespace) -> int:
    """A command for the daemon: print its answer; 0 if it was done."""
    request = {"verb": arguments.command, "queues": getattr(arguments, "queue", [])}
    if arguments.command == "drain":
        request |= {"cancel_queued": arguments.cancel_queued, "until": arguments.until}
    if arguments.command == "resume":
        request |= {"tasks": arguments.task}
    if arguments.command == "confirm-kill":
        request |= {"at_most": arguments.at_most}
    if arguments.command == "reload":
        request |= {"subject": str(Path(arguments.config).absolute())}
    if arguments.command == "why":
        request |= {"subject": arguments.id}
    stops = arguments.command == "stop"
    try:
        answer = order_daemon(Path(config.state_dir), request, gone_within_s=GONE_WITHIN_S if stops else None)
    except ControlError as error:
        return _sorry(str(error))
    for line in answer["lines"]:
        print(escaped(line))
    if stops and not answer["gone"]:
        return _sorry(f"the daemon still runs after {GONE_WITHIN_S:.0f} s: it waits for its journal")
    return EXIT_OK if answer["done"] else EXIT_FAILED


def _story(config: Config, arguments: argparse.Namespace) -> int:
    try:
        lines = story(read_events(config), arguments.id)
    except StartError as error:
        return _sorry(str(error))
    for line in lines:
        print(escaped(line))
    return (
        EXIT_OK
        if lines
        else _sorry(f"the journal in {config.state_dir} never heard of {arguments.id[:100]!a}")
    )


def _bundle(config: Config, arguments: argparse.Namespace) -> int:
    names = [queue.name for queue in config.queues]
    name = arguments.queue or names[0]
    if name not in names:
        return _sorry(f"no queue {name[:60]!a}; known: {', '.join(names)}")
    try:
        sys.stdout.write(show_bundle(config, name))
    except (StartError, WiringError) as error:
        return _sorry(str(error))
    return EXIT_OK


def _sorry(line: str) -> int:
    print(f"pilot: {escaped(line)}", file=sys.stderr)
    return EXIT_FAILED


COMMANDS: dict[str, Callable[[Config, argparse.Namespace], int]] = {
    "run": _run,
    "start": _start,
    "check": _check,
    "status": _status,
    "stop": _order,
    "drain": _order,
    "pause": _order,
    "resume": _order,
    "confirm-kill": _order,
    "reload": _order,
    "why": _order,
    "story": _story,
    "bundle": _bundle,
}


if __name__ == "__main__":
    sys.exit(main())
