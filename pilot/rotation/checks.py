"""`pilot check`: is everything there that the config names? Asks, changes nothing that stays."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pilot.configkeys import Config
from pilot.credentials import FileCredentials
from pilot.files import link_new, write_new
from pilot.panda.legacy import NOT_TOLD
from pilot.ports import Credential, Failure, JobSource, Listing, Refused
from pilot.rotation.wiring import (
    WiringError,
    load_caldb,
    load_experiment,
    make_batch,
    make_credentials,
    make_sources,
)

FREE_MIN_MIB = 1024


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at."""

    what: str
    holds: bool
    detail: str = ""


def check_environment(config: Config) -> list[Check]:
    """All checks, in the order in which a person would mend them."""
    checks = [_command(name) for name in config.batch.commands.model_dump().values()]
    for key in ("state_dir", "shared_dir", "output_root"):
        checks.append(_directory(key, Path(getattr(config, key))))
    checks.append(_link(Path(config.shared_dir)))
    python = Path(config.node.python)
    checks.append(
        Check(f"node.python {python}", os.access(python, os.X_OK), "" if python.exists() else "not there")
    )
    checks.append(_loads("experiment", lambda: load_experiment(config.experiment)))
    if config.caldb is not None:
        checks.append(_loads("caldb snapshot", lambda: load_caldb(config.caldb)))
    if all(check.holds for check in checks[:3]):
        checks.append(_batch(config))
    checks.extend(_credential(name, item) for name, item in make_credentials(config).items())
    checks.extend(_server(name, source, config) for name, source in make_sources(config).items())
    return checks


def _command(name: str) -> Check:
    path = shutil.which(name)
    return Check(f"command {name}", path is not None, path or "not found in PATH")


def _nearest(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path


def _directory(key: str, path: Path) -> Check:
    there = _nearest(path)
    if not os.access(there, os.W_OK | os.X_OK):
        return Check(f"{key} {path}", False, f"{there} is not writable")
    free_mib = shutil.disk_usage(there).free // 2**20
    return Check(
        f"{key} {path}", free_mib >= FREE_MIN_MIB, f"{free_mib} MiB free, at least {FREE_MIN_MIB} wanted"
    )


def _link(path: Path) -> Check:
    """link(2) must refuse an existing name on the filesystem of the bundle directories."""
    there = _nearest(path)
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
