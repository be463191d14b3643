"""What the login node does to a daemon of this user and what it leaves it, for `pilot check` and `pilot status`."""

from __future__ import annotations

import contextlib
import os
import pwd
import resource
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from pilot.command import Completed, run_command
from pilot.configkeys import Config
from pilot.rotation.surroundings import Check, kills_user_processes, near, parse_quotas

LOGIND = ("/etc/systemd", "/usr/lib/systemd", "/run/systemd")
LINGER = "/var/lib/systemd/linger"
# `pilot status` has a short answer before it.
STATUS_WAIT_S = 3.0


def look_around(config: Config, pid: int) -> list[Check]:
    """What `pilot status` tells beside the daemon's own document. Waits for no filesystem: that is asked by commands.

    A daemon that has just ended has no limit.
    """
    found = [reaper(), *quotas((config.shared_dir, config.output_root), STATUS_WAIT_S)]
    with contextlib.suppress(OSError):
        found.insert(0, cpu_limit(pid))
    return found


def cpu_limit(pid: int) -> Check:
    """A daemon that runs for weeks uses hours of CPU time: with a limit the kernel ends it. Raises OSError."""
    soft, _ = resource.prlimit(pid, resource.RLIMIT_CPU)
    free = soft == resource.RLIM_INFINITY
    return Check(
        "no limit of CPU time (ulimit -t)", free, "" if free else f"ended after {soft} s of CPU time"
    )


def reaper() -> Check:
    """systemd may end all processes of a user with the last session."""
    texts = {}
    for folder in LOGIND:
        for path in (Path(folder) / "logind.conf", *sorted((Path(folder) / "logind.conf.d").glob("*.conf"))):
            with contextlib.suppress(OSError, UnicodeDecodeError):
                texts[str(path)] = path.read_text()
    what = "processes outlive the session"
    if not kills_user_processes(texts):
        return Check(what, True, "as far as systemd goes; a site may have a reaper of its own")
    stays = (Path(LINGER) / pwd.getpwuid(os.getuid()).pw_name).exists()
    return Check(what, stays, "KillUserProcesses=yes, and lingering is " + ("on" if stays else "off"))


def quotas(places: Sequence[str], wait_s: float) -> Iterator[Check]:
    """The user's quotas, where the machine has a command that tells them; `wait_s` for each."""
    user = pwd.getpwuid(os.getuid()).pw_name
    asked: list[tuple[str, ...]]
    if shutil.which("lfs"):
        asked = [("lfs", "quota", "-q", "-u", user, place) for place in sorted(set(places))]
    elif shutil.which("quota"):
        asked = [("quota", "-w")]
    else:
        return
    for argv in asked:
        reply = run_command(argv, timeout_s=wait_s, environment=dict(os.environ))
        if not isinstance(reply, Completed):
            yield Check(f"quota of {user}", True, f"not known: {argv[0]} gave no answer")
            continue
        for quota in parse_quotas(reply.stdout):
            reason = near(quota)
            yield Check(f"quota of {user} on {quota.filesystem}", reason is None, reason or "")


def nearest(path: Path) -> Path:
    """The path, or the directory above it that is there."""
    while not path.exists():
        path = path.parent
    return path
