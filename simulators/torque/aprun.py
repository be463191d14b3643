"""aprun: its options, where the ranks go, and how an application ends. Pure.

Facts: aprun manual (S-2496, a00114008) and texts of real Blue Waters runs; what no source was found for is marked
*assumed*.
"""

from __future__ import annotations

import signal
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from simulators.torque.request import Reply

# Options with a value; those that change nothing here are taken and kept.
_VALUED = frozenset("n N d S j cc r m L e t F p a D cp".split())
_FLAGS = frozenset("b B q ss T".split())
_NUMBERS = ("n", "N", "d")


@dataclass(frozen=True, slots=True)
class AprunOptions:
    """What an aprun asks for: `ranks` in all, `per_node` on each node, `depth` slots for each."""

    argv: tuple[str, ...]
    ranks: int
    per_node: int
    depth: int
    quiet: bool
    environment: tuple[tuple[str, str], ...]


def parse_aprun(words: Sequence[str], slots: int) -> AprunOptions | Reply:
    """Options of an aprun on nodes of `slots` slots; a Reply for what aprun refuses by itself.

    Unknown options, missing values, numbers below 1, -B together with -n, -N or -d, more ranks times depth than a
    node has slots, and more ranks per node than ranks are refused (the texts are assumed).
    """
    values: dict[str, str] = {}
    exported: list[tuple[str, str]] = []
    left = list(words)
    while left and left[0].startswith("-"):
        word = left.pop(0)
        if word == "--":
            break
        name, value = word[1:], None
        if name not in _VALUED | _FLAGS and name[:1] in _VALUED and name[1:].isdecimal():
            name, value = name[0], name[1:]  # -n16
        if name in _FLAGS:
            values[name] = ""
            continue
        if name not in _VALUED:
            return _refusal(f"unrecognized option '{word}'")
        if value is None:
            if not left:
                return _refusal(f"option '{word}' requires an argument")
            value = left.pop(0)
        if name == "e":
            variable, equals, text = value.partition("=")
            if not equals or not variable:
                return _refusal(f"-e expects VAR=value, found '{value}'")
            exported.append((variable, text))
        values[name] = value
    return _check(values, tuple(left), tuple(exported), slots)


def _check(
    values: Mapping[str, str], argv: tuple[str, ...], exported: tuple[tuple[str, str], ...], slots: int
) -> AprunOptions | Reply:
    if not argv:
        return _refusal("no executable given")
    numbers = {}
    for name in _NUMBERS:
        text = values.get(name, "1" if name != "N" else "")
        if text and (not text.isdecimal() or int(text) < 1):
            return _refusal(f"-{name} expects a number of at least 1, found '{text}'")
        if name in values and "B" in values:
            return _refusal(f"-B takes its values from the reservation: it cannot stand with -{name}")
        numbers[name] = int(text) if text else 0
    if "B" in values:
        return _refusal("-B is not simulated")
    ranks, depth = numbers["n"], numbers["d"]
    per_node = numbers["N"] or min(ranks, max(1, slots // depth))
    if per_node > ranks:
        return _refusal(f"-N {per_node} is more than the {ranks} of -n")
    if per_node * depth > slots:
        return _refusal(f"-N {per_node} times -d {depth} is more than the {slots} CPUs of a node")
    return AprunOptions(argv, ranks, per_node, depth, "q" in values, exported)


def _refusal(text: str) -> Reply:
    return Reply(stderr=f"aprun: {text}\naprun: Exiting due to errors. Application aborted\n", exit_code=1)


def place_ranks(options: AprunOptions, free: Sequence[int]) -> Mapping[int, int] | Reply:
    """Rank -> node, packed in the order of the free nodes of the reservation; a Reply when they do not suffice."""
    nodes = -(-options.ranks // options.per_node)
    if nodes > len(free):
        return Reply(stderr="apsched: claim exceeds reservation's node-count\n", exit_code=1)
    return {rank: free[rank // options.per_node] for rank in range(options.ranks)}


@dataclass(slots=True)
class RankEnd:
    """How one rank ended. `code` is None where a signal ended it."""

    code: int | None
    signal: int | None
    utime_s: float = 0.0
    stime_s: float = 0.0
    rss_kib: int = 0


@dataclass(slots=True)
class Application:
    """One aprun under way. `killed_by` is the first signal that ended a rank: then all are ended."""

    apid: int
    batch_id: str
    options: AprunOptions
    nodes: Mapping[int, int]
    ends: dict[int, RankEnd] = field(default_factory=dict)
    killed_by: int | None = None
    first_dead: int | None = None

    @property
    def over(self) -> bool:
        """Every rank has ended."""
        return len(self.ends) == len(self.nodes)

    def ranks_on(self, node: int) -> tuple[int, ...]:
        """Ranks of a node that have not ended."""
        return tuple(rank for rank, place in self.nodes.items() if place == node and rank not in self.ends)

    def left(self) -> frozenset[int]:
        """Nodes on which a rank has not ended."""
        return frozenset(node for rank, node in self.nodes.items() if rank not in self.ends)

    def end(self, rank: int, how: RankEnd) -> bool:
        """Note the end of a rank; True when all others must be ended because of it."""
        if rank in self.ends:
            return False
        self.ends[rank] = how
        if how.signal is not None and self.killed_by is None:
            self.killed_by, self.first_dead = how.signal, rank
            return True
        return False


def final_words(application: Application, when: str, interrupted: int | None) -> Reply:
    """What aprun prints and exits with after the last rank. `interrupted`: a signal that aprun passed on."""
    apid, ends = application.apid, application.ends.values()
    stderr = ""
    lines = []
    codes = sorted({end.code for end in ends if end.code})
    signals = sorted({_name(end.signal) for end in ends if end.signal is not None})
    if application.killed_by is not None and interrupted is None:
        rank = application.first_dead or 0
        nid = f"[NID {application.nodes[rank]:05d}]"
        name = _name(application.killed_by)
        stderr = (
            f"_pmiu_daemon(SIGCHLD): {nid} [c0-0c0s0n0] [{when}] PE RANK {rank} exit signal {name}\n"
            f"{nid} {when} Apid {apid}: initiated application termination\n"
        )
    if codes:
        lines.append(f"Application {apid} exit codes: {', '.join(str(code) for code in codes)}\n")
    if signals:
        lines.append(f"Application {apid} exit signals: {', '.join(signals)}\n")
    lines.append(f"Application {apid} resources: {_used(ends)}\n")
    exit_code = max(codes, default=0)
    if application.killed_by is not None:
        exit_code = 128 + (interrupted or application.killed_by)
    return Reply("" if application.options.quiet else "".join(lines), stderr, exit_code)


def _used(ends: Iterable[RankEnd]) -> str:
    rows = list(ends)
    utime, stime = sum(row.utime_s for row in rows), sum(row.stime_s for row in rows)
    rss = max((row.rss_kib for row in rows), default=0)
    return f"utime ~{utime:.0f}s, stime ~{stime:.0f}s, Rss ~{rss}, inblocks ~0, outblocks ~0"


def _name(number: int | None) -> str:
    """A signal as ALPS spells it."""
    return signal.strsignal(number or 0) or f"Signal {number}"
