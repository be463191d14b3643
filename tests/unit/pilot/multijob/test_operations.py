"""The edge's file operations on real files and on virtual ones: the same replies, the same errors."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pilot.multijob.node.files import Exists, Link, Names, Put, PutNew, Rename
from pilot.multijob.operations import MakeDirectory, ReadBytes, RemoveTree, SameFile, Size, perform
from simulators.world.filefaults import FileFaults
from simulators.world.files import VirtualFiles

Perform = Callable[[Any], Any]


@pytest.fixture(params=["real", "virtual"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Perform, str]:
    """(perform, a directory)"""
    if request.param == "real":
        return perform, str(tmp_path)
    virtual = VirtualFiles(lambda: 0.0, lambda client, path: 0.0, FileFaults(lambda: 0.0))
    virtual.root("/shared")
    return partial(virtual.perform, "edge"), "/shared"


def test_directories_are_made_once_and_in_a_directory(where: tuple[Perform, str]) -> None:
    do, root = where
    do(MakeDirectory(f"{root}/a"))
    do(MakeDirectory(f"{root}/a", exist_ok=True))
    do(PutNew(f"{root}/file", ""))
    for path, error, ok in (
        (f"{root}/a", FileExistsError, False),
        (f"{root}/file", FileExistsError, True),
        (f"{root}/none/a", FileNotFoundError, True),
    ):
        with pytest.raises(error):
            do(MakeDirectory(path, ok))
    assert do(Names(root)) == ["a", "file"]


def test_a_directory_moves_with_everything_in_it(where: tuple[Perform, str]) -> None:
    do, root = where
    do(MakeDirectory(f"{root}/a"))
    do(MakeDirectory(f"{root}/a/b"))
    do(PutNew(f"{root}/a/b/file", "text"))
    do(Rename(f"{root}/a", f"{root}/c"))
    assert do(Names(root)) == ["c"]
    assert do(ReadBytes(f"{root}/c/b/file", 1, 2)) == b"ex"
    with pytest.raises(FileNotFoundError):
        do(Rename(f"{root}/a", f"{root}/d"))
    with pytest.raises(FileNotFoundError):
        do(Put(f"{root}/a/b/file", "", f"{root}/a/b/temp"))


def test_a_tree_is_removed_in_bounded_steps(where: tuple[Perform, str]) -> None:
    do, root = where
    do(MakeDirectory(f"{root}/a"))
    do(MakeDirectory(f"{root}/a/b"))
    for number in range(5):
        do(PutNew(f"{root}/a/b/{number}", ""))
    assert [do(RemoveTree(f"{root}/a", 3)) for _ in range(3)] == [False, True, True]
    assert not do(Exists(f"{root}/a"))


def test_a_symbolic_link_in_a_tree_is_removed_not_followed(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/file").write_text("")
    (tmp_path / "a/link").symlink_to(tmp_path / "kept")
    assert perform(RemoveTree(str(tmp_path / "a")))
    assert (tmp_path / "kept/file").exists()


def test_sizes_and_names_of_one_file(where: tuple[Perform, str]) -> None:
    do, root = where
    do(PutNew(f"{root}/a", "four"))
    do(PutNew(f"{root}/b", "four"))
    do(Link(f"{root}/a", f"{root}/c"))
    assert do(Size(f"{root}/c")) == 4
    assert [do(SameFile(f"{root}/a", f"{root}/{name}")) for name in "bc"] == [False, True]
    with pytest.raises(FileNotFoundError):
        do(Size(f"{root}/none"))
