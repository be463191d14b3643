"""Raw files: what is written is read, and what is damaged is said to be."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from simulators.payload import raw
from simulators.payload.constants import true_constants
from simulators.payload.detector import job_keys, other_keys, run_time_s, tracking_planes
from simulators.payload.generation import Chunk, plan_chunks, render_chunk, write_raw_files

CHUNK = Chunk(run=274495, chunk=11001, events=300)


@pytest.fixture(scope="module")
def content() -> bytes:
    return render_chunk(CHUNK, seed=5)


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_header_and_events_come_back(tmp_path: Path, content: bytes) -> None:
    path = written(tmp_path / "x.raw", content)
    header = raw.read_header(path)
    assert (header.run, header.chunk, header.events, header.blocks) == (274495, 11001, 300, 2)
    assert header.planes == tracking_planes()
    events = raw.read_events(path)
    assert events.header == header
    assert len(events.hit_counts) == 300
    assert len(events.plane) == len(events.channel) == len(events.time) == events.hit_counts.sum() > 300 * 30
    assert set(events.plane.tolist()) == set(range(40))


def test_zero_event_file_is_a_whole_file(tmp_path: Path) -> None:
    path = written(tmp_path / "x.raw", render_chunk(Chunk(274495, 11013, 0), seed=5))
    events = raw.read_events(path)
    assert events.header.events == events.header.blocks == len(events.hit_counts) == len(events.plane) == 0


def flip(place: int) -> Callable[[bytes], bytes]:
    return lambda content: content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


def cut(size: int) -> Callable[[bytes], bytes]:
    return lambda content: content[:size]


HEADER_END = raw.HEADER.size + 40 * raw.PLANE.size + raw.CRC.size
DAMAGES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (cut(0), "not a raw file"),
    "root-file": (lambda content: b"root" + content[4:], "not a raw file"),
    "half-a-header": (cut(20), "truncated in the header"),
    "no-planes": (cut(raw.HEADER.size), "truncated in the header"),
    "other-version": (lambda content: content[:8] + b"\x09\0" + content[10:], "version 9, expected 1"),
    "run-changed": (flip(12), "damaged header"),
    "plane-changed": (flip(raw.HEADER.size + 3), "damaged header"),
    "no-block": (cut(HEADER_END), "truncated in block 1 of 2"),
    "block-magic": (flip(HEADER_END), "damaged block 1 of 2"),
    "hit-changed": (flip(HEADER_END + 1000), "damaged block 1 of 2: crc"),
    "half-a-block": (cut(HEADER_END + 1000), "truncated in block 1 of 2"),
    "no-trailer": (lambda content: content[: -raw.TRAILER.size], "truncated in the trailer"),
    "trailer-changed": (flip(-raw.TRAILER.size + 5), "damaged trailer"),
    "bytes-after": (lambda content: content + b"\0", "bytes after the trailer"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_named_with_file_and_place(tmp_path: Path, content: bytes, name: str) -> None:
    damage, words = DAMAGES[name]
    path = written(tmp_path / "cdr11001-274495.raw", damage(content))
    with pytest.raises(raw.RawFileError, match=words) as caught:
        raw.read_events(path)
    assert str(path) in str(caught.value)


def test_blocks_in_another_order_are_not_the_file(tmp_path: Path) -> None:
    whole = render_chunk(Chunk(274495, 11001, 512), seed=5)
    first = raw.BLOCK.unpack_from(whole, HEADER_END)
    size = raw.BLOCK.size + first[2] * 2 + first[3] * raw.HIT_BYTES
    blocks = whole[HEADER_END : -raw.TRAILER.size]
    swapped = whole[:HEADER_END] + blocks[size:] + blocks[:size] + whole[-raw.TRAILER.size :]
    with pytest.raises(raw.RawFileError, match="expected b'EPBK' with up to 256 from 0"):
        raw.read_events(written(tmp_path / "x.raw", swapped))


def test_header_is_read_without_numpy_and_uproot(tmp_path: Path, content: bytes) -> None:
    path = written(tmp_path / "x.raw", content)
    program = (
        "import sys; from simulators.payload import raw, trace, dump; raw.read_header(sys.argv[1]);"
        "sys.exit(any(name in sys.modules for name in ('numpy', 'uproot', 'mysql')))"
    )
    subprocess.run(
        [sys.executable, "-c", program, str(path)], check=True, env=dict(os.environ), cwd=Path.cwd()
    )


def test_counts_that_do_not_add_up_are_not_written() -> None:
    hits = np.zeros(3, dtype=raw.HIT_DTYPE)
    with pytest.raises(ValueError, match="3 hits, 4 counted"):
        raw.render_raw(1, 1, 1, tracking_planes(), np.array([2, 2]), hits)


def test_same_seed_same_bytes_other_seed_other_bytes(content: bytes) -> None:
    assert render_chunk(CHUNK, seed=5) == content
    assert render_chunk(CHUNK, seed=6) != content


def test_no_constant_stands_in_a_raw_file(content: bytes) -> None:
    """Neither the constants nor the seed that they come from: the header's seed is the chunk's own."""
    header_seed = raw.HEADER.unpack_from(content)[-1]
    assert header_seed != 5
    for plane in tracking_planes()[:3]:
        constants = true_constants(5, 274495, plane)
        assert str(constants.offset_mm).encode() not in content
        assert np.float64(constants.offset_mm).tobytes() not in content
        assert np.float32(constants.offset_mm).tobytes() not in content


def test_plan_has_all_chunks_one_quiet_and_the_zero_event_files() -> None:
    chunks = plan_chunks(274495, 3, 12, 200, 3000, 1, seed=7)
    assert len(chunks) == 37
    assert sum(chunk.quiet for chunk in chunks) == 1
    assert [chunk.chunk for chunk in chunks if not chunk.events] == [11013]
    assert all(200 <= chunk.events <= 3000 for chunk in chunks if chunk.events)
    assert len({(chunk.run, chunk.chunk) for chunk in chunks}) == 37
    assert chunks == tuple(sorted(chunks, key=lambda one: (one.run, one.chunk)))


def test_catalogue_says_what_the_headers_say(tmp_path: Path) -> None:
    chunks = plan_chunks(274495, 2, 2, 5, 9, 1, seed=1)
    size = write_raw_files(tmp_path, tmp_path / "catalogue.txt", chunks, seed=1)
    lines = [line.split() for line in (tmp_path / "catalogue.txt").read_text().splitlines()]
    assert len(lines) == 5
    for run, name, events in lines:
        found = raw.FILE_NAME.match(name)
        header = raw.read_header(tmp_path / name)
        assert found and (run, found["chunk"]) == (f"{header.run:06d}", f"{header.chunk:05d}")
        assert int(events) == header.events
    assert size == sum((tmp_path / name).stat().st_size for _, name, _ in lines)
    assert not list(tmp_path.glob(".*"))


def test_the_detector_has_the_measured_shape() -> None:
    keys = job_keys() + other_keys()
    assert len(job_keys()) == 120
    assert len(set(keys)) == len(keys) == 363
    assert len({detector for detector, _ in keys}) == 218
    assert all(len(detector) == 8 for detector, _ in keys)
    assert run_time_s(274496) > run_time_s(274495)
