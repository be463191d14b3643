"""The node's half of `pilot check --probe`: what a node has, and files that go to and fro between it and the edge.

`pilot.rotation.probe` is the other half. Both make a link for each of many names, in opposite orders, and decide by
st_nlink of the own file as the gate does: where both take a name for their own, link(2) is not exclusive.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any, Dict, List, Sequence

from pilot.multijob.node.files import (
    CountLinks,
    Exists,
    Link,
    Pause,
    Put,
    PutNew,
    Read,
    Steps,
    perform,
    run_steps,
)

# Looks at the other's next word: far shorter than any time that is measured, and no load for one minute.
POLL_S = 0.05
# Words that go to and fro: a cache of names that shows one of them late is found.
ECHOES = 20
# Names for which both make a link, in opposite orders: in the middle they meet. A pause after each: they must begin at
# the same time as far as that takes long.
NAMES, PACE_S = 200, 0.005


def contest(directory: str, side: str, numbers: Sequence[int]) -> Steps[List[int]]:
    """Make a link for each number, as a gate claims a round; those that this side takes for its own."""
    for number in numbers:
        yield PutNew("%s/own.%s.%d" % (directory, side, number), side)
    won = []
    for number in numbers:
        own = "%s/own.%s.%d" % (directory, side, number)
        try:
            yield Link(own, "%s/name.%d" % (directory, number))
        except FileExistsError:
            pass
        if (yield CountLinks(own)) == 2:
            won.append(number)
        yield Pause(PACE_S)
    return won


def await_text(path: str, left_s: float) -> Steps[str]:
    """The text of a file that the other side writes; TimeoutError where it does not come."""
    looks = int(left_s / POLL_S)
    for _ in range(max(1, looks)):
        if (yield Exists(path)):
            text = yield Read(path)
            if text.endswith("\n"):
                whole: str = text
                return whole
        yield Pause(POLL_S)
    raise TimeoutError("%s did not come in %.0f s" % (path, left_s))


def node_steps(directory: str, facts: Dict[str, Any], left_s: float) -> Steps[None]:
    """Say what this node is, echo what the edge writes, then make links against it."""
    yield from say(directory, "here", facts)
    for number in range(ECHOES):
        yield from await_text("%s/ping.%d" % (directory, number), left_s)
        yield from say(directory, "pong.%d" % number, {})
    yield from await_text("%s/start" % directory, left_s)
    won = yield from contest(directory, "node", range(NAMES - 1, -1, -1))
    yield from say(directory, "won", {"numbers": won})


def say(directory: str, name: str, body: Dict[str, Any]) -> Steps[None]:
    """Write a file whole, for the other side."""
    path = "%s/%s" % (directory, name)
    yield Put(path, json.dumps(body, sort_keys=True) + "\n", path + ".tmp")


def node_facts(local_dir: str) -> Dict[str, Any]:
    """What the edge cannot see of a node."""
    trouble, free_mib = "", None
    try:
        path = os.path.join(local_dir, "ep-probe-%d-%s" % (os.getuid(), os.urandom(6).hex()))
        os.mkdir(path, 0o700)
        os.rmdir(path)
        found = os.statvfs(local_dir)
        free_mib = found.f_bavail * found.f_frsize // 2**20
    except OSError as error:
        trouble = "%s: %s" % (local_dir, error.strerror)
    with open("/proc/meminfo", encoding="ascii") as file:
        kib = {line.split(":")[0]: int(line.split()[1]) for line in file}
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        boot_id = file.read().strip()
    return {
        "host": os.uname().nodename,
        "boot_id": boot_id,
        "python": list(sys.version_info[:3]),
        "local_dir": local_dir,
        "local_free_mib": free_mib,
        "local_trouble": trouble,
        "memory_mib": kib.get("MemAvailable", kib["MemTotal"]) // 1024,
        "cores": len(os.sched_getaffinity(0)),
    }


def run_probe(directory: str, local_dir: str, left_s: float) -> None:
    """Carry out the node's half. Raises OSError."""
    run_steps(node_steps(directory, node_facts(local_dir), left_s), perform)
