"""The batch server of a load run: `python -m simulators.load.server --config FILE --runtime DIR`."""

from __future__ import annotations

import sys

from simulators.load.machine import PretendedMachine
from simulators.torque.server import main

if __name__ == "__main__":
    sys.exit(main(make_machine=PretendedMachine))
