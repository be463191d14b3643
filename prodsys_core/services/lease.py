"""One tick at a time: a row that names its owner and until when. A dead owner on this host is taken over at once."""

import os
import socket
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from django.db import IntegrityError, transaction

from prodsys_core.models import Lease

NAME = "tick"


def own_name() -> str:
    """host:pid:start time of this process; start times tell a reused pid from its first holder."""
    return f"{socket.gethostname()}:{os.getpid()}:{process_start(os.getpid())}"


def process_start(pid: int) -> int | None:
    """Start time of a process in clock ticks since boot (field 22 of /proc/PID/stat); None if there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
        return int(text.rpartition(")")[2].split()[19])
    except (OSError, IndexError, ValueError):
        return None


def owner_gone(owner: str) -> bool:
    """True if the owner ran on this host and certainly runs no more."""
    try:
        host, pid, start = owner.rsplit(":", 2)
        return host == socket.gethostname() and process_start(int(pid)) != int(start)
    except ValueError:
        return False


def take_lease(owner: str, now: datetime, lease_s: float) -> str | None:
    """Take or renew the lease; None if it is ours now, else who has it."""
    until = now + timedelta(seconds=lease_s)
    try:
        with transaction.atomic():
            lease = Lease.objects.select_for_update().filter(name=NAME).first()
            if lease is None:
                Lease.objects.create(name=NAME, owner=owner, fence=1, until=until)
                return None
            if lease.owner != owner and lease.until > now and not owner_gone(lease.owner):
                return lease.owner
            fence = lease.fence + (lease.owner != owner)
            Lease.objects.filter(pk=lease.pk, fence=lease.fence).update(owner=owner, fence=fence, until=until)
    except IntegrityError:
        return "another tick that was a moment earlier"
    return None


class LeaseLost(Exception):
    """Somebody else runs the tick now; the text says who."""


def make_hold(owner: str, lease_s: float, clock: Callable[[], datetime]) -> Callable[[], None]:
    """A call that renews the lease of a long tick, four times in its length at most; raises LeaseLost."""
    renewed_at = clock()

    def hold() -> None:
        nonlocal renewed_at
        now = clock()
        if now - renewed_at >= timedelta(seconds=lease_s / 4):
            other = take_lease(owner, now, lease_s)
            if other is not None:
                raise LeaseLost(other)
            renewed_at = now

    return hold


def change_lease(owner: str, **columns: Any) -> None:
    """Say what the owner's tick has done, or give the lease back (`until` now), if it is still the owner's."""
    Lease.objects.filter(name=NAME, owner=owner).update(**columns)
