"""Start the first process of a payload: its own session, its work directory, its streams, nothing else inherited.

posix_spawn costs the agent a fraction of what `subprocess.Popen` does (no error pipe, no walk over all signals and
descriptors in the child). It cannot close what a launcher left open: `keep_descriptors` marks that once, at the start.
"""

from __future__ import annotations

import errno
import os
import signal
import subprocess
from typing import Dict, List, Mapping, Sequence, Tuple

# Since glibc 2.24 posix_spawn tells why a program cannot be run, since 2.26 it can make a session.
_GLIBC_OLDEST = (2, 26)


def parse_glibc(text: str) -> Tuple[int, ...]:
    """Version in `glibc 2.36`, () for anything else."""
    name, _, version = text.partition(" ")
    words = version.split(".")
    return tuple(int(word) for word in words) if name == "glibc" and all(map(str.isdigit, words)) else ()


def _c_library() -> str:
    try:
        return os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (OSError, ValueError):
        return ""


USE_POSIX_SPAWN = parse_glibc(_c_library()) >= _GLIBC_OLDEST


def keep_descriptors() -> None:
    """What this process inherited beside its standard streams stays its own: no payload gets it."""
    for name in os.listdir("/proc/self/fd"):
        try:
            if int(name) > 2:
                os.set_inheritable(int(name), False)
        except OSError:
            pass  # the listing's own


# What this process ignores (Python by itself, or its launcher before it: nohup, a shell's background job) is not asked
# for each payload: all are set back in it.
SIGNALS = tuple(int(n) for n in signal.valid_signals() if n not in (signal.SIGKILL, signal.SIGSTOP))


def _restore() -> None:
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)


def spawn(
    argv: Sequence[str],
    environment: Mapping[str, str],
    work: str,
    stdout: int,
    stderr: int,
    use_posix_spawn: bool = USE_POSIX_SPAWN,
) -> int:
    """Returns the pid. Raises OSError, ValueError: it cannot be run.

    This process stands in `work` for a moment, which must be an absolute path, and then in the root directory. No
    signal is ignored in the payload: it finds them as any program does.
    """
    words, variables = list(argv), dict(environment)
    if not use_posix_spawn:
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            cwd=work,
            env=variables,
            start_new_session=True,
            preexec_fn=_restore,
        )
        process.returncode = (
            0  # who reaps it is its payload: Popen must not wait for a number that is another's
        )
        return process.pid
    os.chdir(work)
    try:
        return os.posix_spawn(
            _find_program(words[0], variables),
            words,
            variables,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, stdout, 1),
                (os.POSIX_SPAWN_DUP2, stderr, 2),
            ],
            setsid=True,
            setsigmask=(),
            setsigdef=SIGNALS,
        )
    finally:
        os.chdir("/")


def _find_program(name: str, environment: Dict[str, str]) -> str:
    """As execvp does with the payload's own PATH, not the agent's. Raises OSError."""
    if "/" in name:
        return name
    found: List[str] = []
    for directory in os.get_exec_path(environment):
        path = os.path.join(directory, name)
        if os.access(path, os.X_OK) and not os.path.isdir(path):
            return path
        if os.path.lexists(path):
            found.append(path)
    number = errno.EACCES if found else errno.ENOENT
    raise OSError(number, os.strerror(number), name)
