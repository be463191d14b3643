"""`pilot check`: is everything there that the config names? Asks, changes nothing that stays."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from pilot.batch.queues import unfit
from pilot.configkeys import Config
from pilot.credentials import FileCredentials
from pilot.files import link_new, write_new
from pilot.panda.legacy import NOT_TOLD
from pilot.ports import AllocationLeft, Credential, Failure, JobSource, Listing, Refused
from pilot.rotation.allocation import look_at_allocation
from pilot.rotation.loginnode import cpu_limit, nearest, quotas, reaper
from pilot.rotation.surroundings import Check
from pilot.rotation.wiring import (
    WiringError,
    load_caldb,
    load_experiment,
    make_batch,
    make_credentials,
    make_sources,
)

# A quota is asked for at a filesystem that may be slow, but `pilot check` has a person before it.
QUOTA_WAIT_S = 20.0


def check_environment(config: Config) -> list[Check]:
    """All checks, in the order in which a person would mend them."""
    checks = [_command(name) for name in config.batch.commands.model_dump().values()]
    for key in ("state_dir", "shared_dir", "output_root"):
        checks.append(_directory(key, Path(getattr(config, key)), config))
    places = [str(nearest(Path(path))) for path in (config.shared_dir, config.output_root)]
    checks.extend(quotas(places, QUOTA_WAIT_S))
    checks.append(_fencing(config))
    checks.extend(_allocation(config))
    checks.append(cpu_limit(os.getpid()))
    checks.append(reaper())
    python = Path(config.node.python)
    checks.append(
        Check(f"node.python {python}", os.access(python, os.X_OK), "" if python.exists() else "not there")
    )
    checks.append(_loads("experiment", lambda: load_experiment(config.experiment)))
    if config.caldb is not None:
        checks.append(_loads("caldb snapshot", lambda: load_caldb(config.caldb)))
        own = [queue for queue in config.queues if queue.caldb_snapshot is not None]
        checks.extend(
            _loads(f"caldb snapshot of queue {queue.name}", partial(load_caldb, config.caldb, queue))
            for queue in own
        )
    if all(check.holds for check in checks[:3]):
        checks.append(_batch(config))
        checks.extend(_batch_queues(config))
    checks.extend(_credential(name, item) for name, item in make_credentials(config).items())
    checks.extend(_server(name, source, config) for name, source in make_sources(config).items())
    return checks


def _command(name: str) -> Check:
    path = shutil.which(name)
    return Check(f"command {name}", path is not None, path or "not found in PATH")


def _directory(key: str, path: Path, config: Config) -> Check:
    there = nearest(path)
    if not os.access(there, os.W_OK | os.X_OK):
        return Check(f"{key} {path}", False, f"{there} is not writable")
    least = config.space
    found = os.statvfs(there)
    free_mib = found.f_bavail * found.f_frsize // 2**20
    inodes = found.f_favail if found.f_files else None
    detail = f"{free_mib} MiB free, at least {least.free_min_mib} wanted"
    if inodes is not None:
        detail += f"; {inodes} inodes, at least {least.free_inodes_min}"
    enough = free_mib >= least.free_min_mib and (inodes is None or inodes >= least.free_inodes_min)
    return Check(f"{key} {path}", enough, detail)


def _allocation(config: Config) -> Iterator[Check]:
    """What is left of the allocation, where a command is configured that tells it."""
    if not config.allocation.argv:
        return
    left = look_at_allocation(config.allocation)
    if not isinstance(left, AllocationLeft):
        yield Check("allocation left", False, left.reason)
        return
    detail = f"{left.node_h:.1f} node-hours, more than {config.allocation.warn_node_hours:g} wanted"
    yield Check("allocation left", left.node_h > config.allocation.warn_node_hours, detail)


def _fencing(config: Config) -> Check:
    """With weak fencing nothing depends on link(2) between hosts; else it must be exclusive at least here."""
    if config.protocol.fencing == "weak":
        detail = f"each start marks its round, waits {config.protocol.visible_s:g} s and looks"
        return Check("fencing is weak: link(2) on shared_dir is not asked for", True, detail)
    return _link(Path(config.shared_dir))


def _link(path: Path) -> Check:
    """link(2) must refuse an existing name on the filesystem of the bundle directories."""
    there = nearest(path)
    names = [there / f".link-check.{secrets.token_hex(6)}" for _ in range(3)]
    try:
        write_new(names[0], b"a")
        write_new(names[1], b"b")
        exclusive = link_new(names[0], names[2]) and not link_new(names[1], names[2])
        return Check("link(2) is exclusive on shared_dir", exclusive)
    except OSError as error:
        return Check("link(2) is exclusive on shared_dir", False, str(error.strerror))
    finally:
        for name in names:
            name.unlink(missing_ok=True)


def _loads(what: str, load: Callable[[], object]) -> Check:
    try:
        load()
    except WiringError as error:
        return Check(what, False, str(error))
    return Check(what, True)


def _batch(config: Config) -> Check:
    answer = make_batch(config).list_jobs(None)
    if isinstance(answer, Listing):
        return Check(f"batch system {config.batch.server}", True, f"{len(answer.jobs)} batch jobs listed")
    return Check(f"batch system {config.batch.server}", False, _reason(answer))


def _batch_queues(config: Config) -> Iterator[Check]:
    """Each batch queue of the configuration: there, open, and large enough for the bundles."""
    answer = make_batch(config).list_queues()
    if not isinstance(answer, tuple):
        yield Check("batch queues", False, _reason(answer))
        return
    known = {queue.name: queue for queue in answer}
    for queue in config.queues:
        what = f"batch queue {queue.batch_queue} (queue {queue.name})"
        found = known.get(queue.batch_queue)
        if found is None:
            yield Check(what, False, f"not there; known: {', '.join(sorted(known))}")
        else:
            reason = unfit(found, queue.nodes, queue.walltime.max_s)
            yield Check(what, reason is None, reason or "")


def _credential(name: str, credential: FileCredentials) -> Check:
    found = credential.current()
    what = f"credential of server {name}"
    if not isinstance(found, Credential):
        return Check(what, False, _reason(found))
    return Check(what, found.ends_at > datetime.now(UTC), f"ends {found.ends_at:%Y-%m-%d %H:%M:%S} UTC")


def _reason(failure: Failure) -> str:
    return f"{type(failure).__name__.lower()}: {failure.reason}"


def _server(name: str, source: JobSource, config: Config) -> Check:
    queue = next((queue.panda_queue for queue in config.queues if queue.server == name), None)
    if queue is None:
        return Check(f"server {name}", True, "no queue uses it")
    answer = source.queue_depth(queue)
    if isinstance(answer, int):
        return Check(f"server {name}", True, f"{answer} jobs activated in {queue}")
    if isinstance(answer, Refused) and answer.code == NOT_TOLD:
        return Check(f"server {name}", True, answer.reason)
    return Check(f"server {name}", False, _reason(answer))
