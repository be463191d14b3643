"""The calibration data set: shape, determinism, one right constant per key and run, both files with the same rows."""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from simulators.payload.calibration_set import (
    MIB,
    Row,
    TooSmall,
    make_rows,
    render_sql,
    write_calibration_set,
)
from simulators.payload.calibration_text import CalibrationTextError, parse_payload, render_constants
from simulators.payload.constants import LEVELS, PlaneConstants, true_constants
from simulators.payload.detector import job_keys, other_keys, run_time_s, tracking_planes, typical_sigma_mm

RUNS = (274495, 274496, 274497)


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return make_rows(RUNS[0], len(RUNS), seed=5, size_bytes=8 * MIB)


def best(rows: list[Row], detector: str, ctype: str, time_s: int) -> Row:
    return max(
        (r for r in rows if (r.detector, r.ctype) == (detector, ctype) and r.t_from <= time_s < r.t_to),
        key=lambda row: row.version,
    )


def test_all_keys_are_there_once_per_interval_and_version(rows: list[Row]) -> None:
    assert {(row.detector, row.ctype) for row in rows} == set(job_keys()) | set(other_keys())
    assert len({(row.detector, row.ctype, row.t_from, row.version) for row in rows}) == len(rows)
    assert [row.payload_id for row in rows] == list(range(1, len(rows) + 1))
    assert 1 <= min(row.version for row in rows) < max(row.version for row in rows) <= 4


def test_intervals_of_a_key_touch_and_do_not_overlap(rows: list[Row]) -> None:
    intervals = defaultdict(set)
    for row in rows:
        intervals[row.detector, row.ctype].add((row.t_from, row.t_to))
    for found in intervals.values():
        ordered = sorted(found)
        assert all(start < end for start, end in ordered)
        assert all(left[1] == right[0] for left, right in pairwise(ordered))


def test_size_is_as_asked_for(rows: list[Row]) -> None:
    total = sum(len(row.content) for row in rows)
    assert abs(total - 8 * MIB) < 0.03 * 8 * MIB


def test_too_small_a_size_is_said(tmp_path: Path) -> None:
    with pytest.raises(TooSmall, match=r"3 runs need more than .* MiB, 1.0 MiB were asked for"):
        write_calibration_set(tmp_path, RUNS[0], 3, 5, MIB)
    assert not list(tmp_path.iterdir())


def test_highest_version_holds_the_constants_of_the_run_and_no_lower_one_does(rows: list[Row]) -> None:
    for plane in tracking_planes()[::7]:
        for run in RUNS:
            right = true_constants(5, run, plane)
            row = best(rows, plane.name, "align", run_time_s(run))
            fields = parse_payload(row.content, plane.name, "align", plane.strips)
            assert fields["offset_mm"] == right.offset_mm
            assert (fields["strip_um"] == right.strip_um).all()
            for other in rows:
                if (other.detector, other.ctype, other.t_from) == (plane.name, "align", row.t_from):
                    values = parse_payload(other.content, plane.name, "align", plane.strips)
                    assert (values["offset_mm"] == right.offset_mm) == (other.version == row.version)


def test_no_run_outside_the_range_has_constants(rows: list[Row]) -> None:
    for run in (RUNS[0] - 1, RUNS[-1] + 1):
        wanted = set(job_keys())
        time_s = run_time_s(run)
        assert not [r for r in rows if (r.detector, r.ctype) in wanted and r.t_from <= time_s < r.t_to]


def test_sixteen_runs_in_a_row_are_five_resolutions_apart_in_every_plane() -> None:
    for plane in tracking_planes():
        sigma = 1.1 * typical_sigma_mm(plane)
        offsets = sorted(true_constants(5, run, plane).offset_mm for run in range(274495, 274495 + LEVELS))
        assert np.diff(offsets).min() > 5 * sigma


def test_both_files_hold_the_same_rows_and_the_probe_tells(tmp_path: Path, rows: list[Row]) -> None:
    facts = write_calibration_set(tmp_path, RUNS[0], len(RUNS), 5, 8 * MIB)
    assert facts == json.loads((tmp_path / "calibrations.json").read_text())
    assert facts["run_range"] == [RUNS[0], RUNS[-1]]
    connection = sqlite3.connect(tmp_path / "calibrations.sqlite")
    (answer,) = connection.execute(facts["probe"]["sql"]).fetchone()
    assert str(answer) == facts["probe"]["expect"]
    read = connection.execute(
        "SELECT i.*, p.data FROM calib_iov i JOIN calib_payload p USING (payload_id) "
        "WHERE p.size = LENGTH(p.data) ORDER BY payload_id"
    ).fetchall()
    connection.close()
    assert [Row(*row) for row in read] == rows
    with (tmp_path / "calibrations.sql").open() as stream:
        assert list(render_sql(rows)) == list(stream)


def test_dump_can_be_streamed_statement_by_line(rows: list[Row]) -> None:
    for statement in render_sql(rows):
        assert statement.count("\n") == 1 and statement.endswith(";\n")
        assert len(statement) < 2 * MIB


def test_same_seed_same_set_other_seed_other_set(rows: list[Row]) -> None:
    assert make_rows(RUNS[0], len(RUNS), 5, 8 * MIB) == rows
    assert make_rows(RUNS[0], len(RUNS), 6, 8 * MIB) != rows


PLANE = tracking_planes()[0]


@pytest.fixture(scope="module")
def constants() -> PlaneConstants:
    return true_constants(5, RUNS[0], PLANE)


@pytest.mark.parametrize("ctype", ["align", "timing", "noise"])
def test_payload_text_round_trip(constants: PlaneConstants, ctype: str) -> None:
    text = render_constants(PLANE.name, ctype, 2, constants)
    for name, value in parse_payload(text, PLANE.name, ctype, PLANE.strips).items():
        assert np.all(value == getattr(constants, name))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (b"detector MM01X1__", b"detector MM02X1__", "detector: found 'MM02X1__', expected 'MM01X1__'"),
        (b"type align", b"type noise", "type: found 'noise', expected 'align'"),
        (b"strip_um 1024", b"strip_um 1023", "strip_um: found '1023', expected '1024'"),
        (b"offset_mm ", b"offset_cm ", "no number: 'offset_mm'"),
        (b"scale ", b"scale x", "no number"),
        (b" -", b" x", "no number"),
        (b" -", b"-", "no number|found 10.. values"),
    ],
)
def test_payload_of_another_key_or_damaged_is_refused(
    constants: PlaneConstants, old: bytes, new: bytes, words: str
) -> None:
    text = render_constants(PLANE.name, "align", 1, constants)
    assert old in text
    with pytest.raises(CalibrationTextError, match=words):
        parse_payload(text.replace(old, new, 1), PLANE.name, "align", PLANE.strips)


@pytest.mark.parametrize("part", [0, 1, 30, -1])
def test_cut_payload_is_refused(constants: PlaneConstants, part: int) -> None:
    lines = render_constants(PLANE.name, "align", 1, constants).split(b"\n")
    text = b"\n".join(lines[:5])[: part if part >= 0 else None]
    with pytest.raises(CalibrationTextError):
        parse_payload(text, PLANE.name, "align", PLANE.strips)
