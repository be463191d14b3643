"""Command line of the zipapp: gate, agent and keeper. Started by the batch script, the gate and the agent only."""

from __future__ import annotations

import os
import sys
import time
from typing import Callable, Dict, List, Optional, Tuple

from pilot.multijob.node.manifest import BadManifest, Manifest, parse_manifest

USAGE = """usage: agent.pyz gate   --bundle DIR --round K [--batch-id ID]
       agent.pyz agent  --bundle DIR --round K --node I --seconds-left S --batch-id ID [--local-dir DIR]
       agent.pyz keeper --bundle DIR --directory DIR

gate:   first command of a batch job: make the claim of round K, start one agent per node, wait. Exits 0.
agent:  work the list of node I of the bundle. Exits 0, whatever its payloads did.
keeper: keep the calibration server of a node; started by its agent.
"""

_OPTIONS: Dict[str, Tuple[Tuple[str, ...], Tuple[str, ...]]] = {
    "gate": (("bundle", "round"), ("batch-id",)),
    "agent": (("bundle", "round", "node", "seconds-left", "batch-id"), ("local-dir",)),
    "keeper": (("bundle", "directory"), ()),
}
_NUMBERS: Dict[str, Callable[[str], float]] = {"round": int, "node": int, "seconds-left": float}


class BadUsage(Exception):
    """The text says what is wrong."""


def parse_options(argv: List[str]) -> Tuple[str, Dict[str, str]]:
    """(command, options); raises BadUsage. Own code: argparse costs 60 more file calls at each start."""
    if not argv or argv[0] not in _OPTIONS:
        raise BadUsage("a command is expected: %s" % ", ".join(_OPTIONS))
    needed, allowed = _OPTIONS[argv[0]]
    options: Dict[str, str] = {}
    words = iter(argv[1:])
    for word in words:
        name = word[2:]
        if not word.startswith("--") or name not in needed + allowed:
            raise BadUsage("unknown option %r" % word)
        value = next(words, None)
        if value is None:
            raise BadUsage("option %s needs a value" % word)
        options[name] = value
    missing = [name for name in needed if name not in options]
    if missing:
        raise BadUsage("missing: --%s" % ", --".join(missing))
    for name, kind in _NUMBERS.items():
        if name in options:
            try:
                kind(options[name])
            except ValueError:
                raise BadUsage("--%s: a number is expected, found %r" % (name, options[name])) from None
    return argv[0], options


def expand_local_dir(text: str, environment: Dict[str, str]) -> str:
    """`$NAME` or `$NAME/below` replaced by the node's variable; raises BadManifest. Pure."""
    if not text.startswith("$"):
        return text
    name, slash, rest = text[1:].partition("/")
    if not environment.get(name):
        raise BadManifest("local_dir: the node has no variable %s" % name)
    return environment[name] + slash + rest


def gate(options: Dict[str, str], started_mono: float) -> None:
    """The gate of one batch job."""
    from pilot.multijob.node.gate import Start
    from pilot.multijob.node.journal import utc_text
    from pilot.multijob.node.launch import find_batch_id, run_gate

    batch_id = find_batch_id(dict(os.environ), options.get("batch-id"))
    if batch_id is None:
        print("no batch job: nothing is claimed, nothing is launched")
        return
    bundle = os.path.abspath(options["bundle"])
    start = Start(batch_id, os.uname().nodename, os.getpid(), draw_nonce(), utc_text(time.time()))
    run_gate(read_manifest(bundle), bundle, int(options["round"]), start, started_mono)


def agent(options: Dict[str, str], started_mono: float) -> None:
    """The agent of one node, below its warden."""
    from pilot.multijob.node.warden import guard

    bundle = os.path.abspath(options["bundle"])
    manifest = read_manifest(bundle)
    local = options.get("local-dir") or expand_local_dir(manifest.local_dir, dict(os.environ))
    node, nonce, uid = int(options["node"]), draw_nonce(), os.getuid()
    own = os.path.join(local, "ep-%d-%s-%d-%s" % (uid, manifest.bundle_id, node, nonce))
    database = os.path.join(local, "ep-%d-%s.db" % (uid, nonce))

    def run() -> None:
        _run_agent(manifest, options, bundle, nonce, (own, database), started_mono)

    guard(run, (own, database))


def _run_agent(
    manifest: Manifest,
    options: Dict[str, str],
    bundle: str,
    nonce: str,
    directories: Tuple[str, str],
    started_mono: float,
) -> None:
    from pilot.multijob.node.journal import JournalWriter

    node, left = int(options["node"]), float(options["seconds-left"])
    path = "%s/node.%d.%s.journal" % (bundle, node, nonce)
    journal = JournalWriter(path, time.time, lambda: time.monotonic() - started_mono)
    wanted = any(job.kind.needs_caldb for job in manifest.jobs.get(node, ()))
    body = {
        "schema": 1,
        "round": int(options["round"]),
        "node": node,
        "host": os.uname().nodename,
        "pid": os.getpid(),
        "batch_id": options["batch-id"],
        "slots": manifest.slots,
        "seconds_left": left,
        "caldb": manifest.caldb.identity if manifest.caldb is not None and wanted else None,
    }
    journal.write("agent_started", body)
    # Only now: the first line is on disk before the larger part of the standard library is read.
    from pilot.multijob.node.agent import Agent
    from pilot.multijob.node.slots import Post

    post = Post(
        bundle,
        int(options["round"]),
        node,
        left,
        options["batch-id"],
        nonce,
        *directories,
        agent_file=manifest.agent_file,
    )
    Agent(manifest, post, journal, started_mono).run()


def keeper(options: Dict[str, str], started_mono: float) -> int:
    """The keeper of a node's calibration server."""
    import signal

    from pilot.caldb.plan import KeeperPlan
    from pilot.caldb.prctl import die_with_parent
    from pilot.caldb.server import keep

    manifest = read_manifest(options["bundle"])
    caldb = manifest.caldb
    if caldb is None:
        raise BadManifest("caldb: the bundle has none")
    die_with_parent(signal.SIGTERM)
    plan = KeeperPlan(
        backend=caldb.backend,
        snapshot=caldb.snapshot,
        sha256=caldb.sha256,
        probe_sql=caldb.probe_sql,
        probe_expect=caldb.probe_expect,
        access=caldb.access,
        server=caldb.server,
        directory=options["directory"],
        ready_s=manifest.limits.caldb_ready_s,
        restarts=manifest.limits.caldb_restarts,
    )
    return keep(plan)


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
    words = sys.argv[1:] if argv is None else argv
    if words and words[0] in ("-h", "--help"):
        print(USAGE, end="")
        return 0
    try:
        command, options = parse_options(words)
    except BadUsage as error:
        print("%s\n%s" % (error, USAGE), file=sys.stderr, end="")
        return 2
    try:
        if command == "keeper":
            return keeper(options, started_mono)
        (gate if command == "gate" else agent)(options, started_mono)
    except (BadManifest, OSError) as error:
        # One node's or one batch job's fault must not look like the end of all others to the launcher.
        print("%s: %s" % (command, error), file=sys.stderr)
    return 0
