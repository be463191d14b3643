"""The command `prodsys`: its own verbs are `data/verbs.yaml` and `verbs.py`, every other one is Django's."""

import argparse
import logging
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import django
from django.core.management import execute_from_command_line
from django.db import DatabaseError

from prodsys_core.lifecycle import BadUsage, NotPossible
from prodsys_core.yamlfile import BadFile, load_table

OK, FAILED, USAGE = 0, 1, 2


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "prodsys_core.settings.local")
    table = load_table("verbs.yaml", dict[str, Any])
    try:
        if words and not words[0].startswith("-") and words[0] not in table["verbs"]:
            execute_from_command_line(["prodsys", *words])
            return OK
        as_written = argparse.RawDescriptionHelpFormatter
        texts = {"description": table["help"], "epilog": table["epilog"]}
        parser = argparse.ArgumentParser("prodsys", **texts, formatter_class=as_written)
        _add_verb(parser, table)
        options = parser.parse_args(words)
        _set_up(options.verbose)
        from prodsys_core import verbs  # needs Django as it was set up

        return int(getattr(verbs, options.run)(options))
    except (BadFile, BadUsage) as error:
        return _complain(error, USAGE)
    except NotPossible as error:
        return _complain(error, FAILED)
    except DatabaseError as error:
        hint = " (run `prodsys migrate`)" if "no such table" in str(error) or "1146" in str(error) else ""
        return _complain(f"database: {error}{hint}", FAILED)
    except BrokenPipeError:  # the reader of our output has gone: `prodsys jobs NAME | head`
        sys.stdout = None  # type: ignore[assignment]
        return OK
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def _complain(problem: object, code: int) -> int:
    for line in str(problem).splitlines():
        print(f"prodsys: {line}", file=sys.stderr)
    return code


def _set_up(verbose: bool) -> None:
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.DEBUG if verbose else logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    for name in ("urllib3", "mysql", "django.db.backends"):
        logging.getLogger(name).setLevel(logging.WARNING)
    django.setup()


def _add_verb(parser: argparse.ArgumentParser, verb: Mapping[str, Any]) -> None:
    """The arguments of a verb, and the verbs below it."""
    places: dict[str, Any] = {"arguments": parser}
    if "one_of" in verb:
        places["one_of"] = parser.add_mutually_exclusive_group()
    for key, place in places.items():
        for names, options in verb.get(key, {}).items():
            kind = {"type": TYPES[options["type"]]} if "type" in options else {}
            place.add_argument(*names.split(), **options | kind)
    if "run" in verb:
        parser.set_defaults(run=verb["run"], **verb.get("sets", {}))
    if "verbs" in verb:
        verbs = parser.add_subparsers(metavar=verb["metavar"], required=True)
        for name, below in verb["verbs"].items():
            _add_verb(verbs.add_parser(name, help=below["help"], description=below["help"]), below)


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


TYPES = {"int": int, "path": Path, "seconds": _seconds, "port": _port}

if __name__ == "__main__":
    sys.exit(main())
