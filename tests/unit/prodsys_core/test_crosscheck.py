"""Counting what is in the files."""

import numpy
import pytest
import uproot

from prodsys_core.crosscheck import count_units
from prodsys_core.ports import Broken, NotThere


@pytest.mark.parametrize("n", [0, 1, 700])
def test_events_of_a_tree(tmp_path, n):
    with uproot.recreate(tmp_path / "a.root") as file:
        file.mktree("mDST", {"x": "int32"}).extend({"x": numpy.arange(n, dtype="int32")})
    assert count_units(tmp_path / "a.root", "events") == n


def test_events_of_an_ntuple(tmp_path):
    with uproot.recreate(tmp_path / "a.root") as file:
        file["mDST"] = {"x": numpy.arange(7)}
    assert count_units(tmp_path / "a.root", "events") == 7


def test_two_trees_are_no_mdst(tmp_path):
    with uproot.recreate(tmp_path / "a.root") as file:
        for name in ("a", "b"):
            file.mktree(name, {"x": "int32"}).extend({"x": numpy.arange(3, dtype="int32")})
    assert isinstance(count_units(tmp_path / "a.root", "events"), Broken)


def test_entries_of_histograms(tmp_path):
    with uproot.recreate(tmp_path / "a.root") as file:
        file["h"] = numpy.histogram([1, 2, 3], bins=2)
        file["deep/g"] = numpy.histogram([1, 2], bins=2)
    assert count_units(tmp_path / "a.root", "histogram entries") == 5


def test_bytes_and_what_is_not_there(tmp_path):
    (tmp_path / "d").write_bytes(b"12345")
    assert count_units(tmp_path / "d", "bytes") == 5
    assert count_units(tmp_path / "x", "bytes") == NotThere()


@pytest.mark.parametrize("content", [b"", b"root", b"not a ROOT file" * 100])
@pytest.mark.parametrize("unit", ["events", "histogram entries"])
def test_damaged_file_is_broken(tmp_path, content, unit):
    (tmp_path / "a.root").write_bytes(content)
    assert isinstance(count_units(tmp_path / "a.root", unit), Broken)


def test_cut_file_is_broken(tmp_path):
    path = tmp_path / "a.root"
    with uproot.recreate(path) as file:
        file.mktree("mDST", {"x": "int32"}).extend({"x": numpy.arange(9000, dtype="int32")})
    path.write_bytes(path.read_bytes()[:-2000])
    assert isinstance(count_units(path, "events"), Broken)
