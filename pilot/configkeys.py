"""The keys of the pilot's configuration: sections, defaults and limits (docs/architecture/configuration.md)."""

from __future__ import annotations

import os
import re
from pathlib import Path
from string import Formatter
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from pilot.multijob.model import RECENT_MAX
from pilot.windows import parse_window

# The socket of the calibration server, <local_dir>/ep-<uid>-<12 hex digits>.db/s.sock, must fit into 107 bytes.
LOCAL_DIR_MAX_BYTES = 75
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def _absolute(text: str) -> str:
    path = Path(text)
    if not path.is_absolute() or ".." in path.parts or any(c in text for c in "\n\0"):
        raise ValueError("expected an absolute path without '..'")
    return text


def _local(text: str) -> str:
    if text.startswith("$"):
        variable, slash, below = text[1:].partition("/")
        if not variable.isascii() or not variable.isidentifier():
            raise ValueError("expected an absolute path, or $NAME or $NAME/below with a variable of the node")
        if slash:
            _absolute("/" + below)
    else:
        _absolute(text)
    if len(os.fsencode(text)) > LOCAL_DIR_MAX_BYTES:
        raise ValueError(
            f"expected at most {LOCAL_DIR_MAX_BYTES} bytes: a socket's path below it is limited to 107"
        )
    return text


def _setup(text: str) -> str:
    _absolute(text)
    try:
        fields = [rest for _, *rest in Formatter().parse(text) if rest[0] is not None]
        plain = all(NAME.fullmatch(name or "") and not spec and not change for name, spec, change in fields)
    except ValueError:
        plain = False
    if not plain:
        raise ValueError("expected an absolute path with {NAME} for variables of the job")
    return text


def _window(text: str) -> str:
    parse_window(text)
    return text


def _pattern(text: str) -> str:
    try:
        groups = re.compile(text).groups
    except re.error as error:
        raise ValueError(f"no regular expression: {error}") from error
    if groups < 1:
        raise ValueError("expected a group (...) around the number")
    return text


