"""The outermost process on a node: whatever becomes of the agent, nothing that it started stays.

The launcher starts the warden, the warden forks the agent and waits. As a subreaper it adopts what an agent that was
killed leaves behind, ends it, and removes the node-local directories. It decides nothing and writes no journal.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Callable, Optional

from pilot.caldb.prctl import become_subreaper, die_with_parent
from pilot.multijob.node.processes import (
    live_descendants,
    reap_all,
    sweep,
)
from pilot.multijob.node.wake import ASKS


class Asked(Exception):
    """An end is wanted while only others' use of this node's calibration server is waited for."""


class Asks:
    """What the launcher asks for: passed on to the agent while it lives, else it ends the warden's own wait."""

    def __init__(self, agent: int) -> None:
        self.agent: Optional[int] = agent
        self.asked = self.waiting = False
        for number in ASKS:
            signal.signal(number, self._ask)

    def _ask(self, *_: object) -> None:
        self.asked = True
        if self.waiting:
            raise Asked
        try:
            if self.agent is not None:
                os.kill(self.agent, signal.SIGTERM)
        except ProcessLookupError:
            pass


def guard(run: Callable[[], None], own: str, database: str) -> None:
    """Call `run` in a child, wait for its end, sweep everything below, remove the node-local directories.

    A calibration server that agents of the same batch job still use is kept for them until the last one has let go.
    """
    become_subreaper()
    here = os.getpid()
    signal.pthread_sigmask(signal.SIG_BLOCK, ASKS)
    pid = os.fork()
    if pid == 0:
        _run_child(run, here)
    asks = Asks(pid)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ASKS)
    while os.wait()[0] != pid:
        pass
    asks.agent = None
    # Here and below: what only the end needs is not read at each start (docs/decisions/0101).
    import shutil

    from pilot.caldb import sharing

    spared = sharing.keeper_pid(database)
    sweep(lambda: live_descendants(here, spared), lambda: reap_all(lambda *_: None))
    shutil.rmtree(own, ignore_errors=True)
    if spared is not None and spared in {name.pid for name in live_descendants(here)}:
        _await_others(asks, lambda: sharing.await_unused(database))
    sweep(lambda: live_descendants(here), lambda: reap_all(lambda *_: None))
    sharing.remove_unused(database)


def _await_others(asks: Asks, wait: Callable[[], None]) -> None:
    try:
        asks.waiting = True
        if not asks.asked:
            wait()
    except Asked:
        pass
    finally:
        asks.waiting = False


def _run_child(run: Callable[[], None], parent: int) -> None:
    try:
        # A warden that is killed takes no leave: the agent then ends in order, as if it had been asked to.
        die_with_parent(signal.SIGTERM)
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGTERM)
        run()
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        # No waiting for threads that hang in a dead filesystem, and never another code than 0.
        os._exit(0)
