"""One errand for an input file: look at it, get it to the node, remove it there. Generators of operations, pure.

They run beside the agent's loop, in threads; `supply` decides which ones are due.
"""

from __future__ import annotations

import errno
from typing import NamedTuple, Optional, Tuple, Union

from pilot.multijob.node.files import CopyNew, Inspect, Pause, Rename, Steps, Sum, Unlink
from pilot.multijob.node.steps import TRY_AGAIN_S

# What a filesystem says of a file that is not there, or is none that may be read; other errors say nothing of it.
ABSENT = frozenset(
    (
        errno.ENOENT,
        errno.ENOTDIR,
        errno.EACCES,
        errno.EPERM,
        errno.EISDIR,
        errno.EINVAL,
        errno.ENXIO,
        errno.ELOOP,
        errno.ENAMETOOLONG,
    )
)


class RunCommand(NamedTuple):
    """Run a command with the environment of the site and wait. Replies None; OSError unless it ends with 0 in time."""

    argv: Tuple[str, ...]
    limit_s: float


class Look(NamedTuple):
    """Is it there, a file, readable, and of this size (None: any but 0)?"""

    path: str
    size: Optional[int]
    tries: int


class Fetch(NamedTuple):
    """Get `source` to the new local file `target`, by the command if there is one, and check it.

    `seen`: the size that it has at its source; `size` and `adler32`: what the job says of it. None: not known.
    """

    source: str
    target: str
    seen: Optional[int]
    size: Optional[int]
    adler32: Optional[str]
    command: Tuple[str, ...]
    tries: int
    try_s: float


class Drop(NamedTuple):
    """Remove a local file; in a thread because the memory of a large one is not freed at once."""

    path: str


Request = Union[Look, Fetch, Drop]


class Outcome(NamedTuple):
    """What became of an errand. `trouble`: why it failed, else ""; `absent`: it is not there or no file."""

    size: int = 0
    trouble: str = ""
    absent: bool = False


def errand_steps(request: Request) -> Steps[Outcome]:
    """Carry out one errand, with tries. Raises nothing."""
    if isinstance(request, Drop):
        return (yield from _drop(request))
    outcome = Outcome()
    for number in range(request.tries):
        try:
            if number:
                yield Pause(TRY_AGAIN_S[min(number, len(TRY_AGAIN_S)) - 1])
            if isinstance(request, Look):
                return Outcome((yield from _look(request)))
            return Outcome((yield from _fetch(request)))
        except OSError as error:
            path = request.path if isinstance(request, Look) else request.source
            absent = error.errno in ABSENT and error.filename in (None, path)
            outcome = Outcome(0, "%s: %s" % (path, error.strerror or error), absent)
        if isinstance(request, Fetch):
            yield from _drop(Drop(_temp(request)))
    return outcome


def _look(request: Look) -> Steps[int]:
    found: int = yield Inspect(request.path)
    _compare("bytes", found, request.size)
    if not found:
        raise OSError(errno.EINVAL, "is empty")
    return found


def _fetch(request: Fetch) -> Steps[int]:
    temp = _temp(request)
    adler32: Optional[str] = None
    found: int
    yield Unlink(temp)
    if request.command:
        yield RunCommand(command_words(request.command, request.source, temp), request.try_s)
        if request.adler32 is None:
            found = yield Inspect(temp)
        else:
            found, adler32 = yield Sum(temp)
    else:
        found, adler32 = yield CopyNew(request.source, temp, False, request.try_s, 0o444)
    for expected in (request.seen, request.size):
        _compare("bytes", found, expected)
    _compare("adler32", adler32, request.adler32)
    if not found:
        raise OSError(errno.EIO, "what arrived is empty")
    yield Rename(temp, request.target)
    return found


def _compare(what: str, found: object, expected: object) -> None:
    if expected is not None and found != expected:
        raise OSError(errno.EIO, "%s: found %s, expected %s" % (what, found, expected))


def _drop(request: Drop) -> Steps[Outcome]:
    try:
        yield Unlink(request.path)
    except OSError as error:
        return Outcome(0, "%s: %s" % (request.path, error.strerror or error))
    return Outcome()


def _temp(request: Fetch) -> str:
    return request.target + ".part"


def command_words(command: Tuple[str, ...], source: str, target: str) -> Tuple[str, ...]:
    """The site's command with the two paths in it; they are parts of words, never a shell's text."""
    # One after the other would look for {target} in the source's own name.
    return tuple(
        source.join(piece.replace("{target}", target) for piece in word.split("{source}")) for word in command
    )
