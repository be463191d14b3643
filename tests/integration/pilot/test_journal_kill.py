"""kill -9 of the process that writes the journal, again and again on one state directory."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

from pilot.journal import FileStore
from pilot.lease import highest_epoch

WRITER = Path(__file__).with_name("journal_writer.py")
ROOT = Path(__file__).parents[3]
KILLS = 12


def test_after_kill_9_every_durable_record_is_there_once_and_in_order(tmp_path: Path) -> None:
    draw = random.Random(20180905)
    known = 0
    for epoch in range(1, KILLS + 1):
        durable = _write_until_killed(
            tmp_path, known, size=draw.choice([1, 7, 50]), commits=draw.randint(1, 60)
        )
        found = [record["n"] for record in FileStore(tmp_path, epoch).load()]
        assert found == list(range(len(found)))
        assert len(found) >= durable
        assert highest_epoch(tmp_path) == epoch
        known = len(found)
    assert known > KILLS


def _write_until_killed(state_dir: Path, first: int, *, size: int, commits: int) -> int:
    """Kill the writer while it goes on after so many commits; the number of records that it had called durable."""
    writer = subprocess.Popen(
        [sys.executable, str(WRITER), str(state_dir), str(first), str(size)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert writer.stdout is not None
    with writer.stdout as told:
        lines = [told.readline() for _ in range(commits)]
        writer.kill()
        lines += told.readlines()
    assert writer.wait(30) == -9
    return max(int(line) for line in lines if line.endswith(b"\n"))
