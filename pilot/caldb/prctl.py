"""Calls of prctl(2) that Python has no function for.

Linux manual: PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER, PR_SET_NAME.
"""

from __future__ import annotations

import ctypes

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36


def become_subreaper() -> None:
    """Orphans among the descendants become children of this process. Raises OSError."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent(number: int) -> None:
    """This process gets signal `number` when the thread that made it ends. Raises OSError."""
    _prctl(_PR_SET_PDEATHSIG, number)


def set_name(name: str) -> None:
    """What `ps -o comm` shows of this thread, at most 15 bytes of it. Raises OSError."""
    _prctl(_PR_SET_NAME, ctypes.c_char_p(name.encode()))


def _prctl(option: int, value: int | ctypes.c_char_p) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    word = ctypes.c_ulong(value) if isinstance(value, int) else value
    if libc.prctl(option, word, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option})")
