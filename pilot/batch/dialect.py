"""What a dialect of batch commands is: pure functions from values to argv and from text to values.

A dialect is a module with these functions (pilot/batch/torque.py). It never runs anything; pilot/batch/cli.py does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from pilot.ports import BatchId, BatchRequest, CancelResult, Failure, Hole, Listing

EXCERPT_MAX = 500


@dataclass(frozen=True, slots=True)
class Reply:
    """What a command that ended by itself left: exit code (negative: ended by that signal) and both texts."""

    exit_code: int
    stdout: str
    stderr: str


class Dialect(Protocol):
    """Batch commands of one kind of batch system."""

    def render_directives(self, request: BatchRequest) -> str:
        """Directive lines for the head of a script, each with its newline. ValueError for an impossible value."""
        ...

    def render_submit(self, command: str, script: str, name: str) -> tuple[str, ...]: ...

    def render_list(self, command: str, batch_id: BatchId | None) -> tuple[str, ...]:
        """One question for all jobs (None), or one for a single id."""
        ...

    def render_cancel(self, command: str, batch_id: BatchId) -> tuple[str, ...]: ...

    def render_holes(self, command: str) -> tuple[str, ...]: ...

    def parse_submit(self, reply: Reply, server: str) -> BatchId | Failure: ...

    def parse_listing(self, reply: Reply, server: str, asked: BatchId | None) -> Listing | Failure: ...

    def parse_cancel(self, reply: Reply, batch_id: BatchId) -> CancelResult | Failure: ...

    def parse_holes(self, reply: Reply) -> tuple[Hole, ...] | Failure: ...


def escape_text(text: str, limit: int = EXCERPT_MAX) -> str:
    """The first `limit` characters with everything unprintable escaped: fit for a log line or a page."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text[:limit])
