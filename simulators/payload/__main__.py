"""`python -m simulators.payload VERB`: the demo's input, a small real reconstruction, its merge tools."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from simulators.payload.exits import Exit, PayloadError
from simulators.payload.trace import end_trace, start_trace

Verb = Callable[[argparse.Namespace, Mapping[str, str]], None]


def _write_raw(arguments: argparse.Namespace, environment: Mapping[str, str]) -> None:
    from simulators.payload.generation import plan_chunks, write_raw_files

    arguments.out.mkdir(parents=True, exist_ok=True)
    chunks = plan_chunks(
        arguments.first_run,
        arguments.runs,
        arguments.chunks,
        arguments.min_events,
        arguments.max_events,
        arguments.zero_event_files,
        arguments.seed,
    )
    size = write_raw_files(arguments.out, arguments.catalogue, chunks, arguments.seed)
    print(
        f"{len(chunks)} raw files, {sum(chunk.events for chunk in chunks)} events, {size} bytes in {arguments.out}"
    )


def _write_calibrations(arguments: argparse.Namespace, environment: Mapping[str, str]) -> None:
    from simulators.payload.calibration_set import TooSmall, write_calibration_set

    arguments.out.mkdir(parents=True, exist_ok=True)
    size = arguments.size_mb * 2**20
    try:
        facts = write_calibration_set(
            arguments.out, arguments.first_run, arguments.runs, arguments.seed, size
        )
    except TooSmall as error:
        raise PayloadError(Exit.USAGE, str(error)) from error
    print(f"{facts['identity']}: {facts['rows']} rows, {facts['payload_bytes']} bytes in {arguments.out}")


def _reconstruct(arguments: argparse.Namespace, environment: Mapping[str, str]) -> None:
    from simulators.payload.reconstruct import run_reconstruction

    run_reconstruction(arguments, environment)


def _merge(name: str) -> Verb:
    def merge(arguments: argparse.Namespace, environment: Mapping[str, str]) -> None:
        from simulators.payload import merge as tools

        getattr(tools, name)(arguments, environment)

    return merge


# verb -> (what does it, whether it runs as a job and so writes a trace)
VERBS: Mapping[str, tuple[Verb, bool]] = {
    "write-raw": (_write_raw, False),
    "write-calibrations": (_write_calibrations, False),
    "reconstruct": (_reconstruct, True),
    "merge-mdst": (_merge("merge_mdst"), True),
    "merge-hist": (_merge("merge_hist"), True),
    "merge-dump": (_merge("merge_dump"), True),
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="simulators.payload", description="Input, reconstruction and merging."
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    raw = verbs.add_parser("write-raw", help="write raw files and their catalogue")
    raw.add_argument("--catalogue", type=Path, required=True)
    raw.add_argument("--chunks", type=int, default=12)
    raw.add_argument("--min-events", type=int, default=200)
    raw.add_argument("--max-events", type=int, default=3000)
    raw.add_argument("--zero-event-files", type=int, default=1)
    calibrations = verbs.add_parser("write-calibrations", help="write the calibration data set of the runs")
    calibrations.add_argument("--size-mb", type=int, default=30)
    for verb in (raw, calibrations):
        verb.add_argument("--out", type=Path, required=True)
        verb.add_argument("--first-run", type=int, default=274495)
        verb.add_argument("--runs", type=int, default=3)
        verb.add_argument("--seed", type=int, required=True)
    job = verbs.add_parser("reconstruct", help="reconstruct one raw file")
    job.add_argument("--raw", required=True)
    for product in ("mdst", "hist", "dump"):
        job.add_argument(f"--{product}", required=True, metavar="LFN")
    job.add_argument(
        "--calibrations-of-run", type=int, metavar="RUN", help="of another run: shows that they matter"
    )
    for name in ("mdst", "hist", "dump"):
        merge = verbs.add_parser(f"merge-{name}", help=f"merge {name} files")
        merge.add_argument(
            "--inputs-from", metavar="FILE", help="one absolute path a line (default: PRODSYS_INPUT_LIST)"
        )
        merge.add_argument("--out", required=True, metavar="LFN")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run one verb; returns its exit code (docs/facts/payload.md)."""
    arguments = _parser().parse_args(argv)
    verb, is_job = VERBS[arguments.verb]
    trace = None
    code = 1
    try:
        trace = start_trace(os.environ) if is_job else None
        verb(arguments, os.environ)
        code = int(Exit.OK)
    except PayloadError as error:
        print(error.message, file=sys.stderr)
        code = int(error.code)
    finally:
        sys.stdout.flush()
        end_trace(trace, code)
    return code


if __name__ == "__main__":
    sys.exit(main())
