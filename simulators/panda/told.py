"""What a PanDA server is told of its jobs: reports of pilots and orders to end them, one line each."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

ORDER = "order"


@dataclass(frozen=True, slots=True)
class Told:
    """One report of a pilot (`state` is its word), or one order to end the job (`state` is ORDER) by `user`; to the
    server of this name, where several are in a world."""

    at_s: float
    panda_id: int
    state: str
    attempt_nr: int | None = None
    batch_id: str | None = None
    user: str = ""
    server: str = ""


@dataclass(slots=True)
class Ledger:
    """Everything that a server was told, in its order, if it is kept. A copy of a server keeps the same ledger."""

    kept: bool = False
    server: str = ""
    entries: list[Told] = field(default_factory=list)

    def add(self, told: Told) -> None:
        """One more entry."""
        if self.kept:
            self.entries.append(replace(told, server=self.server))

    def __deepcopy__(self, memo: dict[int, Any]) -> Ledger:
        return self
