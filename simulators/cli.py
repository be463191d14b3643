"""`simsite`: a simulated site on this machine."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main(argv: list[str] | None = None) -> int:
    """Entry point: returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="simsite", description="A whole site on this machine, for trying and testing."
    )
    verbs = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    demo = verbs.add_parser("demo", help="the whole chain: raw files, PanDA, Torque, nodes, merge, archive")
    demo.add_argument("--out", type=Path, default=Path("demo-out"), help="directory of everything it makes")
    demo.add_argument(
        "--fault", choices=("node", "none"), default="node", help="a node dies under way, or nothing fails"
    )
    demo.add_argument("--db", choices=("sqlite", "mariadb"), default="sqlite", help="prodsys' database")
    demo.add_argument("--clean", action="store_true", help="only end and remove what an earlier demo left")
    _add_site(verbs)
    _add_load(verbs)
    _add_fuzz(verbs)
    _add_model(verbs)
    arguments = parser.parse_args(argv)
    if arguments.command == "model":
        from simulators.protocol.command import list_variants, run_model

        if arguments.list_variants:
            return list_variants()
        return run_model(arguments.variant, arguments.faults, arguments.fencing, arguments.without)
    if arguments.command == "fuzz":
        from simulators.world.fuzz_cli import run_fuzz

        # A reader that has seen enough ends this quietly.
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        return run_fuzz(arguments, ROOT)
    if arguments.command == "load":
        from simulators.load.command import run_load_command

        return run_load_command(arguments)
    if arguments.command in ("up", "fault", "jobs"):
        from simulators.site.commands import run_site_command

        return run_site_command(arguments)
    from simulators.demo.run import clean
    from simulators.demo.run import demo as run_demo

    if arguments.clean:
        problem = clean(ROOT, arguments.out.resolve())
        if problem:
            print(f"simsite: {problem}", file=sys.stderr)
        return 1 if problem else 0
    return run_demo(ROOT, arguments.out.resolve(), arguments.fault, arguments.db)


def _add_site(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    up = verbs.add_parser("up", help="PanDA and Torque servers on loopback, until a signal")
    up.add_argument(
        "file", nargs="?", type=Path, metavar="FILE", help="site file (JSON); default: 4 nodes of 4 slots"
    )
    up.add_argument(
        "--runtime", type=Path, help="directory for sockets, logs and executables (default: a new one)"
    )
    up.add_argument(
        "--speed",
        type=_speed,
        default=1.0,
        metavar="N",
        help="the servers' own times pass N times as fast (activation, adder, watcher, scheduler); payloads do not",
    )
    up.add_argument(
        "--spread",
        action="store_true",
        help="PanDA on 127.0.2.1 instead of 127.0.0.1 (nodes have 127.0.1.x anyway)",
    )
    fault = verbs.add_parser("fault", help="let something go wrong on a running site")
    fault.add_argument("name", nargs="?", metavar="NAME", help="see --list")
    fault.add_argument("target", nargs="?", metavar="TARGET", help="node, command, path, server or batch id")
    fault.add_argument("amount", nargs="?", type=float, metavar="AMOUNT", help="seconds, count or share")
    fault.add_argument("--list", action="store_true", help="what can go wrong")
    jobs = verbs.add_parser("jobs", help="submit N small jobs to a running site, without prodsys")
    jobs.add_argument("count", type=int, metavar="N")
    jobs.add_argument("--queue", default="SIM_LONG", help="PanDA queue (default: SIM_LONG)")
    jobs.add_argument("--seconds", type=float, default=2.0, help="how long each payload takes (default: 2)")
    jobs.add_argument(
        "--task", type=int, default=1, help="jediTaskID, the run in names of outputs (default: 1)"
    )
    for command in (fault, jobs):
        command.add_argument(
            "--runtime", type=Path, help="directory of the site (default: the only one that runs)"
        )


def _add_load(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    load = verbs.add_parser(
        "load", help="the real daemon over HTTP and real commands, with pretended nodes; checked"
    )
    load.add_argument("--jobs", type=int, required=True, metavar="N")
    load.add_argument(
        "--failing",
        type=float,
        default=0.05,
        metavar="SHARE",
        help="share of calls that fail (default: 0.05)",
    )
    load.add_argument(
        "--lost",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="share of PanDA's answers that never arrive, on top (default: 0)",
    )
    load.add_argument("--nodes", type=int, default=16, help="nodes of a bundle (default: 16)")
    load.add_argument("--chunk", type=int, default=100, help="updates in one call at most (default: 100)")
    load.add_argument("--live", type=int, default=12, help="bundles at once, at most (default: 12)")
    load.add_argument(
        "--kills",
        type=int,
        default=0,
        metavar="N",
        help="kill -9 the daemon so often, around calls and by chance, and start it again (default: 0)",
    )
    load.add_argument(
        "--dialect", choices=("v1", "legacy"), default="v1", help="how PanDA is spoken to (default: v1)"
    )
    load.add_argument("--seconds", type=float, default=5.0, help="how long each payload takes (default: 5)")
    load.add_argument(
        "--limit", type=float, default=1800.0, help="give up after so many seconds (default: 1800)"
    )
    load.add_argument("--out", type=Path, help="directory to keep everything in (default: a temporary one)")


def _speed(text: str) -> float:
    value = float(text)
    if not 0.001 <= value <= 1e6:
        raise argparse.ArgumentTypeError(f"{text}: expected 0.001 to 1000000")
    return value


def _add_fuzz(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    fuzz = verbs.add_parser("fuzz", help="virtual world: seeds with faults drawn, judged by checkers")
    fuzz.add_argument("--seeds", metavar="A-B", help="one seed (17) or a range (1-200)")
    fuzz.add_argument(
        "--also",
        type=Path,
        metavar="FILE",
        help="seeds that failed once, one in a line: run before the others",
    )
    fuzz.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, help="processes (default: all cores)"
    )
    fuzz.add_argument(
        "--cover", action="store_true", help="exit 1 also for what never occurred in these seeds"
    )
    fuzz.add_argument(
        "--totals", type=Path, metavar="FILE", help="write totals by fault and checker (Markdown)"
    )
    fuzz.add_argument(
        "--mutant", metavar="NAME", help="run them on a copy of this tree with a known flaw brought back"
    )
    fuzz.add_argument(
        "--list-mutants", action="store_true", help="names of the known flaws, and what they break"
    )


def _add_model(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    model = verbs.add_parser(
        "model", help="explicit-state model of the submission protocol: every order of its steps"
    )
    model.add_argument(
        "--variant", metavar="NAME", help="a wrong variant of the protocol instead of the real one"
    )
    model.add_argument(
        "--list-variants", action="store_true", help="name the wrong variants and what they break"
    )
    model.add_argument(
        "--faults", type=int, metavar="N", help="faults in one history (default: 2, or the variant's)"
    )
    model.add_argument(
        "--fencing",
        choices=("link", "weak"),
        default="link",
        help="whether link(2) is exclusive (no --variant)",
    )
    model.add_argument("--without", metavar="KIND,KIND", help="kinds of fault to leave out")


if __name__ == "__main__":
    sys.exit(main())
