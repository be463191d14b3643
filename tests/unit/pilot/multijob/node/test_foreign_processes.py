"""Processes of the same user that are none of the agent's own are counted, and only those that began after it."""

from __future__ import annotations

import os
import subprocess
import sys

from pilot.multijob.node.processes import Name, Seen, foreign, owned_by, snapshot

AGENT = Seen(10, 1, 10, 500, "S", 1.0)


def _seen(*others: Seen) -> dict[int, Seen]:
    return {item.pid: item for item in (AGENT, *others)}


def test_own_children_earlier_ones_defunct_ones_and_other_users_do_not_count() -> None:
    own, grandchild = Seen(11, 10, 10, 600, "S", 1.0), Seen(12, 11, 12, 601, "S", 1.0)
    earlier, defunct = Seen(13, 1, 13, 400, "S", 1.0), Seen(14, 1, 14, 700, "Z", 0.0)
    others, late = Seen(15, 1, 15, 700, "S", 1.0), Seen(16, 1, 16, 700, "R", 1.0)
    found = foreign(_seen(own, grandchild, earlier, defunct, others, late), 10, lambda pid: pid != 15)
    assert found == {Name(16, 700)}
    assert foreign(_seen(late), 99, lambda pid: True) == frozenset()


def test_a_process_beside_this_one_is_foreign_to_its_sibling() -> None:
    held = "import sys; print(flush=True); sys.stdin.read()"
    words = [sys.executable, "-c", held]
    first = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert first.stdout is not None
    first.stdout.readline()
    began = snapshot()[first.pid].start
    while True:
        # Start times are told in hundredths of a second: one that begins in the same is not told apart.
        second = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert second.stdout is not None
        second.stdout.readline()
        late = snapshot()[second.pid].start > began
        pids = {name.pid for name in foreign(snapshot(), first.pid, owned_by(os.getuid()))}
        second.communicate()
        if late:
            break
    first.communicate()
    assert second.pid in pids and first.pid not in pids
