"""A calibration server that is ended before it was ready."""

from __future__ import annotations

import os
import select
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

from pilot.caldb.plan import KeeperPlan
from pilot.caldb.server import Server

# mariadbd loses a SIGTERM of its first 0.1 s; this one notes it.
NOTES_SIGTERM = f"""#!{sys.executable}
import os, signal
def note(*_):
    open("asked", "w").close()
    os._exit(0)
signal.signal(signal.SIGTERM, note)
open("begun", "w").close()
while True:
    signal.pause()
"""
LIMIT_S = 20.0


class Patience:
    stopping = False

    def wait(self, timeout_s: float | None, *others: Any) -> list[Any]:
        return select.select(others, (), (), timeout_s)[0]


def test_a_server_that_was_never_ready_is_not_asked_politely() -> None:
    with tempfile.TemporaryDirectory(prefix="ep-", dir="/dev/shm") as directory:
        executable = Path(directory, "server")
        executable.write_text(NOTES_SIGTERM)
        executable.chmod(0o755)
        Path(directory, "dd").mkdir()
        os.mkfifo(Path(directory, "begun"))
        plan = KeeperPlan("mariadb", "", "", "", "", "socket", str(executable), directory, 30.0, 0)
        server = Server(plan, Patience())
        begun = os.open(Path(directory, "begun"), os.O_RDONLY | os.O_NONBLOCK)
        try:
            server.spawn(new_port=True)
            assert select.select([begun], (), (), LIMIT_S)[0], "it has not begun"
        finally:
            os.close(begun)
            server.stop()
        assert server.process is not None and server.process.returncode == -signal.SIGKILL
        assert not Path(directory, "asked").exists()
