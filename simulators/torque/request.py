"""What a command sends to the server and gets back, whatever carries it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Request:
    """A command of a user: its words without its name, where and in which environment it was given."""

    words: tuple[str, ...]
    user: str = "alice"
    uid: int = 1000
    cwd: str = "/"
    host: str = "localhost"
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reply:
    """What the command prints and exits with. `want`: what it has to send before there is an answer ("stdin")."""

    stdout: str = ""
    stderr: str = ""
    exit_code: int = 0
    want: str = ""
