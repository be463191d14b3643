"""The journal among faults of the disk and a second daemon: nothing counts that was not answered `Appended`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pilot.journal import FileStore
from pilot.ports import Appended


def record(number: int) -> dict[str, object]:
    return {"e": "x", "n": number}


def test_a_lease_made_while_the_records_become_durable_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lease.1").touch()
    store = FileStore(tmp_path, 1)
    real = os.fdatasync

    def overtaken(fd: int) -> None:
        real(fd)
        (tmp_path / "lease.2").touch()

    monkeypatch.setattr(os, "fdatasync", overtaken)
    assert store.append(1, [record(0)]) == Appended(1, 2)
