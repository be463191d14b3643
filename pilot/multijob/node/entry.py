"""Command line of the zipapp: gate, agent and keeper. Started by the batch script, the gate and the agent only."""

from __future__ import annotations

import argparse
import functools
import os
import sys
import time
import zlib
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Tuple

from pilot.multijob.node.manifest import BadManifest, Caldb, Manifest, parse_manifest

if TYPE_CHECKING:
    from pilot.caldb.plan import Room


def make_parser() -> argparse.ArgumentParser:
    """The command line. Wrong usage exits with 2."""
    # A width of its own: to ask the terminal, argparse would import shutil and with it 100 file calls at each start.
    shape = functools.partial(argparse.HelpFormatter, width=100)
    title = "What runs on a compute node of a bundle."
    parser = argparse.ArgumentParser(prog="agent.pyz", description=title, formatter_class=shape)
    commands = parser.add_subparsers(dest="command", required=True)
    gate_text = "first command of a batch job: claim the round, start one agent per node, wait; exits 0"
    agent_text = "work the list of one node, whatever its payloads do; exits 0"
    keeper_text = "keep the calibration server of a node; started by its agent"
    probe_text = "tell what this node has and sees, to `pilot check --probe`; exits 0"
    probe = commands.add_parser("probe", help=probe_text, description=probe_text, formatter_class=shape)
    probe.add_argument(
        "--directory", required=True, metavar="DIR", help="the probe's own, on the shared filesystem"
    )
    probe.add_argument("--local-dir", required=True, metavar="DIR", help="as in a manifest")
    probe.add_argument(
        "--seconds-left", required=True, type=float, metavar="S", help="waits for the edge at most"
    )
    for name, text in (("gate", gate_text), ("agent", agent_text), ("keeper", keeper_text)):
        command = commands.add_parser(name, help=text, description=text, formatter_class=shape)
        command.add_argument("--bundle", required=True, metavar="DIR", help="bundle directory")
        if name == "keeper":
            command.add_argument(
                "--directory", required=True, metavar="DIR", help="the keeper's own directory"
            )
            command.add_argument(
                "--node", type=int, default=0, metavar="I", help="of the copies of a snapshot"
            )
            continue
        command.add_argument("--round", required=True, type=int, metavar="K", help="number of the submission")
        command.add_argument(
            "--batch-id",
            required=name == "agent",
            metavar="ID",
            help="the batch job, if its environment does not say",
        )
        if name == "agent":
            command.add_argument("--node", required=True, type=int, metavar="I", help="index in the manifest")
            command.add_argument(
                "--seconds-left", required=True, type=float, metavar="S", help="of the walltime"
            )
            command.add_argument("--local-dir", metavar="DIR", help="instead of the manifest's local_dir")
    return parser


def expand_local_dir(text: str, environment: Dict[str, str]) -> str:
    """`$NAME` or `$NAME/below` replaced by the node's variable; raises BadManifest. Pure."""
    if not text.startswith("$"):
        return text
    name, slash, rest = text[1:].partition("/")
    if not environment.get(name):
        raise BadManifest("local_dir: the node has no variable %s" % name)
    return environment[name] + slash + rest


def gate(options: argparse.Namespace, started_mono: float) -> None:
    """The gate of one batch job."""
    from pilot.multijob.node.gate import Start
    from pilot.multijob.node.journal import utc_text
    from pilot.multijob.node.launch import find_batch_id, run_gate

    batch_id = find_batch_id(dict(os.environ), options.batch_id)
    if batch_id is None:
        print("no batch job: nothing is claimed, nothing is launched")
        return
    bundle = os.path.abspath(options.bundle)
    start = Start(batch_id, os.uname().nodename, os.getpid(), draw_nonce(), utc_text(time.time()))
    run_gate(read_manifest(bundle), bundle, options.round, start, started_mono)


def agent(options: argparse.Namespace, started_mono: float) -> None:
    """The agent of one node, below its warden."""
    from pilot.multijob.node.warden import guard

    bundle = os.path.abspath(options.bundle)
    manifest = read_manifest(bundle)
    local = os.path.abspath(options.local_dir or expand_local_dir(manifest.local_dir, dict(os.environ)))
    node, nonce, uid = options.node, draw_nonce(), os.getuid()
    own = os.path.join(local, "ep-%d-%s-%d-%s" % (uid, manifest.bundle_id, node, nonce))
    name = database_name(uid, manifest.bundle_id, options.round, os.uname().nodename)
    database = os.path.join(database_room(manifest.caldb, local, name, dict(os.environ)), name)

    def run() -> None:
        _run_agent(manifest, options, bundle, nonce, (own, database), started_mono)

    guard(run, own, database)


