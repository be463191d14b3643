"""`simsite load`. Exit codes: 0 clean, 1 findings or it could not be run, 2 wrong usage."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from simulators.load.layout import LIVE_MAX, Shape
from simulators.load.run import LoadOptions, run_load

JOBS_MAX = 200_000
NODES_MAX, CHUNK_MAX, KILLS_MAX = 64, 400, 1000


def run_load_command(arguments: argparse.Namespace) -> int:
    """Run one."""
    shares = arguments.failing, arguments.lost
    if (
        not 1 <= arguments.jobs <= JOBS_MAX
        or not all(0 <= share < 1 for share in shares)
        or not arguments.seconds > 0
        or not 1 <= arguments.nodes <= NODES_MAX
        or not 1 <= arguments.chunk <= CHUNK_MAX
        or not 1 <= arguments.live <= LIVE_MAX
        or not 0 <= arguments.kills <= KILLS_MAX
    ):
        print(
            f"simsite: load: expected 1 to {JOBS_MAX} jobs, shares below 1, seconds above 0, "
            f"1 to {NODES_MAX} nodes, chunks of 1 to {CHUNK_MAX}, 1 to {LIVE_MAX} bundles, 0 to {KILLS_MAX} kills",
            file=sys.stderr,
        )
        return 2
    if arguments.out is not None:
        return run_load(_options(arguments, arguments.out))
    with tempfile.TemporaryDirectory(prefix="simsite-load-") as directory:
        return run_load(_options(arguments, Path(directory)))


def _options(arguments: argparse.Namespace, out: Path) -> LoadOptions:
    shape = Shape(arguments.jobs, arguments.nodes, arguments.chunk, arguments.dialect, arguments.live)
    return LoadOptions(
        shape,
        out,
        arguments.failing,
        arguments.seconds,
        arguments.limit,
        arguments.lost,
        arguments.kills,
    )
