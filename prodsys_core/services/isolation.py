"""A row that cannot be worked on holds only itself: what it raised becomes its reason, and the others are done.

The database's connection and a lost lease are no row's fault: they end the service.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

from django.db import InterfaceError, OperationalError, transaction

from prodsys_core.services.lease import LeaseLost
from prodsys_core.services.moves import Message, Mover, note

log = logging.getLogger(__name__)
Row = TypeVar("Row")
Result = TypeVar("Result")


class EndsService(Exception):
    """What no row can help: the service says so and ends."""


NO_ROWS_FAULT = (EndsService, LeaseLost, OperationalError, InterfaceError)
AGAIN_S = 60.0
"""A row that was held is looked at again after this."""


@contextmanager
def alone(hold: Callable[[str], None], level: int = logging.ERROR) -> Iterator[None]:
    """What is done inside is about one row: `hold` is told why it could not be done."""
    try:
        yield
    except NO_ROWS_FAULT:
        raise
    except Exception as error:  # whatever a bad row makes of code that expects a good one
        log.log(level, "held: %s", error, exc_info=True)
        hold(f"{type(error).__name__}: {error}")


def apart(
    rows: Sequence[Row], perform: Callable[[Sequence[Row]], Result], hold: Callable[[Row, str], None]
) -> list[Result]:
    """`perform(rows)` in one transaction; where it raises, half of them at a time, down to the row that does it."""
    told: list[str] = []
    with alone(told.append, logging.DEBUG if len(rows) > 1 else logging.ERROR), transaction.atomic():
        return [perform(rows)]
    half = len(rows) // 2
    if half:
        return apart(rows[:half], perform, hold) + apart(rows[half:], perform, hold)
    hold(rows[0], told[0])
    return []


def put_off(mover: Mover, subject: str, ids: Sequence[int], status: str, reason: str, why: Message) -> None:
    """Say why rows stay in their status, to be looked at again."""
    note(subject, ids, status, reason, why, next_try_at=mover.now + timedelta(seconds=AGAIN_S))
