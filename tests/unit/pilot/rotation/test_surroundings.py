"""What a login node does to a daemon: systemd's reaper, quotas, a limit of CPU time."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
from rig import Rig

from pilot.config import load_config
from pilot.configkeys import Config
from pilot.monitor.status import render_status, render_text
from pilot.multijob.recognise import Now
from pilot.rotation import loginnode
from pilot.rotation.surroundings import Check, Quota, kills_user_processes, near, parse_quotas

QUOTA_W = """Disk quotas for user me (uid 1000):
     Filesystem   space   quota   limit   grace   files   quota   limit   grace
     /dev/sda1   100000   90000  200000           1000       0   20000
fs:/home         95000*   90000   99000   6days    19500*  10000   20000   2days
"""
LFS_FULL = "/scratch  4085760  0  4096000  -  100  0  0  -\\n"
LFS = "/scratch  2048000  0  4096000  -  100  0  0  -\n"


def test_quotas_of_both_commands_are_read() -> None:
    assert parse_quotas(QUOTA_W) == [
        Quota("/dev/sda1", 100000, 200000, 1000, 20000),
        Quota("fs:/home", 95000, 99000, 19500, 20000),
    ]
    assert parse_quotas(LFS) == [Quota("/scratch", 2048000, 4096000, 100, 0)]
    assert parse_quotas("Disk quotas for user me (uid 1000): none\n") == []


@pytest.mark.parametrize(
    ("quota", "says"),
    [
        (Quota("/a", 900, 1000, 1, 0), None),
        (Quota("/a", 950 * 1024, 1000 * 1024, 1, 0), "950 of 1000 MiB"),
        (Quota("/a", 10, 0, 1, 0), None),
        (Quota("/a", 10, 0, 950, 1000), "950 of 1000 files"),
    ],
)
def test_a_quota_that_is_near_is_told(quota: Quota, says: str | None) -> None:
    found = near(quota)
    assert found is None if says is None else str(found).startswith(says)


@pytest.mark.parametrize(
    ("texts", "kills"),
    [
        ({}, False),
        ({"/etc/systemd/logind.conf": "[Login]\n#KillUserProcesses=yes\n"}, False),
        ({"/etc/systemd/logind.conf": "[Login]\nKillUserProcesses=yes\n"}, True),
        (
            {
                "/etc/systemd/logind.conf.d/50.conf": "KillUserProcesses=no\n",
                "/etc/systemd/logind.conf": "[Login]\nKillUserProcesses=yes\n",
            },
            False,
        ),
        (
            {
                "/etc/systemd/logind.conf.d/50.conf": "KillUserProcesses=no\n",
                "/usr/lib/systemd/logind.conf.d/60.conf": "KillUserProcesses = yes\n",
            },
            True,
        ),
    ],
)
def test_the_last_word_about_user_processes_counts(texts: dict[str, str], kills: bool) -> None:
    assert kills_user_processes(texts) is kills


LIMITED = Check("no limit of CPU time (ulimit -t)", False, "ended after 1800 s of CPU time")


@pytest.fixture
def limited() -> Iterator[subprocess.Popen[bytes]]:
    """A process with a limit of CPU time that its parent does not have."""
    words = [sys.executable, "-c", "import time; print(flush=True); time.sleep(600)"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE)
    resource.prlimit(process.pid, resource.RLIMIT_CPU, (1800, 3600))
    yield process
    process.kill()
    process.wait()


def test_a_limit_of_cpu_time_is_that_of_the_daemon_and_not_of_whoever_asks(
    limited: subprocess.Popen[bytes],
) -> None:
    assert loginnode.cpu_limit(limited.pid) == LIMITED
    assert loginnode.cpu_limit(os.getpid()).holds


def config_of(path: Path) -> Config:
    file = path / "pilot.yaml"
    file.write_text(
        "site: here\nstate_dir: /s\nshared_dir: /scratch/b\noutput_root: /scratch/a\nbatch: {server: sim}\n"
        'servers: [{name: panda, url: "http://127.0.0.1:9/", dialect: v1}]\n'
        "queues: [{name: long, server: panda, panda_queue: Q, batch_queue: normal, nodes: 2, slots: 1}]\n"
    )
    return load_config(file)


def test_status_tells_what_check_knows_and_waits_for_no_quota_that_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limited: subprocess.Popen[bytes]
) -> None:
    lfs = tmp_path / "lfs"
    lfs.write_text(f'#!/bin/sh\ntest "$5" = /scratch/b && exec sleep 600\nprintf "{LFS_FULL}"\n')
    lfs.chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(loginnode, "STATUS_WAIT_S", 0.5)
    found = loginnode.look_around(config_of(tmp_path), limited.pid)
    assert found[0] == LIMITED
    assert [check.detail for check in found[2:]] == [
        "3990 of 4000 MiB are used on /scratch",
        "not known: lfs gave no answer",
    ]
    rig = Rig()
    document = render_status(
        rig.state,
        rig.memory,
        rig.limits,
        (),
        Now("2026-11-26T00:00:00+00:00", 0.0),
        version="1",
        pid=limited.pid,
    )
    lines = render_text({**document, "login_node": [asdict(check) for check in found]}).splitlines()
    assert "login node: no limit of CPU time (ulimit -t): NO: ended after 1800 s of CPU time" in lines
    assert document["pid"] == limited.pid
    gone = loginnode.look_around(config_of(tmp_path), 2**22 + 1)
    assert LIMITED.what not in {check.what for check in gone}
