"""File operations on a real filesystem."""

from __future__ import annotations

import pytest

from pilot.multijob.node.files import Copied, CopyNew, Exists, Link, Put, PutNew, Sum, Unlink, perform


def test_unknown_is_not_absent(tmp_path):
    (tmp_path / "file").write_text("")
    assert perform(Exists(str(tmp_path / "nothing"))) is False
    assert perform(Exists(str(tmp_path / "file"))) is True
    with pytest.raises(NotADirectoryError):
        perform(Exists(str(tmp_path / "file" / "below")))


def test_new_files_overwrite_nothing(tmp_path):
    perform(PutNew(str(tmp_path / "a"), "1"))
    for operation in (
        PutNew(str(tmp_path / "a"), "2"),
        Link(str(tmp_path / "a"), str(tmp_path / "a")),
        CopyNew(str(tmp_path / "a"), str(tmp_path / "a")),
    ):
        with pytest.raises(FileExistsError):
            perform(operation)
    assert (tmp_path / "a").read_text() == "1"


def test_put_replaces_whole_files_and_leaves_no_temp(tmp_path):
    for text in ("1", "22"):
        perform(Put(str(tmp_path / "a"), text, str(tmp_path / "t")))
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a", "22")]


def test_copy_makes_directories_and_sums(tmp_path):
    source = tmp_path / "s"
    source.write_bytes(b"Wikipedia")
    found = perform(CopyNew(str(source), str(tmp_path / "x" / "y" / "t")))
    assert found == Copied(9, "11e60398") == perform(Sum(str(tmp_path / "x" / "y" / "t")))


def test_unlink_of_nothing_is_done(tmp_path):
    perform(Unlink(str(tmp_path / "nothing")))
