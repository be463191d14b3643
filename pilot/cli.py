"""`pilot`: the operator's command."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from pathlib import Path

from pilot.config import Config, ConfigError, load_config
from pilot.control import ControlError, ask_daemon
from pilot.log import set_up_log
from pilot.monitor.status import render_text
from pilot.rotation.checks import check_environment
from pilot.rotation.daemon import package_version, run_daemon

EXIT_OK, EXIT_FAILED, EXIT_USAGE = 0, 1, 2
SITES = Path(__file__).parent / "sites"


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
    if arguments.command == "check":
        return _check(config)
    if arguments.command == "status":
        return _status(config, as_json=arguments.json)
    try:
        set_up_log(config.log_file)
    except OSError as error:
        print(f"pilot: log_file {config.log_file}: {error.strerror}", file=sys.stderr)
        return EXIT_FAILED
    return run_daemon(config, once=arguments.once, take_over=arguments.take_over)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pilot", description="Edge Pilot: runs PanDA jobs in bundles on an HPC machine."
    )
    parser.add_argument("--version", action="version", version=f"edge-pilot {package_version()}")
    verbs = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    init = verbs.add_parser("init", help="print an annotated config for a known kind of site")
    init.add_argument("profile", choices=sorted(path.stem for path in SITES.glob("*.yaml")))
    check = verbs.add_parser("check", help="check config and environment; exit 0 or 1, 2 for a bad config")
    run = verbs.add_parser("run", help="run the daemon in the foreground")
    run.add_argument(
        "--once", action="store_true", help="one pilot, one bundle, then exit (3: no jobs given)"
    )
    run.add_argument(
        "--take-over", action="store_true", help="the daemon of another host is gone for certain"
    )
    status = verbs.add_parser("status", help="bundles, jobs by state, lanes, alarms with reasons")
    status.add_argument("--json", action="store_true", help="the whole document as JSON")
    for verb in (check, run, status):
        verb.add_argument("-c", "--config", required=True, metavar="FILE", help="the configuration (YAML)")
    from pilot.caldb import cli as caldb_cli

    caldb_cli.add_parser(verbs)
    return parser


def _init(profile: str) -> int:
    """Print a profile with this user's home and python filled in."""
    text = (SITES / f"{profile}.yaml").read_text()
    python = shutil.which("python3", path="/usr/bin:/bin:/usr/local/bin") or sys.executable
    base = str(Path(os.environ.get("XDG_STATE_HOME", Path.home() / ".local/state")) / "edge-pilot")
    sys.stdout.write(text.replace("@BASE@", base).replace("@PYTHON@", python))
    return EXIT_OK


def _check(config: Config) -> int:
    """Print one line per check; 1 if one does not hold."""
    results = check_environment(config)
    for result in results:
        print(
            f"{'ok  ' if result.holds else 'FAIL'} {result.what}{': ' + result.detail if result.detail else ''}"
        )
    return EXIT_OK if all(result.holds for result in results) else EXIT_FAILED


def _status(config: Config, *, as_json: bool) -> int:
    try:
        document = ask_daemon(Path(config.state_dir), "status")
    except ControlError as error:
        print(f"pilot: {error}", file=sys.stderr)
        return EXIT_FAILED
    sys.stdout.write(json.dumps(document, indent=1) + "\n" if as_json else render_text(document))
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
