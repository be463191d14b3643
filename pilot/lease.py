"""Who is in charge of a state directory: files `lease.<epoch>`, each with one maker; the highest wins (DESIGN 3)."""

from __future__ import annotations

import json
import os
import re
import secrets
import socket
from dataclasses import dataclass
from pathlib import Path

from pilot.files import link_new, read_bounded, write_new
from pilot.log import escaped

_NAME = re.compile(r"lease\.(\d{1,9})")
LEASE_MAX_BYTES = 4096  # own leases have about 200 bytes


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
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
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


def pid_space() -> str:
    """Name of the pid namespace: pids of two containers on one host say nothing about each other."""
    try:
        return os.readlink("/proc/self/ns/pid")
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
    if not _make(state_dir / f"lease.{epoch + 1}", host):
        return LeaseRefused("another daemon started at the same moment")
    return Lease(epoch + 1, host, older_host)


def _make(path: Path, host: str) -> bool:
    """True for exactly one maker. By link(2) of a whole file: a lease that is there can be read."""
    pid = os.getpid()
    content = {
        "host": host,
        "boot_id": boot_id(),
        "pid_space": pid_space(),
        "pid": pid,
        "start": process_start(pid),
    }
    private = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    try:
        write_new(private, json.dumps(content).encode())
        return link_new(private, path)
    finally:
        private.unlink(missing_ok=True)


def _read(path: Path) -> dict[str, object]:
    try:
        value = json.loads(read_bounded(path, LEASE_MAX_BYTES))
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _may_live(holder: dict[str, object], host: str) -> str | None:
    """Why the holder may still run, None if it is gone for certain."""
    pid, start = holder.get("pid"), holder.get("start")
    if type(pid) is not int or pid <= 0 or "host" not in holder:
        return "the newest lease cannot be read; if no other daemon runs, start with --take-over"
    if holder["host"] != host:
        owner = escaped(holder["host"], at_most=100)
        return f"the lease belongs to host {owner}; if that daemon is gone, start with --take-over"
    boot = boot_id()
    if not boot:
        return "this machine tells no boot id; if no other daemon runs, start with --take-over"
    if holder.get("boot_id") != boot:
        return None
    if holder.get("pid_space", pid_space()) != pid_space():
        return f"daemon {pid} may run in another container of this host; if not, start with --take-over"
    there = process_start(pid)
    if there is not None:
        return f"daemon {pid} on this host is running" if start in (there, None) else None
    if _hidden(pid):
        return f"daemon {pid} of another user may run on this host; if not, start with --take-over"
    return None


def _hidden(pid: int) -> bool:
    """Whether a process is there that /proc does not show (mounted with hidepid); a defunct one is shown."""
    if Path(f"/proc/{pid}").exists():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
