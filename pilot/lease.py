"""Who is in charge of a state directory: exclusive-create files `lease.<epoch>`, the highest epoch wins (DESIGN 3)."""

from __future__ import annotations

import json
import os
import re
import socket
from dataclasses import dataclass
from pathlib import Path

from pilot.files import sync_directory, write_new

_NAME = re.compile(r"lease\.(\d{1,9})")


@dataclass(frozen=True, slots=True)
class Lease:
    """The lease that this process holds. `older_host`: the host of the lease before, None for the first."""

    epoch: int
    host: str
    older_host: str | None


@dataclass(frozen=True, slots=True)
class LeaseRefused:
    """Another daemon may be alive; `reason` says which and what to do."""

    reason: str


def process_start(pid: int) -> int | None:
    """Start time of a live process in clock ticks since boot (field 22 of its stat), None if gone or defunct."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return None if fields[0] == "Z" else int(fields[19])


def boot_id() -> str:
    """Changes with every boot of this machine."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def highest_epoch(state_dir: Path) -> int:
    """The highest epoch that has a lease, 0 for none. Raises OSError."""
    found = [int(match.group(1)) for name in os.listdir(state_dir) if (match := _NAME.fullmatch(name))]
    return max(found, default=0)


def take_lease(state_dir: Path, *, take_over: bool = False) -> Lease | LeaseRefused:
    """Make the next lease if nobody else is in charge. Raises OSError.

    The holder of the newest lease is gone for certain only on this host (its pid with its start time, this boot).
    A lease of another host needs `take_over`.
    """
    epoch = highest_epoch(state_dir)
    host = socket.gethostname()
    older_host = None
    if epoch:
        holder = _read(state_dir / f"lease.{epoch}")
        older_host = str(holder.get("host", "?"))
        if not take_over and (reason := _may_live(holder, host)) is not None:
            return LeaseRefused(reason)
    content = {"host": host, "boot_id": boot_id(), "pid": os.getpid(), "start": process_start(os.getpid())}
    try:
        write_new(state_dir / f"lease.{epoch + 1}", json.dumps(content).encode())
    except FileExistsError:
        return LeaseRefused("another daemon started at the same moment")
    sync_directory(state_dir)
    return Lease(epoch + 1, host, older_host)


def _read(path: Path) -> dict[str, object]:
    try:
        value = json.loads(path.read_bytes())
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _may_live(holder: dict[str, object], host: str) -> str | None:
    """Why the holder may still run, None if it is gone for certain."""
    if not holder:
        return "the newest lease cannot be read; if no other daemon runs, start with --take-over"
    if holder.get("host") != host:
        return (
            f"the lease belongs to host {holder.get('host')}; if that daemon is gone, start with --take-over"
        )
    if holder.get("boot_id") != boot_id():
        return None
    pid, start = holder.get("pid"), holder.get("start")
    if isinstance(pid, int) and process_start(pid) == start:
        return f"daemon {pid} on this host is running"
    return None
