"""What may be wrong with the shared filesystem: rules for what clients see and what fails, outages of all of it.

`VirtualFiles` asks at the moment at which a rule would change something, and only then it is counted: a fault that
nobody ran into has not happened. Healing is the end of a rule; what `VirtualFiles.lose` took does not come back.
"""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from random import Random


class Wrong(StrEnum):
    """Kinds of rules, and of what is counted."""

    # a directory's listing leaves a name out that opens
    UNLISTED = "unlisted"
    # a client that has read the newer file under a name is shown the one before it
    STALE = "stale-after-fresh"
    # of the newest thing that somebody appended only a half is seen
    TORN = "torn-line"
    # what somebody appended is seen as NUL bytes, though later bytes are there
    HOLE = "nul-hole"
    DISK_FULL = "disk-full"
    QUOTA = "quota"
    # the operation fails, and nothing happened
    IO_ERROR = "io-error"
    # the operation happened, and its reply is an error
    REPLY_LOST = "reply-lost"
    # the following are counted, but are no rules; CLAIM_REPLY_LOST: such a reply, of the link that made a claim
    CLAIM_REPLY_LOST = "claim-reply-lost"
    LATE = "seen-late"
    BEYOND = "seen-beyond-bound"
    OUTAGE = "outage"
    LOST = "lost-for-ever"


_ERRORS = {
    Wrong.DISK_FULL: errno.ENOSPC,
    Wrong.QUOTA: errno.EDQUOT,
    Wrong.IO_ERROR: errno.EIO,
    Wrong.REPLY_LOST: errno.EIO,
}


@dataclass(frozen=True, slots=True)
class Rule:
    """This kind of wrong for clients whose name begins with `client` and names that contain `part`, in [from_s, to_s).

    `share` of the cases, drawn by the case itself: who looks twice sees the same. TORN and HOLE touch what was
    appended since `from_s`.
    """

    kind: Wrong
    client: str
    part: str
    from_s: float = 0.0
    to_s: float = math.inf
    share: float = 1.0


@dataclass(slots=True)
class FileFaults:
    """Rules and outages. `fired(kind)` is called when one changed what a client got."""

    now: Callable[[], float]
    seed: int = 0
    fired: Callable[[str], None] = field(default=lambda kind: None)
    rules: list[Rule] = field(default_factory=list)
    outages: list[tuple[float, float]] = field(default_factory=list)

    def rule(self, kind: Wrong, client: str, path: str, case: object = "") -> Rule | None:
        """The rule that makes this case go wrong now, None if none does. Does not count it."""
        for rule in self.rules:
            if rule.kind is kind and self._meets(rule, client, path, case):
                return rule
        return None

    def strikes(self, kind: Wrong, client: str, path: str, case: object = "") -> bool:
        """Whether a rule changes this case; it is counted."""
        found = self.rule(kind, client, path, case) is not None
        if found:
            self.fired(kind)
        return found

    def error(self, kinds: tuple[Wrong, ...], client: str, path: str) -> OSError | None:
        """What an operation on this name fails with, None if it does not."""
        for kind in kinds:
            # Each try is a case of its own.
            if self.strikes(kind, client, path, self.now()):
                return OSError(_ERRORS[kind], os.strerror(_ERRORS[kind]), path)
        return None

    def _meets(self, rule: Rule, client: str, path: str, case: object) -> bool:
        if not client.startswith(rule.client) or rule.part not in path:
            return False
        if not rule.from_s <= self.now() < rule.to_s:
            return False
        return rule.share >= 1.0 or Random(f"{self.seed}:{client}:{path}:{case}").random() < rule.share

    # --- outages ----------------------------------------------------------------------------------------------

    def outage(self, from_s: float, to_s: float) -> None:
        """All operations of all clients hang in [from_s, to_s) and go on at once at its end."""
        self.outages.append((from_s, to_s))

    def up_at(self) -> float:
        """When an operation that begins now is carried out: now, or the end of the outage, which then is counted."""
        at_s = self.now()
        for from_s, to_s in sorted(self.outages):
            if from_s <= at_s < to_s:
                at_s = to_s
                self.fired(Wrong.OUTAGE)
        return at_s

    def stopped_s(self, from_s: float, to_s: float) -> float:
        """How much of this time the filesystem was away. Outages that overlap count once."""
        stopped_s, behind_s = 0.0, from_s
        for begin_s, end_s in sorted(self.outages):
            begin_s, end_s = max(begin_s, behind_s), min(end_s, to_s)
            if end_s > begin_s:
                stopped_s += end_s - begin_s
                behind_s = end_s
        return stopped_s