def _run_agent(
    manifest: Manifest,
    options: argparse.Namespace,
    bundle: str,
    nonce: str,
    directories: Tuple[str, str],
    started_mono: float,
) -> None:
    from pilot.multijob.node.journal import JournalWriter

    def now() -> float:
        return time.monotonic() - started_mono

    node, left = options.node, options.seconds_left
    journal = JournalWriter(journal_path(bundle, node, nonce), time.time, now)
    host, pid = os.uname().nodename, os.getpid()
    body = started_body(manifest, options.round, node, host, pid, options.batch_id, left)
    journal.write("agent_started", body)
    # Only now: the first line is on disk before the larger part of the standard library is read.
    from pilot.multijob.node.agent import Agent
    from pilot.multijob.node.host import Host
    from pilot.multijob.node.slots import Post

    post = Post(
        bundle,
        options.round,
        node,
        left,
        options.batch_id,
        nonce,
        *directories,
        agent_file=manifest.agent_file,
        host=host,
    )
    Host(manifest, post, journal, now).run(Agent(manifest, post, now).steps())


def database_room(caldb: Optional[Caldb], local: str, name: str, environment: Dict[str, str]) -> str:
    """Directory of the node for the calibration server: `local`, or another that the site allows. Raises nothing."""
    if caldb is None or not caldb.directories:
        return local
    from pilot.caldb.plan import choose_room

    paths = [local]
    for text in caldb.directories:
        try:
            paths.append(os.path.abspath(expand_local_dir(text, environment)))
        except BadManifest:
            pass  # this node has no such variable: one directory less to choose from
    return choose_room([_look_at_room(path, name) for path in paths], caldb.size, caldb.own_server)


def _look_at_room(path: str, name: str) -> Room:
    from pilot.caldb.plan import Room

    try:
        found = os.statvfs(path)
    except OSError:
        return Room(path, False, False, True, 0)
    return Room(
        path,
        os.path.isdir(os.path.join(path, name)),
        os.access(path, os.W_OK | os.X_OK),
        bool(found.f_flag & os.ST_NOEXEC),
        found.f_bavail * found.f_frsize,
    )


def database_name(uid: int, bundle_id: str, number: int, host: str) -> str:
    """One for all agents of a batch job (a round is one batch job's) on a node, in one network namespace.

    Short, because a unix socket's path below it must fit into 107 bytes.
    """
    network = os.stat("/proc/self/ns/net").st_ino
    text = ("%s %d %s %x" % (bundle_id, number, host, network)).encode()
    return "ep-%d-%08x%04x.db" % (uid, zlib.crc32(text), zlib.adler32(text) & 0xFFFF)


def journal_path(bundle: str, node: int, nonce: str) -> str:
    """The node journal of one start of an agent. Pure."""
    return "%s/node.%d.%s.journal" % (bundle, node, nonce)


def started_body(
    manifest: Manifest, number: int, node: int, host: str, pid: int, batch_id: str, seconds_left: float
) -> Dict[str, Any]:
    """Body of `agent_started`. Pure."""
    wanted = any(job.kind.needs_caldb for job in manifest.jobs.get(node, ()))
    return {
        "schema": 1,
        "round": number,
        "node": node,
        "host": host,
        "pid": pid,
        "batch_id": batch_id,
        "slots": manifest.slots,
        "seconds_left": seconds_left,
        "caldb": manifest.caldb.identity if manifest.caldb is not None and wanted else None,
    }


def keeper(options: argparse.Namespace) -> int:
    """The keeper of a node's calibration server."""
    from pilot.caldb.keeper import keep
    from pilot.multijob.node.database import keeper_plan

    return keep(keeper_plan(read_manifest(options.bundle), options.directory, options.node))


def probe(options: argparse.Namespace, started_mono: float) -> None:
    """The node's half of `pilot check --probe`."""
    from pilot.multijob.node.probe import run_probe

    local = expand_local_dir(options.local_dir, dict(os.environ))
    run_probe(os.path.abspath(options.directory), local, options.seconds_left)


def read_manifest(bundle: str) -> Manifest:
    """The manifest of a bundle directory; raises BadManifest or OSError."""
    with open(os.path.join(bundle, "manifest.json"), encoding="utf-8") as file:
        return parse_manifest(file.read())


def draw_nonce() -> str:
    """12 hex digits."""
    return os.urandom(6).hex()


def main(argv: Optional[List[str]] = None) -> int:
    """Exit code: 0; 2 for wrong usage. A keeper without a server: 1."""
    started_mono = time.monotonic()
    options = make_parser().parse_args(argv)
    try:
        if options.command == "keeper":
            return keeper(options)
        {"gate": gate, "agent": agent, "probe": probe}[options.command](options, started_mono)
    except (BadManifest, OSError) as error:
        # One node's or one batch job's fault must not look like the end of all others to the launcher.
        print("%s: %s" % (options.command, error), file=sys.stderr)
    return 0