AbsolutePath = Annotated[str, AfterValidator(_absolute)]
NoStart = Annotated[str, AfterValidator(_window)]
Pattern = Annotated[str, AfterValidator(_pattern)]
SetupScript = Annotated[str, AfterValidator(_setup)]
LocalDir = Annotated[str, AfterValidator(_local)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
InputsMethod = Literal["in place", "link", "copy", "command"]
Seconds = Annotated[float, Field(ge=0, le=10_000_000)]
PositiveSeconds = Annotated[float, Field(gt=0, le=10_000_000)]


class Section(BaseModel):
    """Base of all sections: unknown keys are errors, types are not converted."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class BatchCommandNames(Section):
    """Commands of the batch system, looked up in PATH or absolute."""

    submit: str = "qsub"
    list: str = "qstat"
    cancel: str = "qdel"


class BatchTimes(Section):
    """How long a command of the batch system may take before it is ended (its effect is then unknown)."""

    submit_s: PositiveSeconds = 300.0
    list_s: PositiveSeconds = 120.0
    cancel_s: PositiveSeconds = 120.0


class BatchSection(Section):
    """The batch system."""

    dialect: Literal["torque", "slurm", "openpbs"] = "torque"
    server: Name
    commands: BatchCommandNames = BatchCommandNames()
    listing_every_s: PositiveSeconds = 60.0
    timeouts: BatchTimes = BatchTimes()
    account: Name | None = None
    flags: Name | None = None
    features: list[Name] = []


class LauncherSection(Section):
    """How one agent is started on one node."""

    kind: Literal["aprun", "srun", "mpiexec", "pbsdsh", "local"] = "aprun"
    argv: list[str] | None = None


class NodeSection(Section):
    """The compute node."""

    python: AbsolutePath = "/usr/bin/python3"
    local_dir: LocalDir = "/dev/shm"
    environment: dict[str, str] = {}
    quick_failures: Annotated[int, Field(ge=1, le=1000)] = 3
    quick_failure_s: Seconds = 60.0
    heartbeat_s: PositiveSeconds = 300.0
    silent_s: PositiveSeconds = 3600.0
    avoid_failures: Annotated[int, Field(ge=1, le=20)] = 2
    avoid_s: PositiveSeconds = 86400.0
    probe: list[str] = ["true"]
    probe_s: PositiveSeconds = 60.0
    setup: SetupScript | None = None
    setup_s: PositiveSeconds = 300.0
    sample_s: PositiveSeconds = 5.0
    caldb_ready_s: PositiveSeconds = 120.0
    caldb_restarts: Annotated[int, Field(ge=0, le=100)] = 2
    stdout_max_mib: Annotated[int, Field(gt=0)] = 200
    rss_max_mib: Annotated[int, Field(gt=0)] | None = None
    wall_max_s: PositiveSeconds | None = None
    quiet_max_s: PositiveSeconds | None = None
    file_max_mib: Annotated[int, Field(gt=0)] | None = None
    usable_memory_mib: Annotated[int, Field(gt=0)] | None = None
    poll_apart_s: Seconds = 1.0
    bind: Literal["none", "cores", "numa"] = "none"
    end_foreign: Literal["none", "cgroup"] = "none"


class ProtocolSection(Section):
    """Times of the submission protocol (DESIGN section 3)."""

    visible_s: Seconds = 30.0
    poll_s: PositiveSeconds = 120.0
    kill_s: PositiveSeconds = 30.0
    grace_s: Seconds = 300.0
    margin_s: Seconds = 300.0
    fencing: Literal["link", "weak"] = "link"


class CaldbSection(Section):
    """The node snapshot of the calibration database; `<snapshot>.json` beside it holds its identity."""

    backend: Literal["mariadb", "sqlite"] = "mariadb"
    snapshot: AbsolutePath
    access: Literal["socket", "tcp"] = "socket"
    directories: list[LocalDir] = []
    server: AbsolutePath | None = None


class ServerSection(Section):
    """A PanDA server in one dialect."""

    name: Name
    url: Annotated[str, Field(pattern=r"^https?://[A-Za-z0-9.\[\]:-]+(/[A-Za-z0-9._/-]*)?$")]
    dialect: Literal["v1", "legacy", "auto"]
    chunk: Annotated[int, Field(ge=1, le=1000)] | None = None
    timeout_s: Annotated[float, Field(gt=10, le=3600)] = 120.0
    packed: bool = False
    ca: AbsolutePath | None = None
    credentials: AbsolutePath | None = None
    token: AbsolutePath | None = None
    origin: Name | None = None
    credential_look_s: PositiveSeconds = 60.0
    credential_warn_s: Seconds = 86400.0
    credential_renewed: bool = False
    credential_to_jobs: bool = False


class WalltimeSection(Section):
    """Predicted run times and the walltime asked for."""

    min_s: Annotated[int, Field(ge=1)] = 600
    max_s: Annotated[int, Field(ge=1)] = 64800
    startup_s: Seconds = 60.0
    per_event_s: Seconds = 1.0
    margin_s: Seconds = 300.0


class QueueSection(Section):
    """One PanDA queue and the batch queue that its bundles go to."""

    name: Name
    server: Name
    panda_queue: Name
    prod_source_label: Name = "managed"
    batch_queue: Name
    wanted: Annotated[int, Field(ge=0, le=100_000)] = 1
    queued_max: Annotated[int, Field(ge=1, le=100_000)] = 4
    nodes: Annotated[int, Field(ge=1, le=100_000)]
    slots: Annotated[int, Field(ge=1, le=4096)]
    memory_mib: Annotated[int, Field(gt=0)] | None = None
    jobs_per_slot: Annotated[int, Field(ge=1, le=100)] = 1
    pool_bundles: Annotated[int, Field(ge=1, le=4)] = 2
    fill_wait_s: Seconds = 600.0
    node_hours_day_max: Annotated[float, Field(gt=0, le=1_000_000_000)] | None = None
    node_hours_max: Annotated[float, Field(gt=0, le=1_000_000_000)] | None = None
    share: Annotated[float, Field(gt=0, le=1000)] = 1.0
    no_start: list[NoStart] = []
    inputs_method: InputsMethod | None = None
    caldb_snapshot: AbsolutePath | None = None
    walltime: WalltimeSection = WalltimeSection()


class ReportingSection(Section):
    """Heartbeats: the server fails a job 2 h after its last one, a `sent` job after 30 min."""

    heartbeat_s: Annotated[float, Field(gt=0, le=6000)] = 2700.0
    heartbeat_spread_s: Seconds = 300.0
    urgent_s: Annotated[float, Field(gt=0, le=7000)] = 4500.0
    retry_s: PositiveSeconds = 30.0
    retry_max_s: PositiveSeconds = 600.0
    looks_at_once: Annotated[int, Field(ge=1, le=100_000)] = 512
    under_way_max: Annotated[int, Field(ge=1, le=1000)] = 8


class AnnounceSection(Section):
    """A small heartbeat of the daemon itself, for a monitor outside."""

    url: Annotated[str, Field(pattern=r"^https?://[A-Za-z0-9.\[\]:-]+(/[A-Za-z0-9._/-]*)?$")] | None = None
    every_s: Annotated[float, Field(ge=10, le=86400)] = 300.0
    timeout_s: Annotated[float, Field(gt=0, le=600)] = 20.0


class InputsSection(Section):
    """Inputs of a job are looked at from here before it enters a bundle, and made available to it on its node."""

    look: bool = True
    quiet_s: Seconds = 10.0
    wait_s: Seconds = 3600.0
    method: InputsMethod = "in place"
    command: list[str] = []
    at_once: Annotated[int, Field(ge=1, le=1000)] = 4
    try_s: PositiveSeconds = 1800.0
    tries: Annotated[int, Field(ge=1, le=20)] = 3
    local_max_mib: Annotated[int, Field(gt=0)] | None = None


class SpaceSection(Section):
    """Space and inodes that must be left in state_dir, shared_dir and output_root."""

    look_s: PositiveSeconds = 60.0
    free_min_mib: Annotated[int, Field(ge=0)] = 1024
    free_inodes_min: Annotated[int, Field(ge=0)] = 10000


class AllocationSection(Section):
    """A command of the site that tells what is left of the allocation."""

    argv: list[str] | None = None
    pattern: Pattern = r"(-?[0-9][0-9,]*(?:[.][0-9]+)?)"
    node_hours_per_unit: Annotated[float, Field(gt=0, le=1000)] = 1.0
    warn_node_hours: Annotated[float, Field(ge=0)] = 0.0
    look_s: PositiveSeconds = 3600.0
    timeout_s: PositiveSeconds = 60.0


class JournalSection(Section):
    """The journal of `state_dir`."""

    segment_mib: Annotated[int, Field(ge=1, le=1024)] = 64
    snapshot_timeout_s: PositiveSeconds = 600.0


class RetentionSection(Section):
    """How long the directory of a settled bundle is kept."""

    ok_h: Annotated[float, Field(ge=0)] = 24.0
    failed_d: Annotated[float, Field(ge=0)] = 14.0
    pack_at_once: Annotated[int, Field(ge=0, le=16)] = 1
    pack_max_mib: Annotated[int, Field(ge=1, le=1024)] = 64


class RotationSection(Section):
    """When pilots are started again."""

    fruitless_wait_s: PositiveSeconds = 60.0
    fruitless_wait_max_s: PositiveSeconds = 3600.0
    next_round_s: Seconds = 60.0
    spacing_s: Seconds = 2.0
    jitter: Annotated[float, Field(ge=0, le=10)] = 0.5
    canary_nodes: Annotated[int, Field(ge=1, le=100_000)] | None = None
    task_window: Annotated[int, Field(ge=1, le=RECENT_MAX)] = 64
    task_failed_max: Annotated[int, Field(ge=1, le=RECENT_MAX)] = 32
    task_probe_s: PositiveSeconds = 3600.0
    task_probe_max_s: PositiveSeconds = 86400.0
    misfits_max: Annotated[int, Field(ge=0, le=10_000_000)] = 200
    live_max: Annotated[int, Field(ge=0, le=100_000)] | None = None
    queued_max: Annotated[int, Field(ge=1, le=100_000)] | None = 50


class Config(Section):
    """The whole file."""

    site: Name
    state_dir: AbsolutePath
    shared_dir: AbsolutePath
    output_root: AbsolutePath
    log_file: AbsolutePath | None = None
    experiment: str = "compass"
    tick_s: Annotated[float, Field(gt=0, le=60)] = 1.0
    evidence_every_s: PositiveSeconds = 15.0
    batch: BatchSection
    launcher: LauncherSection = LauncherSection()
    node: NodeSection = NodeSection()
    protocol: ProtocolSection = ProtocolSection()
    caldb: CaldbSection | None = None
    servers: Annotated[list[ServerSection], Field(min_length=1)]
    queues: Annotated[list[QueueSection], Field(min_length=1)]
    reporting: ReportingSection = ReportingSection()
    retention: RetentionSection = RetentionSection()
    announce: AnnounceSection = AnnounceSection()
    rotation: RotationSection = RotationSection()
    inputs: InputsSection = InputsSection()
    space: SpaceSection = SpaceSection()
    allocation: AllocationSection = AllocationSection()
    journal: JournalSection = JournalSection()
