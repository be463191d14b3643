"""Figures of the node side: the agent file that travels to nodes, run as the gate runs it."""

from __future__ import annotations

import contextlib
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.bundle import Bundle, run_command
from bench.measurement import CannotMeasure, Measurement, Sample, Take, in_turn

PAYLOADS = 2000
NODES_OF_A_BUNDLE = 16
JOBS_OF_A_NODE = 32
# What the pilot and the batch system may add to a bundle's directory in its life (docs/architecture/files.md).
PILOT_FILES = frozenset({"script.1.sh", "batch.1.out", "door", "closed", "commands.json", "credential"})


@contextlib.contextmanager
def node_memory() -> Iterator[Path]:
    """A directory in memory, as a node's local directory is; short, for unix sockets."""
    directory = Path(tempfile.mkdtemp(prefix="ep-bench-", dir="/dev/shm"))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextlib.contextmanager
def _start(work: Path) -> Iterator[Take]:
    strace = shutil.which("strace")
    if strace is None:
        raise CannotMeasure("strace is not installed")

    def take(run: int) -> dict[str, Sample]:
        with node_memory() as local:
            bundle = Bundle(work / str(run), local)
            for _ in range(JOBS_OF_A_NODE):
                bundle.job(["true"])
            trace = work / f"{run}.trace"
            bundle.run("agent", [strace, "-f", "-s", "200", "-e", "trace=%file,write", "-o", str(trace)])
            every, shared = count_file_calls(trace.read_text(errors="replace").splitlines(), str(bundle.root))
        return {"node.start_fs_calls": every, "node.start_shared_fs_calls": shared}

    yield take


def count_file_calls(lines: Sequence[str], shared: str) -> tuple[int, int]:
    """(all, those that name a path below `shared`) before the write of the line `agent_started` of an strace."""
    every = on_shared = 0
    for line in lines:
        call = re.sub(r"^\d+ +", "", line)
        if call.startswith("write("):
            if "agent_started" in call:
                return every, on_shared
        elif re.match(r"\w+\(", call):
            every += 1
            on_shared += shared in call
    raise CannotMeasure("the trace holds no start line")


def _throughput(name: str, argv: Sequence[str], width: int, outputs: int = 0) -> Measurement:
    kind = "bare" if outputs == 0 else "plain"

    @contextlib.contextmanager
    def prepare(work: Path) -> Iterator[Take]:
        def agent(run: int) -> float:
            with node_memory() as local:
                bundle = Bundle(work / str(run), local, slots=width)
                for _ in range(PAYLOADS):
                    bundle.job(argv, [f"o{number}" for number in range(outputs)], kind, log=outputs > 0)
                begun = time.monotonic()
                bundle.run("agent")
                spent = time.monotonic() - begun
                good = [line for line in bundle.of_kind("job_ended") if line["exit_code"] == 0]
                if len(good) != PAYLOADS or not all(
                    item["placed"] for line in good for item in line["files"]
                ):
                    raise CannotMeasure(f"{len(good)} of {PAYLOADS} payloads ended well")
            shutil.rmtree(work / str(run))
            return PAYLOADS / spent

        def bare() -> float:
            with node_memory() as here:
                begun = time.monotonic()
                words = [sys.executable, "-m", "bench.spawn", str(width), str(PAYLOADS)]
                run_command(["env", f"O={here}", *words, *argv])
                return PAYLOADS / (time.monotonic() - begun)

        yield lambda run: {name: in_turn(run, lambda: agent(run), bare)}

    how = (
        f"agent.pyz agent, {PAYLOADS} payloads `{' '.join(argv)}` in {width} slots, from exec to exit, per second; "
        "baseline: posix_spawn of the same at the same width"
    )
    return Measurement((name,), how, prepare)


