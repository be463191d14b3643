"""A calibration server that is ended before it was ready."""

from __future__ import annotations

import os
import select
import tempfile
import time
from pathlib import Path
from typing import Any

from pilot.caldb.plan import KeeperPlan
from pilot.caldb.server import STOP_S, Server

# As mariadbd in its first 0.1 s: a SIGTERM of that time is lost.
DEAF = "#!/bin/sh\ntrap '' TERM\necho > deaf\nexec sleep 60\n"


class Patience:
    stopping = False

    def wait(self, timeout_s: float | None, *others: Any) -> list[Any]:
        return select.select(others, (), (), timeout_s)[0]


def test_a_server_that_was_never_ready_is_not_asked_politely() -> None:
    with tempfile.TemporaryDirectory(prefix="ep-", dir="/dev/shm") as directory:
        executable = Path(directory, "server")
        executable.write_text(DEAF)
        executable.chmod(0o755)
        Path(directory, "dd").mkdir()
        os.chmod(directory, 0o755)
        plan = KeeperPlan("mariadb", "", "", "", "", "socket", str(executable), directory, 30.0, 0)
        server = Server(plan, Patience())
        server.spawn(new_port=True)
        end = time.monotonic() + 20.0
        while not Path(directory, "deaf").exists() and time.monotonic() < end:
            time.sleep(0.005)
        assert Path(directory, "deaf").exists()
        begun = time.monotonic()
        server.stop()
        assert time.monotonic() - begun < STOP_S / 2
        assert not server.runs()
