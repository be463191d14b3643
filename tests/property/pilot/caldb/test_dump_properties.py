"""Any values survive the way from a MySQL dump into SQLite."""

from __future__ import annotations

import sqlite3

from hypothesis import given
from hypothesis import strategies as st

from pilot.caldb.dump import render_sqlite, split_statements

ESCAPES = {"\\": "\\\\", "'": "\\'", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)


def quote(text: str, doubled: bool) -> str:
    table = {**ESCAPES, "'": "''"} if doubled else ESCAPES
    return "'" + "".join(table.get(character, character) for character in text) + "'"


@given(st.lists(st.tuples(TEXTS, st.booleans(), st.binary(min_size=1, max_size=12)), min_size=1, max_size=5))
def test_values_survive(rows):
    values = ",\n".join(f"({quote(text, doubled)}, 0x{data.hex()})" for text, doubled, data in rows)
    dump = f"CREATE TABLE t (a TEXT, b BLOB) ENGINE=MyISAM;\nINSERT INTO t VALUES {values};\n"
    database = sqlite3.connect(":memory:")
    for statement in split_statements(dump.encode().splitlines(keepends=True)):
        rendered = render_sqlite(statement)
        assert rendered is not None
        database.execute(rendered)
    assert database.execute("SELECT a, b FROM t").fetchall() == [(text, data) for text, _, data in rows]
