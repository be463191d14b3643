"""The journal under crashes and damage: what is loaded is a prefix of what was appended, or an error."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from pilot.journal import FileStore
from pilot.ports import Appended
from pilot.segments import JournalError

TEXT = st.text(st.characters(), max_size=20)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXT, lambda x: st.lists(x, max_size=3), max_leaves=5
)
RECORDS = st.lists(st.dictionaries(TEXT, VALUES, max_size=3), min_size=1, max_size=4)
COMMITS = st.lists(RECORDS, min_size=1, max_size=6)


def written(
    state_dir: Path, commits: list[list[dict[str, Any]]], segment_max_bytes: int
) -> list[dict[str, Any]]:
    """Append all and return the records in order, numbered, so that equal ones can be told apart."""
    store = FileStore(state_dir, 1, segment_max_bytes)
    records: list[dict[str, Any]] = []
    for number, commit in enumerate(commits, 1):
        part = [{"at": len(records) + n, "body": record} for n, record in enumerate(commit)]
        assert isinstance(store.append(number, part), Appended)
        records += part
    store.close()
    return records


def segments(state_dir: Path) -> list[Path]:
    return sorted((state_dir / "journal.1").glob("segment.*"))


@given(commits=COMMITS, small=st.booleans())
@settings(max_examples=60, deadline=None)
def test_what_was_appended_is_loaded(commits: list[Any], small: bool) -> None:
    with tempfile.TemporaryDirectory() as name:
        records = written(Path(name), commits, 300 if small else 2**26)
        assert list(FileStore(Path(name), 2).load()) == records


@given(commits=COMMITS, data=st.data())
@settings(max_examples=80, deadline=None)
def test_a_crash_at_any_byte_leaves_a_prefix_of_whole_records(
    commits: list[Any], data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as name:
        records = written(Path(name), commits, 300)
        newest = segments(Path(name))[-1]
        content = newest.read_bytes()
        newest.write_bytes(content[: data.draw(st.integers(content.index(b"\n") + 1, len(content)))])
        found = list(FileStore(Path(name), 2).load())
        assert found == records[: len(found)]


@given(commits=COMMITS, data=st.data())
@settings(max_examples=120, deadline=None)
def test_damage_never_gives_a_wrong_record_nor_a_gap(commits: list[Any], data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as name:
        records = written(Path(name), commits, data.draw(st.sampled_from([300, 2**26])))
        path = data.draw(st.sampled_from(segments(Path(name))))
        content = bytearray(path.read_bytes())
        start = data.draw(st.integers(0, len(content) - 1))
        new = data.draw(st.binary(min_size=1, max_size=40))
        content[start : start + len(new)] = new[: len(content) - start]
        path.write_bytes(bytes(content))
        try:
            found = list(FileStore(Path(name), 2).load())
        except JournalError as error:
            assert str(path.parent) in str(error)
            return
        assert found == records[: len(found)]


@given(commits=COMMITS, later=COMMITS, data=st.data())
@settings(max_examples=120, deadline=None)
def test_a_daemon_goes_on_with_what_precedes_damage_and_what_follows_never_counts(
    commits: list[Any], later: list[Any], data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as name:
        small = data.draw(st.sampled_from([300, 2**26]))
        records = written(Path(name), commits, small)
        second = FileStore(Path(name), 2, small)
        list(second.load())
        for number, commit in enumerate(later, 1):
            part = [{"at": len(records) + n, "body": record} for n, record in enumerate(commit)]
            assert isinstance(second.append(number, part), Appended)
            records += part
        second.close()
        path = data.draw(st.sampled_from(sorted(Path(name).glob("journal.*/segment.*"))))
        content = bytearray(path.read_bytes())
        start = data.draw(st.integers(0, len(content) - 1))
        new = data.draw(st.binary(min_size=1, max_size=40))
        content[start : start + len(new)] = new[: len(content) - start]
        if data.draw(st.booleans()):
            path.write_bytes(bytes(content))
        else:
            path.unlink()

        third = FileStore(Path(name), 3, small, mends=True)
        found = list(third.load())
        assert found == records[: len(found)]
        if len(found) < len(records):
            assert third.damage or path.parent.name == "journal.2", "a crash's tail alone is no damage"
        assert isinstance(third.append(1, [{"at": -1}]), Appended)
        third.close()
        assert list(FileStore(Path(name), 4).load()) == [*found, {"at": -1}]
