"""`pilot caldb build|check`: make and verify the calibration snapshot that bundles take to their nodes."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any

from pilot.caldb.snapshot import BACKENDS, Snapshot, build_snapshot, check_snapshot
from pilot.caldb.source import dump_server
from pilot.caldb.template import BadSnapshot

EXIT_OK, EXIT_BAD = 0, 1


def add_parser(subparsers: Any) -> None:
    """Add `caldb` with its verbs; the parsed arguments go to `run`."""
    parser = subparsers.add_parser("caldb", help="make and verify the calibration snapshot for compute nodes")
    verbs = parser.add_subparsers(dest="verb", required=True)
    build = verbs.add_parser(
        "build",
        help="build a snapshot from an SQL dump or a running server",
        description="Build SNAPSHOT and SNAPSHOT.json from an SQL dump. The server on a node will have one account, "
        "'calib', that may only read. Existing files are never overwritten: bundles may use them. With --from-server "
        "there is no dump: the tables of a running MySQL or MariaDB are read, of some only the rows asked for.",
    )
    build.add_argument(
        "dump",
        nargs="?",
        metavar="DUMP.sql",
        help="CREATE TABLE and INSERT statements, as mysqldump writes them",
    )
    build.add_argument("snapshot", metavar="SNAPSHOT", help="file to make, on the shared filesystem")
    build.add_argument(
        "--from-server",
        metavar="FILE",
        help="option file (mode 0600) whose [client] section says host, user and password of a running server",
    )
    build.add_argument(
        "--database", metavar="NAME", help="with --from-server: database whose tables are taken"
    )
    build.add_argument(
        "--where",
        action="append",
        default=[],
        metavar="TABLE=SQL",
        help="with --from-server: condition on the rows of one table, to cut it to the runs that --runs names; "
        "may stand often",
    )
    build.add_argument("--identity", required=True, help="name that stands in node journals and reports")
    build.add_argument(
        "--probe", required=True, metavar="SQL", help="query that only a right snapshot answers right"
    )
    build.add_argument(
        "--expect", metavar="TEXT", help="first value of its first row (default: what it answers now)"
    )
    build.add_argument(
        "--runs", nargs=2, type=int, metavar=("FIRST", "LAST"), help="runs covered (default: all)"
    )
    build.add_argument("--backend", choices=BACKENDS, default="mariadb")
    build.add_argument("--server", metavar="PATH", help="mariadbd to use (default: looked for)")
    build.add_argument(
        "--copies",
        type=int,
        default=1,
        metavar="N",
        help="files with the same content (SNAPSHOT, SNAPSHOT.2, ...) that many nodes read in turn (default: 1)",
    )
    build.add_argument(
        "--with-server",
        action="store_true",
        help="the server and its libraries inside, for nodes without one (about 40 MB more)",
    )
    check = verbs.add_parser(
        "check",
        help="verify a snapshot",
        description="Checksum, accounts (exactly one, SELECT only), and the probe on a server started as on a node.",
    )
    check.add_argument("snapshot", metavar="SNAPSHOT")
    check.add_argument("--server", metavar="PATH", help="mariadbd to use (default: looked for)")
    for verb in (build, check):
        verb.add_argument("--json", action="store_true", help="print the description as one JSON object")


def run(args: argparse.Namespace) -> int:
    """Exit code of one call: 0, or 1 with one line on stderr."""
    signal.signal(signal.SIGTERM, _leave)
    try:
        snapshot = _build(args) if args.verb == "build" else check_snapshot(args.snapshot, args.server)
    except BadSnapshot as error:
        print(f"pilot caldb {args.verb}: {error}", file=sys.stderr)
        return EXIT_BAD
    if args.json:
        print(json.dumps(asdict(snapshot), indent=1, sort_keys=True))
    else:
        print(_sentence(args.verb, snapshot))
    return EXIT_OK


def _build(args: argparse.Namespace) -> Snapshot:
    if args.from_server is None:
        if args.dump is None or args.database is not None or args.where:
            raise BadSnapshot("expected DUMP.sql and SNAPSHOT, or --from-server with --database")
        return _build_from(args, args.dump, None)
    if args.dump is not None or args.database is None:
        raise BadSnapshot("--from-server goes with --database and without DUMP.sql")
    where = dict(item.partition("=")[::2] for item in args.where)
    if not all(table and condition for table, condition in where.items()):
        raise BadSnapshot("--where: expected TABLE=SQL")
    if where and not args.runs:
        raise BadSnapshot(
            "--where leaves rows out: say with --runs FIRST LAST which runs the snapshot covers"
        )
    with tempfile.TemporaryDirectory(prefix="ep-caldb-dump-") as work:
        dump = Path(work) / "server.sql"
        name = dump_server(Path(args.from_server), args.database, where, dump)
        return _build_from(args, dump, name)


def _build_from(args: argparse.Namespace, dump: Path | str, name: str | None) -> Snapshot:
    return build_snapshot(
        dump,
        args.snapshot,
        identity=args.identity,
        probe_sql=args.probe,
        probe_expect=args.expect,
        run_range=tuple(args.runs) if args.runs else None,
        backend=args.backend,
        server=args.server,
        source_name=name,
        copies=args.copies,
        own_server=args.with_server,
    )


def _sentence(verb: str, snapshot: Snapshot) -> str:
    runs = (
        "all runs"
        if snapshot.run_range is None
        else f"runs {snapshot.run_range[0]} to {snapshot.run_range[1]}"
    )
    made = "built" if verb == "build" else "good"
    return (
        f"{made}: {snapshot.path} ({snapshot.identity}, {snapshot.backend}, {runs}, {snapshot.size >> 20} MiB, "
        f"sha256 {snapshot.sha256[:12]})"
    )


def _leave(_number: int, _frame: FrameType | None) -> None:
    # SystemExit lets every `finally` run: the private server is stopped, the temporary directory removed.
    raise SystemExit(128 + signal.SIGTERM)
