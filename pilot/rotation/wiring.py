"""From the config to plain values and lanes: the one place where adapters are chosen and wired by hand."""

from __future__ import annotations

import json
import os
import pwd
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, assert_never

from pilot.batch.cli import DIALECTS, BatchCli, BatchCommands, BatchTimeouts
from pilot.caldb.snapshot import manifest_caldb, read_snapshot
from pilot.caldb.template import BadSnapshot
from pilot.configkeys import CaldbSection, Config, NodeSection, QueueSection, ServerSection
from pilot.credentials import FileCredentials
from pilot.experiments.words import BadExperiment, Experiment, parse_experiment
from pilot.journal import FileStore
from pilot.lanes import LaneSpec, Route
from pilot.launcher import make_launcher
from pilot.multijob.actions import (
    Action,
    AddScript,
    AdoptBundle,
    AnswerCommand,
    AppendEvents,
    AskStatus,
    CancelBatchJob,
    DeliverCredential,
    FetchJobs,
    FindBundles,
    LinkOutputs,
    ListBatchJobs,
    LookAtAllocation,
    LookAtCredential,
    LookAtInputs,
    LookAtSpace,
    MakeClaim,
    MakeMark,
    PackBundle,
    PrepareBundle,
    ReadEvidence,
    RemoveBundle,
    ReportJobs,
    SetDoor,
    SubmitBatchJob,
    TakeSnapshot,
    WithdrawCredential,
    WriteClosed,
    WriteCommands,
)
from pilot.multijob.evidence import FileEvidence
from pilot.multijob.inputfiles import FileInputs
from pilot.multijob.model import (
    CredentialRule,
    Limits,
    ProtocolTimes,
    QueueSpec,
    ReportTimes,
    SiteSpec,
    WalltimePolicy,
)
from pilot.multijob.packing import planned_slots
from pilot.multijob.spacefiles import FileSpace
from pilot.panda.dialect import make_job_source
from pilot.ports import (
    AllocationLeft,
    BatchRequest,
    CredentialKind,
    Credentials,
    Done,
    Failure,
    Inputs,
    JobSource,
    Space,
    Unavailable,
)
from pilot.windows import parse_window

EXPERIMENTS = Path(__file__).resolve().parents[1] / "experiments"
CHUNK = {"v1": 400, "legacy": 100, "auto": 100}
REPORT_CONNECTIONS = 2
# An empty queue is asked at most so many times more slowly than at first: 600 s where listings come every 60 s.
FETCH_PAUSE_GROWTH = 10.0
EVIDENCE_READERS = 2
# Keys of the configuration whose filesystems must have space.
DIRECTORIES = ("state_dir", "shared_dir", "output_root")


class WiringError(Exception):
    """Something that the config names is not there or not usable."""


def load_experiment(name: str) -> Experiment:
    """The experiment of this name (package data), or of this path."""
    path = Path(name) if name.endswith(".yaml") else EXPERIMENTS / f"{name}.yaml"
    try:
        return parse_experiment(path.read_text())
    except OSError as error:
        raise WiringError(f"experiment {name}: {path} cannot be read: {error.strerror}") from error
    except BadExperiment as error:
        raise WiringError(f"experiment {name}: {error}") from error


def load_caldb(section: CaldbSection | None, queue: QueueSection | None = None) -> Mapping[str, Any] | None:
    """The manifest's `caldb` for the configured snapshot, or for the queue's own; `<snapshot>.json` tells its facts."""
    if section is None:
        return None
    key, path = "caldb.snapshot", section.snapshot
    if queue is not None and queue.caldb_snapshot is not None:
        key, path = f"queue {queue.name}: caldb_snapshot", queue.caldb_snapshot
    try:
        snapshot = read_snapshot(path)
    except BadSnapshot as error:
        raise WiringError(f"{key}: {error}") from error
    if snapshot.backend != section.backend:
        raise WiringError(f"caldb.backend: found {section.backend}, {path} is for {snapshot.backend}")
    return {**manifest_caldb(snapshot, section.access, section.server), "directories": section.directories}


