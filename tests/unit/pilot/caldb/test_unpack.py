"""A snapshot on its way to the node: when the server may start, and what it is ended for."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import tarfile
import threading
from pathlib import Path

import pytest

from pilot.caldb.unpack import KeeperFailed, copy_snapshot, unpack_snapshot


def pack(path: Path, *names: str) -> Path:
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
        for name in names:
            entry = tarfile.TarInfo(name)
            if name.endswith("/"):
                entry.type = tarfile.DIRTYPE
                tar.addfile(entry)
            else:
                entry.size = len(name)
                tar.addfile(entry, io.BytesIO(name.encode()))
    return path


@pytest.mark.parametrize(
    ("names", "there"),
    [
        (
            ("aria_log", "mysql/", "mysql/db.MYD", "calib/", "calib/a.MYD", "calib/b.MYD"),
            [["aria_log", "mysql"]],
        ),
        (("aria_log", "calib/", "calib/a.MYD", "mysql/", "mysql/db.MYD"), []),
        (("aria_log", "mysql/", "mysql/db.MYD"), []),
    ],
)
def test_the_server_may_start_once_when_the_system_tables_are_there_and_come_first(
    tmp_path: Path, names: tuple[str, ...], there: list[list[str]]
) -> None:
    path, target = pack(tmp_path / "t.tar", *names), tmp_path / "dd"
    seen: list[list[str]] = []
    found = unpack_snapshot(
        str(path), str(target), lambda: seen.append(sorted(item.name for item in target.iterdir()))
    )
    assert seen == there
    assert found.wait() == hashlib.sha256(path.read_bytes()).hexdigest()
    assert all((target / name).read_text() == name for name in names if not name.endswith("/"))


def test_what_follows_the_end_does_not_fill_the_memory(tmp_path: Path) -> None:
    path = pack(tmp_path / "t.tar", "mysql/", "calib/")
    with path.open("ab") as file:
        file.truncate(path.stat().st_size + 5_000_000)
    with pytest.raises(KeeperFailed, match="bytes follow its end"):
        unpack_snapshot(str(path), str(tmp_path / "dd"))


def no_splice(*_: object) -> int:
    raise OSError(errno.EINVAL, "Invalid argument")


def test_a_filesystem_that_cannot_splice_is_read_and_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = pack(tmp_path / "t.tar", "mysql/", "mysql/db.MYD", "calib/", "calib/a.MYD")
    monkeypatch.setattr(os, "sendfile", no_splice)
    found = unpack_snapshot(str(path), str(tmp_path / "dd"))
    assert found.wait() == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (tmp_path / "dd/calib/a.MYD").read_text() == "calib/a.MYD"


def test_what_the_server_changes_while_it_starts_is_summed_as_it_was_packed(tmp_path: Path) -> None:
    path = pack(tmp_path / "t.tar", "aria_log", "mysql/", "mysql/db.MYD", "calib/", "calib/a.MYD")
    target = tmp_path / "dd"
    found = unpack_snapshot(str(path), str(target), lambda: (target / "aria_log").unlink())
    assert found.wait() == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_copy_that_differs_has_another_sum(tmp_path: Path) -> None:
    path, started = pack(tmp_path / "t.tar", "calib/", "calib/a.MYD"), threading.Event()
    right = hashlib.sha256(path.read_bytes()).hexdigest()
    path.write_bytes(path.read_bytes().replace(b"calib/a.MYD" + bytes(501), b"calib/b.MYD" + bytes(501)))
    found = copy_snapshot(str(path), str(tmp_path / "copy"))
    found.call_at_end(started.set)
    assert started.wait(30)
    assert found.known() == hashlib.sha256((tmp_path / "copy").read_bytes()).hexdigest() != right


@pytest.mark.parametrize("left", [0.3, 0.8])
def test_a_truncated_snapshot_is_told(tmp_path: Path, left: float) -> None:
    path = pack(tmp_path / "t.tar", "mysql/", "mysql/db.MYD", "calib/", "calib/a.MYD")
    path.write_bytes(path.read_bytes()[: int(2560 * left)])
    with pytest.raises(KeeperFailed, match=r"t\.tar is truncated"):
        unpack_snapshot(str(path), str(tmp_path / "dd"))


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x"])
def test_nothing_is_written_outside_the_directory(tmp_path: Path, name: str) -> None:
    path = pack(tmp_path / "t.tar", "aria_log", name)
    with pytest.raises(KeeperFailed, match="outside"):
        unpack_snapshot(str(path), str(tmp_path / "dd"))
    assert sorted(item.name for item in tmp_path.iterdir()) == ["dd", "t.tar"]
