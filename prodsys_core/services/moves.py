"""The one door to a status: compare-and-set on the status that the caller has seen, checked against the table of
edges, with one Transition row each. Somebody else's change in between makes the caller's move a no-op, never a loss.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from django.db import models, transaction
from django.db.models import Case, F, Q, Value, When

from prodsys_core.chunks import in_chunks
from prodsys_core.lifecycle import NotPossible, Role, RunStatus, StepStatus, TaskStatus, check_edge
from prodsys_core.models import MESSAGE_LENGTH, REASON_LENGTH, Run, Step, Task, Transition
from prodsys_core.services.rows import insert_from
from prodsys_core.tables import edges

log = logging.getLogger(__name__)

Message = str | Mapping[int, str]
"""A sentence for all rows, or one for each."""
SUBJECTS: dict[str, type[models.Model]] = {"task": Task, "run": Run, "step": Step}


class NotAllowed(NotPossible):
    """The table of edges does not let this role make this change."""


@dataclass(frozen=True, slots=True)
class Mover:
    """Who changes statuses, as what, and when. `hold` is called before each change: a tick's raises when its lease is
    gone."""

    who: str
    role: Role
    now: datetime
    hold: Callable[[], None] = lambda: None

    @property
    def due(self) -> Q:
        """Rows that are not waiting for a later try."""
        return Q(next_try_at=None) | Q(next_try_at__lte=self.now)


def edge_problem(mover: Mover, subject: str, old: str, new: str) -> str | None:
    """None if the table of edges lets the mover make this change, else why not."""
    return check_edge(edges(subject), subject, old, new, mover.role)


def move(
    mover: Mover,
    subject: str,
    ids: Sequence[int],
    old: str,
    new: str,
    *,
    reason: str = "",
    message: Message = "",
    **columns: Any,
) -> list[int]:
    """Set the status of rows from `old` to `new`, further columns with it; returns the ids that were still in `old`.

    Raises NotAllowed if the edge is not in the table.
    """
    problem = edge_problem(mover, subject, old, new)
    if problem:
        raise NotAllowed(problem)
    mover.hold()
    values = {"status": new, "status_at": mover.now, "reason": reason[:REASON_LENGTH], **columns}
    moved: list[int] = []
    for part in in_chunks(ids):
        with transaction.atomic(savepoint=False):
            expected = SUBJECTS[subject]._default_manager.filter(pk__in=part, status=old)
            rows = list(expected.select_for_update().values_list("pk", flat=True))
            if not rows:
                continue
            expected.filter(pk__in=rows).update(message=_message(message, rows), **values)
            record(mover, subject, rows, old, new, reason)
        moved.extend(rows)
    return moved


def record(mover: Mover, subject: str, ids: Sequence[int], old: str, new: str, reason: str = "") -> None:
    """One Transition row each."""
    for part in in_chunks(ids):
        insert_from(
            Transition,
            SUBJECTS[subject]._default_manager.filter(pk__in=part).order_by("pk"),
            subject=Value(subject),
            subject_id=F("pk"),
            old=Value(str(old)),
            new=Value(str(new)),
            role=Value(mover.role.value),
            who=Value(mover.who[:150]),
            reason=Value(reason[:REASON_LENGTH]),
            at=Value(mover.now),
        )


def move_each(
    mover: Mover, subject: str, rows: Iterable[Any], new: Callable[[Any], str], **columns: Any
) -> int:
    """Move each row from the status it was read with; returns how many were still in it."""
    groups: dict[tuple[str, str], list[int]] = {}
    for row in rows:
        groups.setdefault((row.status, new(row)), []).append(row.pk)
    return sum(len(move(mover, subject, ids, old, to, **columns)) for (old, to), ids in groups.items())


def note(
    subject: str, ids: Sequence[int], status: str, reason: str, message: Message = "", **columns: Any
) -> None:
    """Say why rows stay in their status; rows that have left it are not touched. No transition."""
    for part in in_chunks(ids):
        rows = SUBJECTS[subject]._default_manager.filter(pk__in=part, status=status)
        rows.update(reason=reason[:REASON_LENGTH], message=_message(message, part), **columns)


NO_STATUS = "no-such-status"
STATUSES: dict[str, type[StrEnum]] = {"task": TaskStatus, "run": RunStatus, "step": StepStatus}


def statuses_check() -> int:
    """Rows whose status is a word that none has are moved by nobody: each says so, once. Returns how many."""
    found = 0
    for subject, known in STATUSES.items():
        rows = SUBJECTS[subject]._default_manager.all()
        # Of nothing but the status: the index answers that, whatever number of rows there is.
        for status in set(rows.order_by().values_list("status", flat=True).distinct()) - set(known):
            ids = list(rows.filter(status=status).exclude(reason=NO_STATUS).values_list("pk", flat=True))
            if not ids:
                continue
            text = f"{status!a} is no status of a {subject}: nothing is done with it until it is set right by hand"
            log.error("%d rows: %s", len(ids), text)
            note(subject, ids, status, NO_STATUS, text)
            found += len(ids)
    return found


def _message(message: Message, ids: Iterable[int]) -> str | Case:
    """A value for one statement, whether the rows have one text or each its own."""
    if isinstance(message, str):
        return message[:MESSAGE_LENGTH]
    by_text: dict[str, list[int]] = {}
    for pk in ids:
        by_text.setdefault(message[pk][:MESSAGE_LENGTH], []).append(pk)
    if len(by_text) == 1:
        return next(iter(by_text))
    return Case(*(When(pk__in=pks, then=Value(text)) for text, pks in by_text.items()))
