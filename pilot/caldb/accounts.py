"""Who may do what in a snapshot: exactly one account that may read the calibrations, and nothing else. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from pilot.caldb.plan import ACCOUNT, DATABASE

Rows = Sequence[Sequence[str | None]]


def check_accounts(tables: Mapping[str, Rows], db_columns: Sequence[str]) -> str | None:
    """Why the accounts are refused, None if they are right. `tables`: MariaDB's privilege tables by name."""
    for host, user, privileges in tables["global_priv"]:
        who = f"account {user}@{host}"
        if user != ACCOUNT:
            return f"{who}: expected {ACCOUNT} as the only one"
        try:
            access = json.loads(privileges or "{}").get("access", 0)
        except (ValueError, AttributeError):
            return f"{who}: its privileges cannot be read"
        if access != 0:
            return f"{who}: holds global privileges ({access}), expected SELECT on {DATABASE} only"
    for name in ("tables_priv", "columns_priv", "procs_priv", "proxies_priv", "roles_mapping"):
        if tables[name]:
            return (
                f"mysql.{name} grants something to {tables[name][0][:3]}, expected SELECT on {DATABASE} only"
            )
    found = [dict(zip(db_columns, row, strict=True)) for row in tables["db"]]
    for row in found:
        granted = sorted(name for name, value in row.items() if name.endswith("_priv") and value == "Y")
        if row["User"] != ACCOUNT or row["Db"] != DATABASE or granted != ["Select_priv"]:
            what = ", ".join(granted)
            return (
                f"{row['User']}@{row['Host']} holds {what} on {row['Db']}, expected SELECT on {DATABASE} only"
            )
    if not found or not tables["global_priv"]:
        return f"account {ACCOUNT} is missing"
    return None
