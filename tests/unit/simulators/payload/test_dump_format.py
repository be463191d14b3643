"""Event dumps: complete ones are counted, cut ones are not, nothing selected is the 33-byte placeholder."""

from __future__ import annotations

from pathlib import Path

import pytest

from simulators.payload import dump

TRACK = (1.0, 2.0, 0.01, -0.02, 30.0, 36.5)


def render(run: int, events: int) -> bytes:
    return dump.render_dump(run, 11001, [(number, [TRACK] * 3) for number in range(events)])


def test_placeholder_is_the_33_bytes_of_the_grid() -> None:
    assert dump.PLACEHOLDER == b"PanDA message: the file is empty\n"
    assert len(dump.PLACEHOLDER) == 33
    assert dump.render_dump(1, 1, []) == dump.PLACEHOLDER


def test_dumps_are_counted_single_and_joined(tmp_path: Path) -> None:
    path = tmp_path / "d.raw"
    path.write_bytes(render(1, 2) + render(2, 3))
    assert dump.count_events(path) == 5
    assert dump.event_bytes(path) == path.stat().st_size
    assert not dump.is_placeholder(path)


def test_placeholder_adds_nothing(tmp_path: Path) -> None:
    path = tmp_path / "d.raw"
    path.write_bytes(dump.PLACEHOLDER)
    assert dump.is_placeholder(path)
    assert dump.count_events(path) == dump.event_bytes(path) == 0


@pytest.mark.parametrize("size", range(0, len(render(1, 2))))
def test_a_cut_dump_is_never_complete(tmp_path: Path, size: int) -> None:
    path = tmp_path / "d.raw"
    path.write_bytes(render(1, 2)[:size])
    with pytest.raises(dump.DumpError, match=r"d\.raw"):
        dump.count_events(path)


@pytest.mark.parametrize("tail", [b"\0", dump.PLACEHOLDER, b"EVNT"])
def test_foreign_bytes_after_a_dump_are_damage(tmp_path: Path, tail: bytes) -> None:
    path = tmp_path / "d.raw"
    path.write_bytes(render(1, 2) + tail)
    with pytest.raises(dump.DumpError):
        dump.count_events(path)


def test_a_record_less_in_a_segment_is_damage(tmp_path: Path) -> None:
    whole = render(1, 3)
    size = dump.RECORD.size + 3 * dump.TRACK.size
    path = tmp_path / "d.raw"
    path.write_bytes(whole[size:])
    with pytest.raises(dump.DumpError, match="2 records in a segment, its end says 3"):
        dump.count_events(path)