def make_limits(config: Config, agent_file: Path, *, once: bool) -> Limits:
    """Plain values for the pure core. Raises WiringError."""
    batch, node, times = config.batch, config.node, config.protocol
    fetch_retry_s = min(60.0, max(config.tick_s, batch.listing_every_s))
    servers = {server.name: server for server in config.servers}
    queues: dict[str, QueueSpec] = {}
    for queue in config.queues:
        server = servers[queue.server]
        walltime = WalltimePolicy(**queue.walltime.model_dump())
        values = queue.model_dump(
            exclude={"walltime", "prod_source_label", "no_start", "slots", "caldb_snapshot"}
        )
        caldb = load_caldb(config.caldb, queue)
        queues[queue.name] = QueueSpec(
            **values,
            no_start=tuple(parse_window(text) for text in queue.no_start),
            slots=_slots(queue, node, caldb),
            caldb=caldb if queue.caldb_snapshot is not None else None,
            cores=queue.slots,
            walltime=walltime,
            chunk=server.chunk or CHUNK[server.dialect],
        )
    launcher = config.launcher
    _check_batch(config)
    site = SiteSpec(
        name=config.site,
        shared_dir=config.shared_dir,
        output_root=config.output_root,
        python=node.python,
        agent_file=str(agent_file),
        local_dir=node.local_dir,
        environment=node.environment,
        launch=lambda index, slots: make_launcher(launcher.kind, slots, launcher.argv).command(index, ()),
        node_limits=_node_limits(config),
        caldb=load_caldb(config.caldb),
        account=batch.account,
        flags=batch.flags,
        features=tuple(batch.features),
        directives=DIALECTS[batch.dialect].render_directives,
        bind=node.bind,
        end_foreign=node.end_foreign,
        probe=tuple(node.probe),
        inputs_method=config.inputs.method,
        inputs_command=tuple(config.inputs.command),
        setup=node.setup,
    )
    return Limits(
        queues=queues,
        protocol=ProtocolTimes(
            times.visible_s,
            times.poll_s,
            times.kill_s,
            times.grace_s,
            times.margin_s,
            times.fencing == "weak",
        ),
        report=ReportTimes(
            config.reporting.heartbeat_s,
            config.reporting.heartbeat_spread_s,
            config.reporting.urgent_s,
            config.reporting.retry_s,
            config.reporting.retry_max_s,
            config.reporting.under_way_max,
        ),
        site=site,
        experiment=load_experiment(config.experiment),
        batch_server=batch.server,
        credentials=_credential_rules(config),
        listing_every_s=batch.listing_every_s,
        evidence_every_s=config.evidence_every_s,
        silent_s=config.node.silent_s,
        avoid_failures=config.node.avoid_failures,
        avoid_s=config.node.avoid_s,
        fetch_retry_s=fetch_retry_s,
        fetch_retry_max_s=FETCH_PAUSE_GROWTH * fetch_retry_s,
        blind_after_s=max(900.0, 3 * batch.listing_every_s),
        submit_retry_s=config.rotation.next_round_s,
        fruitless_wait_s=config.rotation.fruitless_wait_s,
        fruitless_wait_max_s=config.rotation.fruitless_wait_max_s,
        directories={name: getattr(config, name) for name in DIRECTORIES},
        space_look_s=config.space.look_s,
        free_min_mib=config.space.free_min_mib,
        free_inodes_min=config.space.free_inodes_min,
        allocation_look_s=config.allocation.look_s if config.allocation.argv else None,
        allocation_warn_node_h=config.allocation.warn_node_hours,
        input_look=config.inputs.look,
        input_quiet_s=config.inputs.quiet_s,
        input_wait_s=config.inputs.wait_s,
        canary_nodes=config.rotation.canary_nodes,
        task_window=config.rotation.task_window,
        task_failed_max=config.rotation.task_failed_max,
        task_probe_s=config.rotation.task_probe_s,
        task_probe_max_s=config.rotation.task_probe_max_s,
        misfits_max=config.rotation.misfits_max,
        live_max=config.rotation.live_max,
        queued_max=config.rotation.queued_max,
        user=pwd.getpwuid(os.getuid()).pw_name,
        spacing_s=config.rotation.spacing_s,
        jitter=config.rotation.jitter,
        looks_at_once=config.reporting.looks_at_once,
        retain_ok_s=config.retention.ok_h * 3600,
        retain_failed_s=config.retention.failed_d * 86400,
        pack_at_once=config.retention.pack_at_once,
        pack_bytes_max=config.retention.pack_max_mib * 2**20,
        once=once,
    )


