"""What a login node does to a daemon: systemd's reaper, quotas, a limit of CPU time."""

from __future__ import annotations

import resource

import pytest

from pilot.rotation import checks
from pilot.rotation.surroundings import Quota, kills_user_processes, near, parse_quotas

QUOTA_W = """Disk quotas for user me (uid 1000):
     Filesystem   space   quota   limit   grace   files   quota   limit   grace
     /dev/sda1   100000   90000  200000           1000       0   20000
fs:/home         95000*   90000   99000   6days    19500*  10000   20000   2days
"""
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


def test_a_limit_of_cpu_time_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks.resource, "getrlimit", lambda what: (1800, resource.RLIM_INFINITY))
    assert checks._cpu_limit() == checks.Check(
        "no limit of CPU time (ulimit -t)", False, "ended after 1800 s of CPU time"
    )
