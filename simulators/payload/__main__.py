"""`python -m simulators.payload VERB`: the demo's real input, a small real reconstruction, and the merge tools."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

# a slot is one core: the linear algebra library must not start threads of its own. Read when numpy is imported
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

from simulators.payload.detector import FIRST_RUN
from simulators.payload.exits import REASONS, Exit, PayloadError
from simulators.payload.trace import end_trace, start_trace

Verb = Callable[[argparse.Namespace], None]

INPUT_LIST = "PRODSYS_INPUT_LIST"


def main(argv: list[str] | None = None) -> int:
    """Run one verb; returns the exit code (table in exits.py)."""
    options = _parser().parse_args(argv)
    run: Verb = options.run_verb
    try:
        if not options.is_job:
            run(options)
            return Exit.OK
        trace = start_trace(os.environ)
    except PayloadError as error:
        return _failed(error)
    return _run_traced(run, options, trace)


def _run_traced(run: Verb, options: argparse.Namespace, trace: Path | None) -> int:
    """Run a job between the two lines of its trace; an unforeseen error is traced as 1, which Python exits with."""
    code = 1
    try:
        try:
            run(options)
            _flush_stdout()
            code = int(Exit.OK)
        except PayloadError as error:
            code = _failed(error)
    finally:
        try:
            end_trace(trace, code)
        except PayloadError as error:
            code = _failed(error)
    return code


def _flush_stdout() -> None:
    """The end marker must be out before the exit code is 0: what cannot be flushed was not said."""
    try:
        sys.stdout.flush()
    except OSError as error:
        # or Python would try again when it exits, and fail with a code of its own
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise PayloadError(Exit.OUTPUT_FAILED, f"cannot write to stdout: {error.strerror}") from error


def _failed(error: PayloadError) -> int:
    print(error.message, file=sys.stderr)
    return int(error.code)


# --- verbs --------------------------------------------------------------------------------------------------


def _write_raw(options: argparse.Namespace) -> None:
    from simulators.payload.generation import plan_chunks, write_raw_files

    if options.min_events > options.max_events:
        message = f"--min-events {options.min_events} is more than --max-events {options.max_events}"
        raise PayloadError(Exit.USAGE, message)
    chunks = plan_chunks(
        options.first_run,
        options.runs,
        options.chunks,
        options.min_events,
        options.max_events,
        options.zero_event_files,
        options.seed,
    )
    _make_directory(options.out)
    _make_directory(options.catalogue.parent)
    size = write_raw_files(options.out, options.catalogue, chunks, options.seed)
    print(f"{len(chunks)} raw files, {sum(c.events for c in chunks)} events, {size} bytes in {options.out}")


def _write_calibrations(options: argparse.Namespace) -> None:
    from simulators.payload.calibration_set import MIB, TooSmall, write_calibration_set

    _make_directory(options.out)
    try:
        written = write_calibration_set(
            options.out, options.first_run, options.runs, options.seed, options.size_mb * MIB
        )
    except TooSmall as error:
        raise PayloadError(Exit.USAGE, f"--size-mb {options.size_mb}: {error}") from error
    print(f"{written['identity']}: {written['rows']} rows, {written['payload_bytes']} bytes in {options.out}")


def _reconstruct(options: argparse.Namespace) -> None:
    from simulators.payload.reconstruct import Reconstruction, reconstruct

    job = Reconstruction(options.raw, options.mdst, options.hist, options.dump, options.calibrations_of_run)
    reconstruct(job, os.environ)


def _merge_mdst(options: argparse.Namespace) -> None:
    from simulators.payload.merge import Limits, merge_mdst

    merge_mdst(_inputs(options), options.out, Limits(options.max_events, options.max_bytes))


def _merge_hist(options: argparse.Namespace) -> None:
    from simulators.payload.merge import merge_hist

    merge_hist(_inputs(options), options.out)


def _merge_dump(options: argparse.Namespace) -> None:
    from simulators.payload.merge import merge_dump

    merge_dump(_inputs(options), options.out)


def _inputs(options: argparse.Namespace) -> list[Path]:
    from simulators.payload.merge import read_input_list

    named = options.inputs_from or os.environ.get(INPUT_LIST)
    if not named:
        raise PayloadError(Exit.USAGE, f"no input list: give --inputs-from or set {INPUT_LIST}")
    return read_input_list(Path(named))


def _make_directory(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PayloadError(Exit.OUTPUT_FAILED, f"cannot make directory {path}: {error.strerror}") from error


# --- arguments ----------------------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    codes = "\n".join(f"  {int(code):>2}  {reason}" for code, reason in REASONS.items())
    parser = argparse.ArgumentParser(
        prog="python -m simulators.payload",
        description=__doc__,
        epilog=f"exit codes:\n{codes}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    _add_writers(verbs)
    _add_reconstruct(verbs)
    _add_merges(verbs)
    return parser


Verbs: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def _add_verb(verbs: Verbs, name: str, run: Verb, is_job: bool, text: str) -> argparse.ArgumentParser:
    parser = verbs.add_parser(name, help=text, description=text, allow_abbrev=False)
    parser.set_defaults(run_verb=run, is_job=is_job)
    return parser


def _add_writers(verbs: Verbs) -> None:
    raw = _add_verb(verbs, "write-raw", _write_raw, False, "write raw files and their catalogue")
    raw.add_argument("--out", type=Path, required=True, metavar="DIR", help="directory for the raw files")
    raw.add_argument(
        "--catalogue", type=Path, required=True, metavar="FILE", help="lines `RRRRRR NAME EVENTS`"
    )
    raw.add_argument(
        "--chunks", type=_number(1, 5000), default=12, metavar="N", help="chunks a run (default 12)"
    )
    raw.add_argument("--min-events", type=_number(1, 100_000), default=200, metavar="N", help="default 200")
    raw.add_argument("--max-events", type=_number(1, 100_000), default=3000, metavar="N", help="default 3000")
    raw.add_argument(
        "--zero-event-files",
        type=_number(0, 1000),
        default=1,
        metavar="N",
        help="files without events (default 1)",
    )
    calibrations = _add_verb(
        verbs,
        "write-calibrations",
        _write_calibrations,
        False,
        "write the calibration data set of the same runs",
    )
    calibrations.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="for calibrations.sql, .sqlite and .json"
    )
    calibrations.add_argument(
        "--size-mb", type=_number(1, 1000), default=30, metavar="N", help="MiB of payloads (default 30)"
    )
    for parser in (raw, calibrations):
        parser.add_argument("--runs", type=_number(1, 2000), default=3, metavar="N", help="runs (default 3)")
        parser.add_argument(
            "--first-run",
            type=_number(274_000, 900_000),
            default=FIRST_RUN,
            metavar="N",
            help=f"default {FIRST_RUN}",
        )
        parser.add_argument(
            "--seed", type=_number(0, 2**63 - 1), required=True, metavar="N", help="the same for both writers"
        )


def _add_reconstruct(verbs: Verbs) -> None:
    parser = _add_verb(
        verbs, "reconstruct", _reconstruct, True, "reconstruct a raw file with its run's calibrations"
    )
    parser.add_argument("--raw", type=Path, required=True, metavar="FILE", help="raw file to read")
    parser.add_argument("--mdst", type=Path, required=True, metavar="LFN", help="mDST to write")
    parser.add_argument("--hist", type=Path, required=True, metavar="LFN", help="histogram file to write")
    parser.add_argument("--dump", type=Path, required=True, metavar="LFN", help="event dump to write")
    # for tests only, described in docs/facts/payload.md: a job never needs it
    parser.add_argument("--calibrations-of-run", type=_number(1, 10**9), help=argparse.SUPPRESS)


def _add_merges(verbs: Verbs) -> None:
    verbs_of = {
        "merge-mdst": (_merge_mdst, "join mDSTs"),
        "merge-hist": (_merge_hist, "sum histogram files"),
        "merge-dump": (_merge_dump, "concatenate event dumps"),
    }
    for name, (run, text) in verbs_of.items():
        parser = _add_verb(verbs, name, run, True, text)
        parser.add_argument(
            "--inputs-from",
            metavar="FILE",
            help="absolute input paths, one a line (default: PRODSYS_INPUT_LIST)",
        )
        parser.add_argument("--out", type=Path, required=True, metavar="LFN", help="file to write")
        if name == "merge-mdst":
            group = parser.add_mutually_exclusive_group()
            pieces = "largest piece; further pieces get .001, .002 (default: one piece)"
            group.add_argument(
                "--max-events", type=_number(1, 10**9), metavar="N", help=f"events of the {pieces}"
            )
            group.add_argument(
                "--max-bytes", type=_number(1, 10**12), metavar="N", help=f"bytes of the {pieces}"
            )


def _number(low: int, high: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,19}", text) or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"found {text!r}, expected a whole number from {low} to {high}")
        return int(text)

    return number


if __name__ == "__main__":
    sys.exit(main())
