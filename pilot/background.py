"""Run something as a daemon: a process of its own session, without a terminal, whose output goes to a file.

The starter waits until the daemon says that it is ready or why it cannot be; its end without a word is an answer,
too. No time is waited for: what is slow (another host's lease, a long journal) is waited out.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

Say = Callable[[bool, str], None]
WORD_MAX_BYTES = 65536


def run_in_background(output: Path, body: Callable[[Say], int]) -> tuple[bool, str]:
    """Run `body` in a daemon; give what it said first: (ready, line). Raises OSError if none can be made.

    In the daemon `body(say)` is called, stdout and stderr appended to `output` (mode 0600); it exits with its code.
    """
    fd = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    listening, speaking = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(listening)
        _detach(fd, speaking, body)
    os.close(fd)
    os.close(speaking)
    os.waitpid(child, 0)
    with open(listening, "rb") as source:
        word = source.readline(WORD_MAX_BYTES).decode(errors="replace").rstrip("\n")
    if not word:
        return False, f"the daemon ended without a word: look at the end of {output}"
    return word[:1] == "+", word[1:]


def _detach(fd: int, speaking: int, body: Callable[[Say], int]) -> None:
    """The second fork: not the leader of its session, so it never gets a terminal. Does not return."""
    code = 1
    try:
        os.setsid()
        if os.fork():
            os._exit(0)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((nothing, 0), (fd, 1), (fd, 2)):
            os.dup2(source, target)
        for spare in {nothing, fd} - {0, 1, 2}:
            os.close(spare)

        def say(ready: bool, line: str) -> None:
            os.write(speaking, (("+" if ready else "-") + line.replace("\n", " ")).encode() + b"\n")
            os.close(speaking)

        code = body(say)
    except BaseException:
        traceback.print_exc()
    finally:
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
