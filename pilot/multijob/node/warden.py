"""The outermost process on a node: whatever becomes of the agent, nothing that it started stays.

The launcher starts the warden, the warden forks the agent and waits. As a subreaper it adopts what an agent that was
killed leaves behind, ends it, and removes the node-local directories. It decides nothing and writes no journal.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Callable, Sequence

from pilot.caldb.prctl import become_subreaper, die_with_parent
from pilot.multijob.node.processes import (
    live_descendants,
    reap_all,
    sweep,
)
from pilot.multijob.node.wake import ASKS


def guard(run: Callable[[], None], directories: Sequence[str]) -> None:
    """Call `run` in a child, wait for its end, sweep everything below, remove `directories`."""
    become_subreaper()
    here = os.getpid()
    signal.pthread_sigmask(signal.SIG_BLOCK, ASKS)
    pid = os.fork()
    if pid == 0:
        _run_child(run, here)

    def forward(*_: object) -> None:
        try:
            os.kill(pid, signal.SIGTERM)
        except ProcessLookupError:
            pass

    for number in ASKS:
        signal.signal(number, forward)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ASKS)
    while os.wait()[0] != pid:
        pass
    sweep(lambda: live_descendants(here), lambda: reap_all(lambda *_: None))
    import shutil  # here and below: what only the end needs is not read at each start (docs/decisions/0101)

    for directory in directories:
        shutil.rmtree(directory, ignore_errors=True)


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
