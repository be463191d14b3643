"""The baseline of a node agent: `python -m bench.spawn WIDTH COUNT PROGRAM ARG...` keeps WIDTH of them running."""

from __future__ import annotations

import os
import sys


def main(width: int, count: int, argv: list[str]) -> int:
    """Spawn `count` processes with posix_spawn, at most `width` at a time; 1 if any ended with another code than 0."""
    started = ended = failed = 0
    while ended < count:
        while started < count and started - ended < width:
            os.posix_spawn(argv[0], argv, os.environ)
            started += 1
        _, status = os.wait()
        ended += 1
        failed |= status != 0
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]))
