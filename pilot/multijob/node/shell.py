"""Runs a set-up script in a clean bash and reads the environment that it leaves: the only shell an agent starts."""

from __future__ import annotations

import os
import signal
from typing import Dict, Mapping, Optional

from pilot.multijob.node.journal import escape
from pilot.multijob.node.orders import SetupEnded
from pilot.multijob.node.setups import Made, difference
from pilot.multijob.node.spawn import spawn

# The script stands where its own file is, has no arguments, and what it prints goes to its log. What `env` prints
# after it is the environment of programs, not the shell's.
TEXT = (
    'PILOT_ENV=$(type -P env) && cd -- "$1" && PILOT_FILE=$2 && set -- && . "$PILOT_FILE" >&2'
    ' && exec "$PILOT_ENV" -0'
)
# More would not fit into an exec with the arguments of a payload.
ENVIRONMENT_MAX_BYTES = 1024 * 1024
LOG_CHARACTERS = 2000


def setup_argv(script: str) -> list[str]:
    """The command that runs it. Pure."""
    folder = script.rpartition("/")[0] or "/"
    return ["bash", "--noprofile", "--norc", "-c", TEXT, "setup", folder, script]


def parse_environment(content: bytes) -> Optional[Dict[str, str]]:
    """What `env -0` printed, None if it is no whole one. Pure."""
    if not content.endswith(b"\0"):
        return None
    pairs = [item.partition(b"=") for item in content[:-1].split(b"\0")]
    return {os.fsdecode(name): os.fsdecode(value) for name, equals, value in pairs if equals and name}


class ScriptRun:
    """A script that runs, as a child of this process in a session of its own. Raises OSError if it cannot start."""

    def __init__(self, script: str, environment: Mapping[str, str], directory: str) -> None:
        self.script, self._before = script, environment
        self._said, self._log = (_open_unnamed(directory, name) for name in ("setup.env", "setup.log"))
        try:
            self.pid = spawn(setup_argv(script), environment, directory, self._said, self._log)
        except (OSError, ValueError) as error:
            self._close()
            raise OSError("bash cannot be started: %s" % error) from error

    def kill(self) -> None:
        """SIGKILL to it and what it has started in its process group."""
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass

    def ended(self, status: int) -> SetupEnded:
        """It was reaped: what it made, or why it failed."""
        try:
            at = max(0, os.fstat(self._log).st_size - LOG_CHARACTERS)
            log = escape(os.pread(self._log, LOG_CHARACTERS, at).decode("utf-8", "replace"))
            failure = _failure(status)
            size = os.fstat(self._said).st_size
            if failure is None and size > ENVIRONMENT_MAX_BYTES:
                failure = "its environment has %d bytes, at most %d" % (size, ENVIRONMENT_MAX_BYTES)
            after = parse_environment(os.pread(self._said, ENVIRONMENT_MAX_BYTES, 0))
            if failure is None and after is None:
                failure = "it left no environment: did it call exit?"
            if failure is not None or after is None:
                return SetupEnded(self.script, Made(), failure, log)
            return SetupEnded(self.script, difference(self._before, after))
        finally:
            self._close()

    def _close(self) -> None:
        os.close(self._said)
        os.close(self._log)


def _failure(status: int) -> Optional[str]:
    if os.WIFSIGNALED(status):
        return "signal %d" % os.WTERMSIG(status)
    return "exit code %d" % os.WEXITSTATUS(status) if os.WEXITSTATUS(status) else None


def _open_unnamed(directory: str, name: str) -> int:
    path = os.path.join(directory, name)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    os.unlink(path)
    return fd
