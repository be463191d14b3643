"""Rows by the thousand: made as objects of Django each takes ten times as long as the database needs for it.

Columns that are not given have their default.
"""

from collections.abc import Sequence
from typing import Any

from django.db import connection
from django.db.models import CharField, Expression, Field, Model, QuerySet, Value
from django.db.models.constants import OnConflict

from prodsys_core.chunks import in_chunks


def insert_rows(
    model: type[Model], columns: str, rows: Sequence[Sequence[Any]], conflict: OnConflict | None = None
) -> None:
    """Store plain values in the order of `columns` (names with a space between), times as `db_time` has them, texts
    cut to what their column holds."""
    names = columns.split()
    others = _others(model, names)
    fields = {field.column: field for field in model._meta.concrete_fields}
    widths = [fields[name].max_length if isinstance(fields[name], CharField) else None for name in names]
    head = connection.ops.insert_statement(on_conflict=conflict)
    row = f"({', '.join(['%s'] * len(names) + [_literal(field.get_default()) for field in others])})"
    into = f"{head} {model._meta.db_table} ({', '.join(names + [field.column for field in others])})"
    for part in in_chunks(rows):
        with connection.cursor() as cursor:
            values = [value[:n] if n else value for one in part for value, n in zip(one, widths, strict=True)]
            cursor.execute(f"{into} VALUES {', '.join([row] * len(part))}", values)


def insert_from(model: type[Model], source: QuerySet[Any], **columns: Expression) -> int:
    """Store a row for each row of `source`, made by the database itself; returns how many."""
    others = {field.column: Value(field.get_default(), field) for field in _others(model, list(columns))}
    chosen, values = source.values_list(*(columns | others).values()).query.sql_with_params()
    with connection.cursor() as cursor:
        names = ", ".join(columns | others)
        cursor.execute(f"INSERT INTO {model._meta.db_table} ({names}) {chosen}", values)
        return int(cursor.rowcount)


def db_time(value: Any) -> Any:
    """An aware time as this database stores it."""
    return connection.ops.adapt_datetimefield_value(value)


def _others(model: type[Model], names: Sequence[str]) -> list[Field]:
    fields = model._meta.concrete_fields
    return [field for field in fields if not field.primary_key and field.column not in names]


def _literal(default: object) -> str:
    """SQL of a default; only such as need no quoting."""
    if default is None or default == "":
        return "NULL" if default is None else "''"
    if not isinstance(default, int):
        raise ValueError(f"default {default!r}: expected a number, an empty text or none; give the column")
    return str(int(default))
