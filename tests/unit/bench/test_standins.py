"""The stand-ins of a measurement: slow on order, and gone with it."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

import pytest

from bench.standins import write_commands


def site(path: Path) -> Path:
    directory = path / "site"
    directory.mkdir()
    (directory / "listing.xml").write_text("<Data/>")
    write_commands(directory)
    return directory


def test_a_hung_command_ends_with_the_measurement(tmp_path: Path) -> None:
    directory = site(tmp_path)
    (directory / "qstat_s").write_text("600")
    qstat = subprocess.Popen([directory / "qstat"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    with pytest.raises(subprocess.TimeoutExpired):
        qstat.wait(1.5)
    assert (directory / "listings").exists()
    shutil.rmtree(directory)
    assert qstat.wait(30) is not None


def test_without_an_order_nobody_waits_and_an_order_of_seconds_is_kept(tmp_path: Path) -> None:
    directory = site(tmp_path)
    assert subprocess.run([directory / "qstat"], capture_output=True, text=True).stdout == "<Data/>"
    (directory / "qsub_s").write_text("1")
    began = time.monotonic()
    assert subprocess.run([directory / "qsub"], stderr=subprocess.DEVNULL).returncode == 159
    assert time.monotonic() - began >= 1.0
