"""Whatever part of a file is missing or changed: one known error, never a traceback, never a wrong count."""

from __future__ import annotations

import os
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from simulators.payload import dump, histograms, mdst, raw
from simulators.payload.constants import true_constants
from simulators.payload.detector import tracking_planes
from simulators.payload.fit import Tracks, fit_tracks
from simulators.payload.generation import Chunk, render_chunk
from simulators.payload.rootfiles import RootFileError

SETTINGS = settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
FRACTION = st.floats(0, 1, exclude_max=True)


@cache
def products() -> dict[str, bytes]:
    """Content of one whole file of each kind, from a chunk of 60 events. No fixture: its bytes fill no report."""
    with tempfile.TemporaryDirectory() as name:
        return make_products(Path(name))


def make_products(directory: Path) -> dict[str, bytes]:
    (directory / "x.raw").write_bytes(render_chunk(Chunk(274495, 11001, 60), seed=5))
    events = raw.read_events(directory / "x.raw")
    constants = {plane.name: true_constants(5, 274495, plane) for plane in tracking_planes()}
    tracks: Tracks = fit_tracks(events, constants)
    mdst.write_mdst(directory / "m.root", mdst.columns_of(events.header, tracks))
    histograms.write_histograms(directory / "h.root", histograms.fill_histograms(events.header, tracks))
    dumped = dump.render_dump(274495, 11001, [(n, [(1.0, 2.0, 3.0, 4.0, 5.0, 6.0)] * 3) for n in range(5)])
    return {
        "raw": (directory / "x.raw").read_bytes(),
        "mdst": (directory / "m.root").read_bytes(),
        "hist": (directory / "h.root").read_bytes(),
        "dump": dumped,
    }


def place(content: bytes, fraction: float) -> int:
    return int(len(content) * fraction)


def test_undamaged_files_are_read(tmp_path: Path) -> None:
    for name, content in products().items():
        (tmp_path / name).write_bytes(content)
    assert raw.read_header(tmp_path / "raw").events == 60
    assert mdst.count_entries(tmp_path / "mdst") == 60
    assert histograms.count_events(histograms.read_histograms(tmp_path / "hist")) == 60
    assert dump.count_events(tmp_path / "dump") == 5


@SETTINGS
@given(fraction=FRACTION)
def test_a_cut_file_is_never_complete(tmp_path: Path, fraction: float) -> None:
    for name, content in products().items():
        (tmp_path / name).write_bytes(content[: place(content, fraction)])
    with pytest.raises(raw.RawFileError):
        raw.read_events(tmp_path / "raw")
    with pytest.raises(RootFileError):
        mdst.read_mdst(tmp_path / "mdst")
    with pytest.raises(RootFileError):
        histograms.read_histograms(tmp_path / "hist")
    with pytest.raises(dump.DumpError):
        dump.count_events(tmp_path / "dump")


@SETTINGS
@given(fraction=FRACTION, bit=st.integers(0, 7))
def test_a_changed_bit_of_a_raw_file_is_always_found(tmp_path: Path, fraction: float, bit: int) -> None:
    content = bytearray(products()["raw"])
    content[place(content, fraction)] ^= 1 << bit
    (tmp_path / "raw").write_bytes(content)
    with pytest.raises(raw.RawFileError):
        raw.read_events(tmp_path / "raw")


@SETTINGS
@given(fraction=FRACTION, bit=st.integers(0, 7))
def test_a_changed_bit_of_a_root_file_is_one_known_error_or_no_harm(
    tmp_path: Path, fraction: float, bit: int
) -> None:
    for name in ("mdst", "hist"):
        content = bytearray(products()[name])
        content[place(content, fraction)] ^= 1 << bit
        (tmp_path / name).write_bytes(content)
    try:
        assert len(mdst.read_mdst(tmp_path / "mdst")["event"]) == 60
    except RootFileError as error:
        assert "mdst" in str(error) and "\n" not in str(error)
    try:
        histograms.read_histograms(tmp_path / "hist")
    except RootFileError as error:
        assert "hist" in str(error) and "\n" not in str(error)


@SETTINGS
@given(
    per_event=st.lists(st.integers(0, 6), max_size=12),
    seed=st.integers(0, 2**32 - 1),
    run=st.integers(0, 2**32 - 1),
    chunk=st.integers(0, 2**32 - 1),
)
def test_any_hits_come_back_as_written(
    tmp_path: Path, per_event: list[int], seed: int, run: int, chunk: int
) -> None:
    random = np.random.default_rng(seed)
    hits = np.empty(sum(per_event), dtype=raw.HIT_DTYPE)
    hits["plane"] = random.integers(0, 40, len(hits))
    hits["channel"] = random.integers(0, 2**16, len(hits))
    hits["time"] = random.integers(0, 2**16, len(hits))
    counts = np.array(per_event, dtype="i8")
    (tmp_path / "raw").write_bytes(raw.render_raw(run, chunk, seed, tracking_planes(), counts, hits))
    events = raw.read_events(tmp_path / "raw")
    assert (events.header.run, events.header.chunk, events.header.seed) == (run, chunk, seed)
    assert events.hit_counts.tolist() == per_event
    for name in ("plane", "channel", "time"):
        assert getattr(events, name).tolist() == hits[name].tolist()
    os.unlink(tmp_path / "raw")
