"""The process that stands for one node, or for one batch job's place on the MOM node.

It adopts everything that is started below it (subreaper), starts what the server asks for, reports every end with
what it used, and sweeps what was left behind when its last process has ended. When the server is gone, it ends
everything and goes. Standard library only, no heavy imports.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
from typing import Any

from simulators.torque.sweep import become_subreaper, descendants, signal_session, sweep
from simulators.torque.wire import Peer


class Keeper:
    """Processes by the server's names for them; all ends are reported in the order in which they were reaped."""

    def __init__(self, server: Peer) -> None:
        self._server = server
        self._names: dict[int, str] = {}

    def run(self) -> None:
        """Serve until the server says `end` or is gone; leaves no process behind."""
        wake, waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        self._server.send({"did": "ready"})
        going = True
        while going:
            ready, _, _ = select.select([self._server.fileno(), wake], [], [])
            if wake in ready:
                os.read(wake, 4096)
                self._reap()
            if self._server.fileno() in ready:
                going = self._listen()
        sweep(os.getpid())
        self._reap()

    def _listen(self) -> bool:
        messages = self._server.receive()
        if messages is None:
            return False
        for message, files in messages:
            match message["do"]:
                case "start":
                    self._start(message, files)
                case "signal":
                    self._signal(message)
                case "sweep":
                    count = sweep(os.getpid())
                    self._reap()
                    self._server.send({"did": "swept", "count": count})
                case "end":
                    return False
        return True

    def _start(self, message: dict[str, Any], files: list[int]) -> None:
        """Start one process in a session of its own; a failure is reported with its stage."""
        spool = [
            os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600) for path in message.get("spool", ())
        ]
        outputs = files or spool
        failed, fail = os.pipe2(os.O_CLOEXEC)
        pid = os.fork()
        if pid == 0:
            _become(message, outputs[0], outputs[-1], fail)
        os.close(fail)
        for fd in outputs:
            os.close(fd)
        with os.fdopen(failed, "rb") as report:
            text = report.read().decode()
        if text:
            os.waitpid(pid, 0)
            stage, _, number = text.partition(" ")
            self._server.send(
                {"did": "failed", "name": message["name"], "stage": stage, "errno": int(number)}
            )
        else:
            self._names[pid] = message["name"]
            self._server.send({"did": "started", "name": message["name"], "pid": pid})

    def _signal(self, message: dict[str, Any]) -> None:
        for pid, name in self._names.items():
            if name == message["name"]:
                if message.get("session"):
                    signal_session(os.getpid(), pid, message["number"])
                else:
                    os.kill(pid, message["number"])  # not reaped yet, so it is still ours

    def _reap(self) -> None:
        """Reap whatever has ended; the end of the last named process takes everything left with it."""
        ended: list[dict[str, Any]] = []
        while True:
            try:
                pid, status, used = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            name = self._names.pop(pid, None)
            if name is None:
                continue
            orphans = 0
            if not self._names:
                orphans = len(descendants(os.getpid()))
                sweep(os.getpid())
            ended.append(
                {
                    "did": "ended",
                    "name": name,
                    "code": os.WEXITSTATUS(status) if os.WIFEXITED(status) else None,
                    "signal": os.WTERMSIG(status) if os.WIFSIGNALED(status) else None,
                    "utime_s": used.ru_utime,
                    "stime_s": used.ru_stime,
                    "rss_kib": used.ru_maxrss,
                    "orphans": orphans,
                }
            )
        try:
            for message in ended:
                self._server.send(message)
        except OSError:
            pass  # the server is gone: the next look at its socket ends everything


def _become(message: dict[str, Any], stdout: int, stderr: int, fail: int) -> None:
    """In the child: turn into the wanted process. Never returns."""
    stage = "start"
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        os.setsid()
        os.umask(message["umask"])
        stage = "chdir"
        os.chdir(message["cwd"])
        stage = "exec"
        nothing = os.open(os.devnull, os.O_RDONLY)
        for fd, wanted in ((nothing, 0), (stdout, 1), (stderr, 2)):
            os.dup2(fd, wanted, inheritable=True)
        os.execvpe(message["argv"][0], message["argv"], message["environment"])  # noqa: S606
    except OSError as error:
        os.write(fail, f"{stage} {error.errno}".encode())
    finally:
        os._exit(127)


def main(fd: int) -> None:
    """Serve over the socket `fd` that the server handed down."""
    os.set_inheritable(fd, False)  # what we start must not hold the server's socket open
    become_subreaper()
    Keeper(Peer(socket.socket(fileno=fd))).run()


if __name__ == "__main__":
    main(int(sys.argv[1]))
