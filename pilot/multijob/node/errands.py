"""Carries out errands for inputs beside the agent's loop: a thread for each, commands as children of the agent.

Only the agent's own thread spawns and reaps: a thread that waited for a child by itself would lose its end to the
agent, which reaps everything. So a thread asks, and waits for the answer.
"""

from __future__ import annotations

import contextlib
import errno
import os
import queue
import signal
import threading
from typing import Any, Callable, Dict, List, Mapping, Optional

from pilot.multijob.node.files import perform, run_steps
from pilot.multijob.node.journal import escape
from pilot.multijob.node.orders import ErrandDone
from pilot.multijob.node.provision import Outcome, RunCommand, errand_steps
from pilot.multijob.node.spawn import spawn
from pilot.multijob.node.supply import Errand

SAID_CHARACTERS = 200


class _Command:
    """A command that a thread waits for. `status`: as wait4 gives it, None until then; `trouble`: it did not start."""

    def __init__(self, order: RunCommand) -> None:
        self.order = order
        self.over = threading.Event()
        self.overdue = False
        self.status: Optional[int] = None
        self.trouble: Optional[OSError] = None
        self.said = -1


class Errands:
    """Threads are kept and as many as errands under way at once: one that hangs holds up no other."""

    def __init__(self, directory: str, environment: Mapping[str, str], wake: Callable[[], None]) -> None:
        self._directory, self._environment, self._wake = directory, environment, wake
        self._due: queue.SimpleQueue[Errand] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[ErrandDone] = queue.SimpleQueue()
        self._asked: queue.SimpleQueue[_Command] = queue.SimpleQueue()
        self._running: Dict[int, _Command] = {}
        self._under_way = self._threads = 0

    # --- in the agent's thread --------------------------------------------------------------------------------

    def begin(self, errand: Errand) -> None:
        """Returns at once."""
        self._due.put(errand)
        self._under_way += 1
        if self._under_way > self._threads:
            self._threads += 1
            threading.Thread(target=self._work, daemon=True).start()

    def news(self) -> List[ErrandDone]:
        """What is done; starts commands that threads ask for and ends those that took too long."""
        while not self._asked.empty():
            self._start(self._asked.get())
        for pid, command in self._running.items():
            if command.overdue:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(pid, signal.SIGKILL)
        found = []
        while not self._done.empty():
            self._under_way -= 1
            found.append(self._done.get())
        return found

    def is_own(self, pid: int) -> bool:
        """Whether this is a command."""
        return pid in self._running

    def pids(self) -> List[int]:
        """Of commands that run."""
        return list(self._running)

    def reaped(self, pid: int, status: int) -> None:
        """A command has ended; what it left behind is ended with the agent."""
        command = self._running.pop(pid)
        command.status = status
        command.over.set()

    def _start(self, command: _Command) -> None:
        name = os.path.join(self._directory, "command.out")
        try:
            command.said = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            os.unlink(name)
            argv = command.order.argv
            pid = spawn(argv, self._environment, self._directory, command.said, command.said)
            self._running[pid] = command
        except (OSError, ValueError) as error:
            command.trouble = error if isinstance(error, OSError) else OSError(errno.EINVAL, str(error))
            command.over.set()

    # --- in threads -------------------------------------------------------------------------------------------

    def _work(self) -> None:
        while True:
            errand = self._due.get()
            try:
                outcome = run_steps(errand_steps(errand.request), self._carry_out)
            except Exception as error:  # the top of a thread: this input fails, the thread goes on
                outcome = Outcome(0, "cannot be carried out: %r" % (error,))
            self._done.put(ErrandDone(errand.number, outcome))
            self._wake()

    def _carry_out(self, operation: Any) -> Any:
        return self._run(operation) if isinstance(operation, RunCommand) else perform(operation)

    def _run(self, order: RunCommand) -> None:
        command = _Command(order)
        self._asked.put(command)
        self._wake()
        if not command.over.wait(order.limit_s):
            command.overdue = True
            self._wake()
            command.over.wait()
        try:
            _check(command)
        finally:
            if command.said >= 0:
                os.close(command.said)


def _check(command: _Command) -> None:
    """Raises OSError unless it ended with 0 in time."""
    name = command.order.argv[0]
    if command.trouble is not None:
        raise OSError(errno.EIO, "%s cannot be started: %s" % (name, command.trouble))
    if command.overdue:
        raise OSError(errno.ETIMEDOUT, "%s did not end in %.0f s" % (name, command.order.limit_s))
    status = command.status
    assert status is not None
    if status != 0:
        by_signal = os.WIFSIGNALED(status)
        how = "signal %d" % os.WTERMSIG(status) if by_signal else "exit code %d" % os.WEXITSTATUS(status)
        at = max(0, os.fstat(command.said).st_size - SAID_CHARACTERS)
        said = escape(os.pread(command.said, SAID_CHARACTERS, at).decode("utf-8", "replace"))
        raise OSError(errno.EIO, "%s ended with %s: %s" % (name, how, said))