def _slots(queue: QueueSection, node: NodeSection, caldb: Mapping[str, Any] | None) -> int:
    """Slots of a node that its memory has room for. Raises WiringError where it is not one."""
    snapshot_mib = -(-caldb["size"] // 2**20) if caldb is not None else 0
    slots = planned_slots(queue.slots, node.usable_memory_mib, queue.memory_mib, snapshot_mib)
    if slots < 1:
        raise WiringError(
            f"queue {queue.name}: memory_mib {queue.memory_mib} does not fit once into node.usable_memory_mib "
            f"{node.usable_memory_mib} beside agent and calibration server"
        )
    return slots


def _check_batch(config: Config) -> None:
    """Render one batch job of each queue: what no script can carry shows at the start. Raises WiringError."""
    dialect, batch = DIALECTS[config.batch.dialect], config.batch
    directory, name = f"{config.shared_dir}/bundles/aaaaaaaaa", "aaaaaaaaa.1"
    for queue in config.queues:
        request = BatchRequest(
            name,
            queue.batch_queue,
            queue.nodes,
            queue.slots,
            queue.walltime.max_s,
            f"{directory}/batch.1.out",
            tuple(batch.features),
            batch.account,
            batch.flags,
        )
        try:
            dialect.render_directives(request)
            dialect.render_submit(batch.commands.submit, f"{directory}/script.1.sh", name)
        except ValueError as error:
            raise WiringError(f"batch: dialect {batch.dialect} cannot carry {error}") from error


def _node_limits(config: Config) -> Mapping[str, float | int | None]:
    node, times, inputs = config.node, config.protocol, config.inputs
    return {
        "inputs_at_once": inputs.at_once,
        "input_try_s": inputs.try_s,
        "input_tries": inputs.tries,
        "inputs_max_mib": inputs.local_max_mib,
        "margin_s": times.margin_s,
        "poll_s": times.poll_s,
        "poll_apart_s": node.poll_apart_s,
        "kill_s": times.kill_s,
        "visible_s": times.visible_s,
        "heartbeat_s": node.heartbeat_s,
        "sample_s": node.sample_s,
        "quick_failures": node.quick_failures,
        "quick_failure_s": node.quick_failure_s,
        "caldb_ready_s": node.caldb_ready_s,
        "caldb_restarts": node.caldb_restarts,
        "probe_s": node.probe_s,
        "setup_s": node.setup_s,
        "stdout_max_mib": node.stdout_max_mib,
        "rss_max_mib": node.rss_max_mib,
        "file_max_mib": node.file_max_mib,
        "wall_max_s": node.wall_max_s,
        "quiet_max_s": node.quiet_max_s,
    }


@dataclass(frozen=True, slots=True)
class Ports:
    """The adapters of one daemon."""

    store: FileStore
    evidence: FileEvidence
    batch: BatchCli
    sources: Mapping[str, JobSource]
    credentials: Mapping[str, Credentials] = field(default_factory=dict)
    # takes the answer to a command (serial, done, lines) to the person who gave it
    tell: Callable[[int, bool, tuple[str, ...]], Any] = lambda serial, done, lines: Done()
    inputs: Inputs = field(default_factory=FileInputs)
    space: Space = field(default_factory=FileSpace)
    allocation: Callable[[], AllocationLeft | Failure] = lambda: Unavailable("no command is configured")
    # writes the state after so many segments of an epoch
    snapshot: Callable[[int, int], Done | Failure] = lambda epoch, segment: Unavailable(
        "nobody takes snapshots"
    )


def make_batch(config: Config) -> BatchCli:
    """The batch system's commands."""
    batch = config.batch
    return BatchCli(
        DIALECTS[batch.dialect],
        batch.server,
        dict(os.environ),
        BatchCommands(batch.commands.submit, batch.commands.list, batch.commands.cancel),
        BatchTimeouts(batch.timeouts.submit_s, batch.timeouts.list_s, batch.timeouts.cancel_s),
    )


VARIABLE = {CredentialKind.X509: "X509_USER_PROXY", CredentialKind.TOKEN: "BEARER_TOKEN_FILE"}


def make_credential(server: ServerSection) -> FileCredentials | None:
    """The credential of one server, None if it has none."""
    if server.credentials is not None:
        return FileCredentials(CredentialKind.X509, server.credentials)
    if server.token is not None:
        return FileCredentials(CredentialKind.TOKEN, server.token, server.origin)
    return None


def make_credentials(config: Config) -> Mapping[str, FileCredentials]:
    """The credentials by server; servers without one are not in it."""
    found = {server.name: make_credential(server) for server in config.servers}
    return {name: credential for name, credential in found.items() if credential is not None}


def _credential_rules(config: Config) -> Mapping[str, CredentialRule]:
    servers = {server.name: server for server in config.servers}
    rules = {}
    for name, credential in make_credentials(config).items():
        server = servers[name]
        variable = VARIABLE[credential.kind] if server.credential_to_jobs else None
        rules[name] = CredentialRule(
            server.credential_warn_s, server.credential_look_s, server.credential_renewed, variable
        )
    return rules


def make_source(server: ServerSection, label: str) -> JobSource:
    """The client of one PanDA server."""
    return make_job_source(
        server.dialect,
        server.url,
        timeout_s=server.timeout_s,
        prod_source_label=label,
        credential=make_credential(server),
        ca=server.ca,
        packed=server.packed,
    )


def make_sources(config: Config) -> Mapping[str, JobSource]:
    """One client per server entry; its label is that of its queues."""
    labels = {queue.server: queue.prod_source_label for queue in config.queues}
    return {server.name: make_source(server, labels.get(server.name, "managed")) for server in config.servers}


def lane_specs(config: Config) -> tuple[LaneSpec, ...]:
    """The lanes of DESIGN 2: one queue, one time-out and one age each."""
    fetch = tuple(LaneSpec(f"fetch-{queue.name}") for queue in config.queues)
    report = tuple(LaneSpec(f"report-{server.name}", REPORT_CONNECTIONS) for server in config.servers)
    return (
        LaneSpec("journal"),
        LaneSpec("snapshot", stuck_after_s=2 * config.journal.snapshot_timeout_s),
        LaneSpec("batch-list"),
        LaneSpec("batch-submit"),
        LaneSpec("evidence-read", EVIDENCE_READERS),
        LaneSpec("evidence-write"),
        LaneSpec("evidence-pack", max(1, config.retention.pack_at_once)),
        LaneSpec("credentials"),
        LaneSpec("inputs"),
        LaneSpec("space"),
        LaneSpec("control"),
        *((LaneSpec("allocation"),) if config.allocation.argv else ()),
        *fetch,
        *report,
    )


def make_route(ports: Ports, bundle_dir: Callable[[str], str]) -> Callable[[Action], Route]:
    """Action -> lane and blocking call."""

    def route(action: Action) -> Route:
        evidence, batch = ports.evidence, ports.batch
        match action:
            case AppendEvents() | TakeSnapshot():
                return _journal(ports, action)
            case FetchJobs():
                source = ports.sources[action.server]
                return Route(f"fetch-{action.queue}", lambda: source.fetch(action.panda_queue, action.count))
            case ReportJobs():
                source = ports.sources[action.server]
                return Route(f"report-{action.server}", lambda: source.report(action.updates), action.rank)
            case AskStatus():
                source = ports.sources[action.server]
                return Route(f"report-{action.server}", lambda: source.status(action.ids), 2)
            case SubmitBatchJob():
                script = f"{bundle_dir(action.bundle_id)}/script.{action.number}.sh"
                return Route("batch-submit", lambda: batch.submit(script, action.name))
            case CancelBatchJob():
                return Route("batch-submit", lambda: batch.cancel(action.batch_id), -1)
            case ListBatchJobs():
                return Route("batch-list", lambda: batch.list_jobs(action.ids))
            case AnswerCommand():
                return Route("control", lambda: ports.tell(action.serial, action.done, action.lines))
            case LookAtAllocation():
                return Route("allocation", ports.allocation)
            case LookAtCredential() | LookAtInputs() | LookAtSpace():
                return _look(ports, action)
            case DeliverCredential() | WithdrawCredential():
                port = ports.credentials[action.server]
                copy = port.deliver if isinstance(action, DeliverCredential) else port.withdraw
                return Route("credentials", lambda: copy(action.target))
            case ReadEvidence():
                return Route("evidence-read", lambda: evidence.read(action.bundle_id, action.offsets))
            case PackBundle():
                pack = action
                return Route(
                    "evidence-pack", lambda: evidence.pack(pack.bundle_id, pack.offsets, pack.bytes_max)
                )
            case _:
                return Route("evidence-write", _write(evidence, action))

    return route


def _journal(ports: Ports, action: AppendEvents | TakeSnapshot) -> Route:
    if isinstance(action, TakeSnapshot):
        return Route("snapshot", lambda: ports.snapshot(action.epoch, action.segment))
    return Route("journal", lambda: ports.store.append(action.commit, action.records))


def _look(ports: Ports, action: LookAtCredential | LookAtInputs | LookAtSpace) -> Route:
    match action:
        case LookAtCredential():
            return Route("credentials", ports.credentials[action.server].current)
        case LookAtInputs():
            return Route("inputs", lambda: ports.inputs.look(action.paths))
        case LookAtSpace():
            return Route("space", lambda: ports.space.look(action.directories))
        case _:
            assert_never(action)


def _write(evidence: FileEvidence, action: Action) -> Callable[[], Any]:
    match action:
        case FindBundles():
            return evidence.find
        case AdoptBundle():
            return lambda: evidence.adopt(action.bundle_id)
        case PrepareBundle():
            return lambda: evidence.prepare(action.bundle_id, action.render)
        case AddScript():
            return lambda: evidence.add_script(action.bundle_id, action.number, action.text)
        case MakeClaim():
            return lambda: evidence.make_claim(action.bundle_id, action.number, action.weak)
        case MakeMark():
            return lambda: evidence.make_mark(action.bundle_id, action.number)
        case SetDoor():
            return lambda: evidence.set_door(action.bundle_id, action.number)
        case WriteClosed():
            return lambda: evidence.close(action.bundle_id)
        case WriteCommands():
            end = [{"panda_id": i, "attempt_nr": n, "why": "killed"} for i, n in action.end]
            text = json.dumps({"serial": action.serial, "end": end})
            return lambda: evidence.write_commands(action.bundle_id, text)
        case LinkOutputs():
            return lambda: evidence.link_outputs(action.pairs)
        case RemoveBundle():
            return lambda: evidence.remove(action.bundle_id)
        case (
            AppendEvents()
            | TakeSnapshot()
            | FetchJobs()
            | ReportJobs()
            | AskStatus()
            | SubmitBatchJob()
            | CancelBatchJob()
            | ListBatchJobs()
            | ReadEvidence()
            | PackBundle()
            | LookAtCredential()
            | LookAtInputs()
            | LookAtSpace()
            | LookAtAllocation()
            | DeliverCredential()
            | WithdrawCredential()
            | AnswerCommand()
        ):
            raise AssertionError("has a lane of its own")
        case _:
            assert_never(action)
