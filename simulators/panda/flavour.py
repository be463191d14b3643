"""In what servers of different versions differ, as data. Every other rule is the same in all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class BatchIdRule(StrEnum):
    """What happens when an update brings another batchID and neither is a number."""

    FAILS = "fails"
    """The branch crashes: StatusCode 30, nothing stored (seen on 0.8.1 and 1.0.4)."""
    ENDS = "ends"
    """tobekilled, supErrorCode set: what the code means to do."""
    ABSENT = "absent"
    """The rule came in March 2019: stored."""


@dataclass(frozen=True, slots=True)
class Flavour:
    """`pickled_ids`: killJobs reads pickled ids only, and its database locking fails for every job (PostgreSQL).

    `decimals`: numbers of the database cannot be rendered as JSON (PostgreSQL).
    """

    name: str
    legacy: bool
    v1: bool
    batch_id: BatchIdRule
    pickled_ids: bool
    decimals: bool = False
    json_jobs: bool = True
    """Whether submitJobs reads JSON and answers it; else pickles both ways."""
    package: str = "pandaserver.taskbuffer"
    """Of the classes in its pickles."""


FLAVOURS: Mapping[str, Flavour] = {
    "both": Flavour("both", True, True, BatchIdRule.ENDS, False),
    "0.8.1": Flavour("0.8.1", True, True, BatchIdRule.FAILS, True, True),
    "1.0.4": Flavour("1.0.4", False, True, BatchIdRule.FAILS, False),
    "2018": Flavour("2018", True, False, BatchIdRule.ABSENT, False, json_jobs=False, package="taskbuffer"),
}
