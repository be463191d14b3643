"""Merging the products of one run: one input list, one output. An incomplete or unlike input ends the job."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

from simulators.payload.exits import Exit, PayloadError
from simulators.payload.placement import new_file

LIST_NAME = "PRODSYS_INPUT_LIST"
INPUTS_MAX = 100_000


def input_list(arguments: argparse.Namespace, environment: Mapping[str, str]) -> list[Path]:
    """Absolute paths, one a line, in the order of the list. Raises PayloadError."""
    name = arguments.inputs_from or environment.get(LIST_NAME, "")
    if not name:
        raise PayloadError(Exit.USAGE, f"no input list: give --inputs-from or set {LIST_NAME}")
    try:
        lines = Path(name).read_text().splitlines()
    except OSError as error:
        raise PayloadError(Exit.INPUT_MISSING, f"{name}: {error.strerror}") from error
    paths = [Path(line) for line in lines if line.strip()]
    if not paths or len(paths) > INPUTS_MAX:
        raise PayloadError(Exit.USAGE, f"{name}: {len(paths)} inputs, expected 1 to {INPUTS_MAX}")
    for path in paths:
        if not path.is_absolute():
            raise PayloadError(Exit.USAGE, f"{name}: {str(path)!a} is no absolute path")
        if not path.is_file():
            raise PayloadError(Exit.INPUT_MISSING, f"{path}: is no file")
    return paths


def merge_mdst(arguments: argparse.Namespace, environment: Mapping[str, str]) -> None:
    """Trees one after the other, every basket read."""
    from simulators.payload.mdst import join_columns, read_mdst, write_mdst
    from simulators.payload.rootfiles import RootFileError

    paths = input_list(arguments, environment)
    try:
        joined = join_columns([read_mdst(path) for path in paths])
    except (RootFileError, ValueError) as error:
        raise PayloadError(Exit.INPUT_DAMAGED, str(error)) from error
    with new_file(Path(arguments.out)) as temp:
        write_mdst(temp, joined)
    _say(len(joined["event"]), len(paths))


def merge_hist(arguments: argparse.Namespace, environment: Mapping[str, str]) -> None:
    """Histograms summed, like with like."""
    from simulators.payload.histograms import count_events, read_histograms, sum_histograms, write_histograms
    from simulators.payload.rootfiles import RootFileError

    paths = input_list(arguments, environment)
    try:
        total = sum_histograms([(str(path), read_histograms(path)) for path in paths])
    except (RootFileError, ValueError) as error:
        raise PayloadError(Exit.INPUT_DAMAGED, str(error)) from error
    with new_file(Path(arguments.out)) as temp:
        write_histograms(temp, total)
    _say(count_events(total), len(paths))


def merge_dump(arguments: argparse.Namespace, environment: Mapping[str, str]) -> None:
    """Dumps one after the other; placeholders add nothing, and only placeholders give one."""
    from simulators.payload.dump import PLACEHOLDER, DumpError, count_events, is_placeholder

    paths = input_list(arguments, environment)
    try:
        events = sum(count_events(path) for path in paths)
    except DumpError as error:
        raise PayloadError(Exit.INPUT_DAMAGED, str(error)) from error
    filled = [path for path in paths if not is_placeholder(path)]
    with new_file(Path(arguments.out)) as temp, temp.open("wb") as out:
        for path in filled:
            out.write(path.read_bytes())
        if not filled:
            out.write(PLACEHOLDER)
    _say(events, len(paths))


def _say(events: int, inputs: int) -> None:
    print(f"{inputs} inputs")
    print(f"Number of events saved to output : {events}")
    print("End of Job")
