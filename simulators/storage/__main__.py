"""`python -m simulators.storage --root DIR`: the tape stand-in as a process, until SIGTERM."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from pathlib import Path

from simulators.storage.model import TapeRules
from simulators.storage.tape import Tape


def main() -> int:
    """Run the tape; exit code 0 when told to stop, 1 if its directory cannot be used."""
    parser = argparse.ArgumentParser(prog="python -m simulators.storage", description=__doc__)
    parser.add_argument(
        "--root", type=Path, required=True, help="directory with incoming/, tape/ and receipts/"
    )
    parser.add_argument(
        "--delay-s", type=float, default=1.0, help="a file is on tape this long after it came"
    )
    parser.add_argument("--poll-s", type=float, default=0.2, help="how often the drop box is looked at")
    parser.add_argument("--lose", action="append", default=[], metavar="GLOB", help="lose these files once")
    parser.add_argument("--shorten", action="append", default=[], metavar="GLOB", help="cut these files once")
    options = parser.parse_args()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: stop.set())
    rules = TapeRules(options.delay_s, tuple(options.lose), tuple(options.shorten))
    try:
        Tape(options.root, rules).run(options.poll_s, stop)
    except OSError as error:
        print(f"tape: {error.filename}: {error.strerror}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
