"""The merge tools: what goes in comes out, like with like, and nothing is made of damaged input."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hist
import numpy as np
import pytest

from simulators.payload import dump, histograms, mdst
from simulators.payload.__main__ import main
from simulators.payload.exits import Exit
from simulators.payload.merge import piece_path

TOOLS = {"merge-mdst": "mdst", "merge-hist": "hist", "merge-dump": "dump"}


def listed(directory: Path, paths: list[Path]) -> Path:
    path = directory / "inputs.txt"
    path.write_text("".join(f"{entry}\n" for entry in paths))
    return path


def merge(verb: str, directory: Path, paths: list[Path], *more: str) -> tuple[int, Path]:
    out = directory / "out" / "merged"
    out.parent.mkdir(exist_ok=True)
    return main([verb, "--inputs-from", str(listed(directory, paths)), "--out", str(out), *more]), out


def test_mdst_events_are_conserved_in_the_order_of_the_list(
    products: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inputs = list(products.mdst.values())[:2]
    code, out = merge("merge-mdst", tmp_path, inputs)
    expected = mdst.join_columns([mdst.read_mdst(path) for path in inputs])
    found = mdst.read_mdst(out)
    assert code == 0
    for name in ("run", "chunk", "event"):
        assert found[name].tolist() == expected[name].tolist()
    assert np.array_equal(found["pull"], expected["pull"], equal_nan=True)
    assert found["track"].to_list() == expected["track"].to_list()
    total = sum(map(mdst.count_entries, inputs))
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2:] == [f"Number of events saved to output : {total}", "End of Job"]
    assert mdst.count_entries(out) == total


@pytest.mark.parametrize("more", [("--max-events", "1900"), ("--max-bytes", "400000")])
def test_pieces_are_within_their_limit_and_together_all_events(
    products: Any, tmp_path: Path, more: tuple[str, str]
) -> None:
    inputs = list(products.mdst.values())[:2]
    code, out = merge("merge-mdst", tmp_path, inputs, *more)
    pieces = [out.parent / name for name in sorted(os.listdir(out.parent))]
    assert code == 0
    assert pieces == [piece_path(out, index) for index in range(len(pieces))]
    assert len(pieces) >= 2 and pieces[1].name == "merged.001"
    limit = int(more[1])
    for piece in pieces:
        assert (mdst.count_entries(piece) if more[0] == "--max-events" else piece.stat().st_size) <= limit
    parts = [mdst.read_mdst(piece) for piece in pieces]
    whole = mdst.join_columns([mdst.read_mdst(path) for path in inputs])
    joined = mdst.join_columns(parts)
    assert joined["event"].tolist() == whole["event"].tolist()
    assert joined["track"].to_list() == whole["track"].to_list()


def test_limit_below_one_event_is_said(
    products: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out = merge("merge-mdst", tmp_path, list(products.mdst.values())[:1], "--max-bytes", "100")
    assert code == Exit.USAGE
    assert "bytes with a single event, expected at most 100" in capsys.readouterr().err
    assert os.listdir(out.parent) == []


def test_histograms_are_the_sum_bin_by_bin(products: Any, tmp_path: Path) -> None:
    inputs = list(products.hist.values())
    code, out = merge("merge-hist", tmp_path, inputs)
    parts = [histograms.read_histograms(path) for path in inputs]
    total = histograms.read_histograms(out)
    assert code == 0
    assert total.keys() == parts[0].keys()
    for key, histogram in total.items():
        assert (histogram.values(flow=True) == sum(part[key].values(flow=True) for part in parts)).all()
    assert histograms.count_events(total) == sum(map(histograms.count_events, parts))


def test_dumps_are_joined_byte_by_byte_without_placeholders(
    products: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inputs = list(products.dump.values())
    code, out = merge("merge-dump", tmp_path, inputs)
    whole = [path.read_bytes() for path in inputs]
    assert code == 0
    assert whole.count(dump.PLACEHOLDER) == 1
    assert out.read_bytes() == b"".join(content for content in whole if content != dump.PLACEHOLDER)
    assert out.stat().st_size == sum(map(dump.event_bytes, inputs))
    events = sum(map(dump.count_events, inputs))
    assert dump.count_events(out) == events > 100
    assert f"Number of events saved to output : {events}" in capsys.readouterr().out


def test_nothing_but_placeholders_gives_a_placeholder(tmp_path: Path) -> None:
    inputs = [tmp_path / "a", tmp_path / "b"]
    for path in inputs:
        path.write_bytes(dump.PLACEHOLDER)
    code, out = merge("merge-dump", tmp_path, inputs)
    assert code == 0
    assert out.read_bytes() == dump.PLACEHOLDER


@pytest.mark.parametrize("verb", TOOLS)
@pytest.mark.parametrize("damage", ["cut", "empty", "other-kind", "missing", "directory"])
def test_damaged_input_makes_no_output(
    products: Any, tmp_path: Path, verb: str, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    good = list(getattr(products, TOOLS[verb]).values())[:2]
    bad = tmp_path / "bad"
    damages: dict[str, Callable[[], object]] = {
        "cut": lambda: bad.write_bytes(max((path.read_bytes() for path in good), key=len)[:-7]),
        "empty": lambda: bad.write_bytes(b""),
        "other-kind": lambda: bad.write_text(
            "no product at all, but long enough to be looked at twice\n" * 20
        ),
        "missing": lambda: None,
        "directory": bad.mkdir,
    }
    damages[damage]()
    code, out = merge(verb, tmp_path, [good[0], bad, good[1]])
    said = capsys.readouterr()
    assert code == (Exit.INPUT_MISSING if damage in ("missing", "directory") else Exit.INPUT_DAMAGED)
    assert str(bad) in said.err and said.err.count("\n") == 1
    assert "End of Job" not in said.out
    assert os.listdir(out.parent) == []


def test_root_file_without_its_mark_is_incomplete(
    products: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import uproot

    with uproot.recreate(tmp_path / "h.root") as opened:
        opened["n_tracks"] = hist.Hist.new.Reg(10, -0.5, 9.5).Double()
    code, _ = merge("merge-hist", tmp_path, [tmp_path / "h.root"])
    assert code == Exit.INPUT_DAMAGED
    assert "incomplete: no `complete` at its end" in capsys.readouterr().err


def changed(histograms_of: dict[str, Any], change: str) -> dict[str, Any]:
    other = dict(histograms_of)
    if change == "missing":
        del other["slope_x"]
    elif change == "more":
        other["slope_z"] = other["slope_x"]
    else:
        other["slope_x"] = hist.Hist.new.Reg(200, -0.05, 0.06).Double()
    return other


@pytest.mark.parametrize(
    ("change", "words"),
    [("missing", "other histograms than"), ("more", "slope_z"), ("axis", "slope_x has another axis than in")],
)
def test_only_like_histograms_are_summed(
    products: Any, tmp_path: Path, change: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    first = next(iter(products.hist.values()))
    other = changed(dict(histograms.read_histograms(first)), change)
    histograms.write_histograms(tmp_path / "other.root", other)
    code, out = merge("merge-hist", tmp_path, [first, tmp_path / "other.root"])
    said = capsys.readouterr().err
    assert code == Exit.INPUT_DAMAGED
    assert words in said and str(tmp_path / "other.root") in said
    assert os.listdir(out.parent) == []


def test_mdsts_of_other_planes_are_not_joined(
    products: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = next(iter(products.mdst.values()))
    columns = dict(mdst.read_mdst(first))
    mdst.write_mdst(tmp_path / "other.root", columns | {"pull": columns["pull"][:, :39]})
    code, _ = merge("merge-mdst", tmp_path, [first, tmp_path / "other.root"])
    assert code == Exit.INPUT_DAMAGED
    assert "different numbers of planes" in capsys.readouterr().err


def test_two_attempts_of_one_chunk_are_not_merged(
    products: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = next(iter(products.mdst.values()))
    (tmp_path / "mDST.a2.root").write_bytes(first.read_bytes())
    code, out = merge("merge-mdst", tmp_path, [first, tmp_path / "mDST.a2.root"])
    events = mdst.count_entries(first)
    assert code == Exit.INPUT_DAMAGED
    assert f"{events} events are there twice: run 274495, chunk 11001, event 0" in capsys.readouterr().err
    assert os.listdir(out.parent) == []


def test_an_mdst_with_an_event_less_is_whole_and_merges_with_an_event_less(
    products: Any, tmp_path: Path
) -> None:
    """What cross-check is for: each file is right in itself, only the sum is not."""
    first, second = list(products.mdst.values())[:2]
    columns = mdst.read_mdst(first)
    mdst.write_mdst(tmp_path / "less.root", mdst.slice_columns(columns, 0, len(columns["event"]) - 1))
    code, out = merge("merge-mdst", tmp_path, [tmp_path / "less.root", second])
    assert code == 0
    assert mdst.count_entries(out) == mdst.count_entries(first) + mdst.count_entries(second) - 1


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("", Exit.USAGE, "no input file named"),
        ("\n \n", Exit.USAGE, "no input file named"),
        ("x.root\n", Exit.USAGE, "inputs.txt:1: found 'x.root', expected another absolute path"),
        ("/a\n/b\n/a\n", Exit.USAGE, "inputs.txt:3: found '/a', expected another absolute path"),
        ("/a\udcff\n", Exit.INPUT_MISSING, "cannot read the input list"),
    ],
)
def test_input_lists(
    tmp_path: Path, text: str, code: Exit, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "inputs.txt").write_bytes(text.encode("utf-8", "surrogateescape"))
    out = tmp_path / "out"
    assert main(["merge-dump", "--inputs-from", str(tmp_path / "inputs.txt"), "--out", str(out)]) == code
    assert words in capsys.readouterr().err
    assert not out.exists()


def test_input_list_from_the_environment(
    products: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("PRODSYS_INPUT_LIST", raising=False)
    assert main(["merge-dump", "--out", str(tmp_path / "out")]) == Exit.USAGE
    assert "give --inputs-from or set PRODSYS_INPUT_LIST" in capsys.readouterr().err
    monkeypatch.setenv("PRODSYS_INPUT_LIST", str(listed(tmp_path, list(products.dump.values()))))
    assert main(["merge-dump", "--out", str(tmp_path / "out")]) == 0
    assert dump.count_events(tmp_path / "out") > 0
