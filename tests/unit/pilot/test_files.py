"""Files of the edge: whole or not there, one maker per link, bounded reading."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from pilot.files import link_new, read_bounded, write_new


def test_a_write_that_takes_only_a_part_is_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, content: real(fd, bytes(content)[:3]))
    write_new(tmp_path / "x", b"0123456789")
    assert (tmp_path / "x").read_bytes() == b"0123456789"


def test_a_new_file_replaces_nothing(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("old")
    with pytest.raises(FileExistsError):
        write_new(tmp_path / "x", b"new")
    assert (tmp_path / "x").read_text() == "old"


def test_the_second_maker_of_a_name_loses(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_new(tmp_path / name, name.encode())
    assert link_new(tmp_path / "a", tmp_path / "claim")
    assert not link_new(tmp_path / "b", tmp_path / "claim")
    assert (tmp_path / "claim").read_bytes() == b"a"


def test_a_link_whose_answer_was_lost_is_won(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.link

    def lost(source: Path, target: Path) -> None:
        real(source, target)
        raise FileExistsError(errno.EEXIST, "File exists")

    write_new(tmp_path / "a", b"a")
    monkeypatch.setattr(os, "link", lost)
    assert link_new(tmp_path / "a", tmp_path / "claim")


def test_reading_more_than_the_limit_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"12345")
    assert read_bounded(tmp_path / "x", 5) == b"12345"
    with pytest.raises(OSError, match="more than 4 bytes"):
        read_bounded(tmp_path / "x", 4)
