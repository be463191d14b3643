"""A snapshot on its way to the node: when the server may start, and what it is ended for."""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path

import pytest

from pilot.caldb.unpack import KeeperFailed, unpack_snapshot


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


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x"])
def test_nothing_is_written_outside_the_directory(tmp_path: Path, name: str) -> None:
    path = pack(tmp_path / "t.tar", "aria_log", name)
    with pytest.raises(KeeperFailed, match="outside"):
        unpack_snapshot(str(path), str(tmp_path / "dd"))
    assert sorted(item.name for item in tmp_path.iterdir()) == ["dd", "t.tar"]
