"""The Django application."""

import sqlite3
from typing import Any

from django.apps import AppConfig
from django.db import DatabaseError
from django.db.backends.signals import connection_created

PARAMETERS_MIN = 32_766
"""What SQLite takes in one statement since 3.32; `chunks.ROWS` rows need no more."""


class ProdsysConfig(AppConfig):
    name = "prodsys_core"
    label = "prodsys"
    verbose_name = "Production system"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        connection_created.connect(read_limit)


def read_limit(connection: Any, **_: Any) -> None:
    """Django cuts statements at 999 parameters, what SQLite took before 3.32; the library itself knows better."""
    if connection.vendor == "sqlite":
        limit = connection.connection.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER)
        if limit < PARAMETERS_MIN:
            text = f"SQLite {sqlite3.sqlite_version} takes {limit} parameters a statement"
            raise DatabaseError(f"{text}, expected {PARAMETERS_MIN} or more (SQLite 3.32)")
        connection.features.max_query_params = limit
