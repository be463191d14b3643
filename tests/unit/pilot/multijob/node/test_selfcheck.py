"""Whether a node can work at all."""

from __future__ import annotations

import os
import time

import pytest

from pilot.multijob.node import selfcheck
from pilot.multijob.node.selfcheck import probe_node

ENVIRONMENT = {"PATH": os.defpath}


def asked(tmp_path, argv, limit_s=20.0, wait=lambda left_s: time.sleep(0.005) is None):
    here = os.getcwd()
    try:
        return probe_node(str(tmp_path), argv, ENVIRONMENT, limit_s, wait)
    finally:
        os.chdir(here)


@pytest.mark.parametrize("argv", [[], ["true"], ["sh", "-c", "exec sh -c 'exit 0'"]])
def test_a_node_that_writes_and_runs_is_fit_and_nothing_stays(tmp_path, argv):
    assert asked(tmp_path, argv) is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["sh", "-c", "echo 'no \x1b mount' >&2; exit 3"], "sh ended with exit code 3: no \\x1b mount\\n"),
        (["sh", "-c", "kill -9 $$"], "sh ended with signal 9: "),
        (["no-such-program"], "[Errno 2] No such file or directory: 'no-such-program'"),
    ],
)
def test_a_probe_that_fails_says_why(tmp_path, argv, said):
    assert asked(tmp_path, argv) == said
    assert list(tmp_path.iterdir()) == []


def test_a_probe_that_hangs_is_ended(tmp_path):
    assert asked(tmp_path, ["sleep", "3600"], limit_s=0.05) == "sleep did not end in 0 s"
    assert asked(tmp_path, ["sleep", "3600"], wait=lambda left_s: False) == "sleep did not end in 20 s"


def test_a_directory_that_loses_what_was_written_is_not_fit(tmp_path, monkeypatch):
    monkeypatch.setattr(selfcheck, "write_all", lambda fd, content: os.write(fd, content[:1000]))
    assert "is not what is read" in asked(tmp_path, [])
    assert "No such file" in asked(tmp_path / "missing", [])
