"""SQL dumps: statements, and what SQLite makes of them."""

from __future__ import annotations

import sqlite3

import pytest

from pilot.caldb.dump import BadDump, render_sqlite, split_statements


def split(text):
    lines = text.encode().splitlines(keepends=True)
    return [(item.text.decode().strip(), item.line) for item in split_statements(lines)]


def test_statements_end_outside_of_quotes_and_comments():
    text = "-- a;\nSELECT ';' , \"a\\\";\" , `b;`; SELECT /* ; */ 2;\n# c;\nSELECT 'it''s;\n';\n"
    assert split(text) == [
        ('SELECT \';\' , "a\\";" , `b;`', 2),
        ("SELECT  2", 2),
        ("SELECT 'it''s;\n'", 4),
    ]


def test_executable_comments_stay():
    assert split("/*!40101 SET NAMES utf8 */;\n") == [("/*!40101 SET NAMES utf8 */", 1)]


@pytest.mark.parametrize("text", ["SELECT 1", "SELECT 'a;\n", "/* open;\n", "SELECT 1;\nSELECT `;\n"])
def test_open_end_is_refused(text):
    with pytest.raises(BadDump, match="ends inside the statement"):
        split(text)


def test_stored_programs_are_refused():
    with pytest.raises(BadDump, match="line 2: stored programs"):
        split("SELECT 1;\nDELIMITER //\n")


def test_comment_at_the_end_is_fine():
    assert split("SELECT 1;\n-- Dump completed\n\n") == [("SELECT 1", 1)]


def run_sqlite(text):
    database = sqlite3.connect(":memory:")
    for statement in split_statements(text.encode().splitlines(keepends=True)):
        rendered = render_sqlite(statement)
        if rendered is not None:
            database.execute(rendered)
    return database


def test_sqlite_keeps_values_and_keys():
    database = run_sqlite(
        "CREATE TABLE t (id INT UNSIGNED NOT NULL AUTO_INCREMENT COMMENT 'a, (b);',"
        " name VARCHAR(20) CHARACTER SET utf8mb4 DEFAULT 'x', data MEDIUMBLOB,"
        " PRIMARY KEY (id), UNIQUE KEY u (name), KEY k (name(3))) ENGINE=InnoDB COMMENT='(odd)';\n"
        "INSERT INTO t VALUES (1, 'it''s \\'\\n\\\\0x41', 0x00ff27), (2, '0x41 -- no', '');\n"
    )
    assert database.execute("SELECT name, data FROM t ORDER BY id").fetchall() == [
        ("it's '\n\\0x41", b"\x00\xff'"),
        ("0x41 -- no", ""),
    ]
    with pytest.raises(sqlite3.IntegrityError):
        database.execute("INSERT INTO t VALUES (3, '0x41 -- no', '')")


def test_what_sqlite_is_not_told_is_refused_or_meant_for_servers():
    assert run_sqlite("SET NAMES utf8;\nLOCK TABLES t WRITE;\n/*!40000 X */;\nUNLOCK TABLES;\n")
    with pytest.raises(BadDump, match="line 1: not understood"):
        run_sqlite("GRANT ALL ON x TO y;\n")


def test_the_database_of_a_dump_is_no_table_for_sqlite():
    statements = list(split_statements([b"CREATE DATABASE IF NOT EXISTS calib;\n", b"USE calib;\n"]))
    assert [render_sqlite(statement) for statement in statements] == [None, None]
