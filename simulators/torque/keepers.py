"""The server's side of a keeper: its process, its socket, and its end."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from simulators.torque.sweep import read_row, sweep
from simulators.torque.wire import Peer

_ROOT = Path(__file__).resolve().parents[2]
_CODE = f"import sys; sys.path.insert(0, {str(_ROOT)!r}); from simulators.torque.keeper import main; "
# A keeper that does not take a message for so long is stopped or stuck.
_SEND_LIMIT_S = 5.0


class KeeperProcess:
    """A running keeper (simulators/torque/keeper.py). Its messages are read from `peer`."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [os.path.realpath(sys.executable), "-I", "-S", "-c", f"{_CODE}main({theirs.fileno()})"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
                env={"PATH": os.defpath},
                cwd="/",
            )
        ours.settimeout(_SEND_LIMIT_S)
        self.peer = Peer(ours)

    @property
    def pid(self) -> int:
        return self._process.pid

    def start(
        self,
        name: str,
        argv: Sequence[str],
        cwd: str,
        environment: Mapping[str, str],
        umask: int,
        spool: Sequence[str] = (),
        files: tuple[int, ...] = (),
    ) -> None:
        """Start a process; its stdout and stderr are the given files, or the spool files (one: both)."""
        self.peer.send(
            {
                "do": "start",
                "name": name,
                "argv": list(argv),
                "cwd": cwd,
                "environment": dict(environment),
                "umask": umask,
                "spool": list(spool),
                "files": len(files),
            },
            files,
        )

    def signal(self, name: str, number: int, session: bool) -> None:
        """Send a signal to the process of this name, or to its whole session."""
        self.peer.send({"do": "signal", "name": name, "number": number, "session": session})

    def sweep(self) -> int:
        """SIGKILL to everything below the keeper, now; it reports the ends. Returns how many there were."""
        return sweep(self.pid)

    def end(self) -> None:
        """Ask it to end everything and itself; `wait` says when."""
        try:
            self.peer.send({"do": "end"})
        except OSError:
            pass  # it is gone already

    def kill(self) -> int:
        """SIGKILL to the keeper and everything below it; returns how many processes there were."""
        count = sweep(self.pid, include_root=True)
        self.close()
        return count

    def wait(self, limit_s: float) -> bool:
        """Wait for its end and reap it; False when it is still there."""
        try:
            self._process.wait(limit_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def retire(self) -> None:
        """Nothing is left below it: let it go. Whoever holds it asks `wait(0)` until it is reaped."""
        self.end()
        self.peer.close()

    def close(self) -> None:
        """Close the socket and reap the keeper, which has ended or ends by that."""
        self.peer.close()
        if not self.wait(_SEND_LIMIT_S):
            sweep(self.pid, include_root=True)
            self._process.wait()


def reap_adopted(keepers: frozenset[int]) -> int:
    """Reap ended children of this process that are no keepers; end those that still run. Returns how many ran.

    They are what a keeper left behind that was killed from outside: its orphans came to this process.
    """
    me, running = os.getpid(), 0
    for name in os.listdir("/proc"):
        row = read_row(int(name)) if name.isdecimal() else None
        if row is None or row.parent != me or row.pid in keepers:
            continue
        if row.state not in "ZX":
            running += sweep(row.pid, include_root=True)
        try:
            os.waitpid(row.pid, 0)
        except ChildProcessError:
            pass
    return running
