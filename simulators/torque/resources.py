"""The words of `-l`: nodes, walltime and what Torque carries without looking at it. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from simulators.torque.errors import Pbse, TorqueError
from simulators.torque.schedule import NodeRequest
from simulators.torque.site import QueueSpec, TorqueSite

# Resources that Torque takes besides nodes and walltime; it keeps and shows them, the scheduler may look at them.
CARRIED = frozenset(
    "advres arch cput epilogue feature file flags gattr geometry gres host mem mppdepth mppnodect mppnodes mppnppn "
    "mppwidth naccesspolicy nallocpolicy ncpus nice nodeset opsys other partition pcput pmem procs prologue pvmem qos "
    "reqattr signal size software taskgroup template tpn trl ttc vmem".split()
)
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a batch job asks for; `shown` are the Resource_List rows in the order in which qstat prints them."""

    parts: tuple[NodeRequest, ...]
    walltime_s: int
    shown: tuple[tuple[str, str], ...]


def split_resources(text: str) -> tuple[tuple[str, str], ...] | None:
    """`nodes=16:ppn=32,walltime=1:00` as pairs; None where it is no such list."""
    pairs = []
    for word in text.split(","):
        name, equals, value = word.partition("=")
        if not name or not equals or not value:
            return None
        pairs.append((name, value))
    return tuple(pairs)


def parse_resources(
    given: Iterable[tuple[str, str]], site: TorqueSite, queue: QueueSpec
) -> Wanted | TorqueError:
    """The request behind `-l` words; a later word replaces an earlier one of the same name."""
    words: dict[str, str] = {}
    for name, value in given:
        words.pop(name, None)
        words[name] = value
    for name in words:
        if name not in CARRIED and name not in ("nodes", "walltime", "nodect"):
            return TorqueError(Pbse.UNKRESC, attribute=f"Resource_List.{name}")
    if "nodes" not in words:
        words = {"nodes": queue.nodes_default or "1", **words}
    parts = parse_nodes(words["nodes"], site)
    if parts is None:
        return TorqueError(Pbse.INVALID_SYNTAX, "Invalid Syntax")
    walltime_s = parse_walltime(words["walltime"]) if "walltime" in words else queue.walltime_default_s
    if walltime_s is None:
        return TorqueError(Pbse.BADATVAL, attribute="Resource_List.walltime")
    words["walltime"] = render_walltime(walltime_s)
    words.pop("nodect", None)
    words["nodect"] = str(sum(part.count for part in parts))
    return Wanted(parts, walltime_s, tuple(words.items()))


def parse_nodes(text: str, site: TorqueSite) -> tuple[NodeRequest, ...] | None:
    """`16:ppn=32:xe+nid00001:ppn=2`; None for bad syntax. A node that does not exist asks for node 0."""
    parts = []
    for word in text.split("+"):
        head, *rest = word.split(":")
        ppn, features = 1, []
        for item in rest:
            name, equals, value = item.partition("=")
            if name == "ppn" and value.isdecimal() and int(value) > 0:
                ppn = int(value)
            elif equals or not _NAME.fullmatch(name):
                return None
            else:
                features.append(name)
        if head.isdecimal() and int(head) > 0:
            parts.append(NodeRequest(int(head), ppn, tuple(features)))
        elif _NAME.fullmatch(head):
            parts.append(NodeRequest(1, ppn, tuple(features), node=site.node_number(head) or 0))
        else:
            return None
    return tuple(parts)


def parse_walltime(text: str) -> int | None:
    """Seconds of [[HH:]MM:]SS, None where it is none."""
    fields = text.split(":")
    if len(fields) > 4 or not all(field.isdecimal() and len(field) < 10 for field in fields):
        return None
    seconds = 0
    for field, factor in zip(reversed(fields), (1, 60, 3600, 86400), strict=False):
        seconds += int(field) * factor
    return seconds


def render_walltime(seconds: int) -> str:
    """HH:MM:SS."""
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