@contextlib.contextmanager
def _bundle_files(work: Path) -> Iterator[Take]:
    def take(run: int) -> dict[str, Sample]:
        with node_memory() as local:
            bundle = Bundle(work / str(run), local, NODES_OF_A_BUNDLE, slots=2)
            for node in range(NODES_OF_A_BUNDLE):
                for _ in range(4):
                    bundle.job(["echo", "End of Job"], node=node, log=True)
            bundle.run("gate")
            if len(bundle.of_kind("job_ended")) != 4 * NODES_OF_A_BUNDLE:
                raise CannotMeasure("not every payload ended")
            found = {path.name for path in bundle.directory.rglob("*")} | PILOT_FILES
            return {"node.shared_files_per_bundle": len(found)}

    yield take


# What a payload may do to its node; the jobs beside it must not notice.
CULPRITS: tuple[tuple[str, ...], ...] = (
    ("sh", "-c", "exit 3"),
    ("sh", "-c", "kill -SEGV $$"),
    ("sh", "-c", "kill -KILL 0"),
    ("no-such-program",),
    ("sh", "-c", "echo End of Job"),  # exit 0 without its output
    ("sh", "-c", "mkfifo o; echo End of Job"),
    ("sh", "-c", "rm -rf ..; echo End of Job"),
    ("sh", "-c", "yes | head -c 30000000; sleep 60"),  # over its limit of output
    (
        "sh",
        "-c",
        "trap '' TERM HUP INT; i=0; while [ $i -lt 20 ]; do setsid sleep 3607 & i=$((i+1)); done; exit 1",
    ),
    ("sh", "-c", "chmod 000 .; exit 1"),
)
MARK = "3607"


@contextlib.contextmanager
def _faults(work: Path) -> Iterator[Take]:
    def take(run: int) -> dict[str, Sample]:
        with node_memory() as local:
            bundle = Bundle(work / str(run), local, slots=8)
            bundle.limits.update(stdout_max_mib=10, sample_s=0.2, kill_s=2)
            good = []
            for culprit in CULPRITS:
                bundle.job(culprit, ["o"], log=True)
                script = "sleep 0.2; echo x > o; echo End of Job"
                good += [bundle.job(["sh", "-c", script], ["o"], log=True) for _ in range(3)]
            bundle.run("agent")
            ends = {line["panda_id"]: line for line in bundle.of_kind("job_ended")}
            hit = [panda_id for panda_id in good if not _well(ends.get(panda_id))]
            left = len(list(local.iterdir())) + len(processes_with(MARK))
            return {"node.blast_radius": len(hit), "node.left_behind": left}

    yield take


def _well(end: object) -> bool:
    if not isinstance(end, dict):
        return False
    return end["exit_code"] == 0 and end["marker"] is True and all(item["placed"] for item in end["files"])


def processes_with(word: str) -> list[int]:
    """Pids of processes whose command line has this word."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and word.encode() in (entry / "cmdline").read_bytes().split(b"\0"):
                found.append(int(entry.name))
    return found


# Slots of a node of the standard bundle, whatever this machine has; a few slots cannot share an fsync: reported beside.
WIDTH, FEW = JOBS_OF_A_NODE, 2
_OUTPUT = ("/bin/sh", "-c", "echo End of Job; echo x > ${O:-.}/o0")

MEASUREMENTS: tuple[Measurement, ...] = (
    Measurement(
        ("node.start_fs_calls", "node.start_shared_fs_calls"),
        "strace -f -e trace=%file of agent.pyz agent, from exec to its start line",
        _start,
    ),
    _throughput("node.launch_ratio_50ms", ("/bin/sleep", "0.05"), WIDTH),
    _throughput("node.launch_ratio_true", ("/bin/true",), WIDTH),
    _throughput("node.launch_ratio_true_few_slots", ("/bin/true",), FEW),
    _throughput("node.launch_ratio_outputs", _OUTPUT, WIDTH, outputs=1),
    Measurement(
        ("node.shared_files_per_bundle",),
        f"agent.pyz gate of a bundle of {NODES_OF_A_BUNDLE} nodes to its end; files in the bundle's directory, "
        f"and {len(PILOT_FILES)} that the pilot and the batch system may add",
        _bundle_files,
    ),
    Measurement(
        ("node.blast_radius", "node.left_behind"),
        f"agent.pyz agent with {len(CULPRITS)} kinds of bad payloads, each between three good ones: good jobs without "
        "success; processes and local files after its end",
        _faults,
    ),
)
