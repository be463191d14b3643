"""One directory, one keeper, one server: however many begin at once."""

from __future__ import annotations

import fcntl
import json
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from snapkit import PROBE, no_server, write_dump

from pilot.caldb.snapshot import build_snapshot, manifest_caldb
from pilot.multijob.agentfile import build_agent_file

pytestmark = pytest.mark.skipif(no_server, reason="mariadbd is not installed")
AT_ONCE = 6


def first_of(keeper: subprocess.Popen[str], kind: str) -> dict[str, Any]:
    """The first line of this kind that a keeper says."""
    assert keeper.stdout is not None
    return next(said for said in map(json.loads, keeper.stdout) if said["kind"] == kind)


def test_of_keepers_that_begin_at_once_one_has_the_server_and_all_end_with_the_last_user(
    tmp_path: Path,
) -> None:
    snapshot = build_snapshot(write_dump(tmp_path), tmp_path / "calib", identity="c", probe_sql=PROBE)
    manifest = {
        **{"schema": 1, "bundle_id": "b", "python": sys.executable, "agent_file": "x", "walltime_s": 60},
        **{"local_dir": "/dev/shm", "slots": 1, "launch": [[]], "environment": {}, "kinds": {}, "nodes": []},
        "caldb": manifest_caldb(snapshot),
    }
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    words = [sys.executable, "-I", "-S", str(build_agent_file(tmp_path)), "keeper", "--bundle", str(tmp_path)]
    with tempfile.TemporaryDirectory(prefix="ep-", dir="/dev/shm") as local:
        directory = Path(local) / "db"
        directory.mkdir(mode=0o700)
        with (directory / "users.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH)
            argv = [*words, "--directory", str(directory)]
            keepers = [subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) for _ in range(AT_ONCE)]
            said = [first_of(keeper, "ready") for keeper in keepers]
            for keeper, word in zip(keepers, said, strict=True):
                if "shared" in word:  # its agent lets go of the server
                    keeper.terminate()
        for keeper in keepers:
            keeper.communicate(timeout=30)
        ends = sorted(keeper.returncode for keeper in keepers)
        assert len({word["pid"] for word in said}) == 1
        assert sorted("shared" in word for word in said) == [False] + [True] * (AT_ONCE - 1)
        assert ends == [-signal.SIGTERM] * (AT_ONCE - 1) + [0]
        assert not directory.exists()
