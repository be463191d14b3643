"""`simsite load`. Exit codes: 0 clean, 1 findings or it could not be run, 2 wrong usage."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from simulators.load.run import LoadOptions, run_load

JOBS_MAX = 200_000


def run_load_command(arguments: argparse.Namespace) -> int:
    """Run one."""
    if not 1 <= arguments.jobs <= JOBS_MAX or not 0 <= arguments.failing < 1 or not arguments.seconds > 0:
        print(
            f"simsite: load: expected 1 to {JOBS_MAX} jobs, a share below 1, and seconds above 0",
            file=sys.stderr,
        )
        return 2
    if arguments.out is not None:
        return run_load(_options(arguments, arguments.out))
    with tempfile.TemporaryDirectory(prefix="simsite-load-") as directory:
        return run_load(_options(arguments, Path(directory)))


def _options(arguments: argparse.Namespace, out: Path) -> LoadOptions:
    return LoadOptions(arguments.jobs, out, arguments.failing, arguments.seconds, arguments.limit)
