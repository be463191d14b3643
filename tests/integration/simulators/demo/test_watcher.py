"""What is left behind is counted: a process that escaped, a socket, a file."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).parents[4]

WATCH = textwrap.dedent(
    """
    import os, subprocess, sys
    from simulators.demo import watcher
    watcher.become_watcher()
    before = watcher.look()
    planted = subprocess.run([sys.executable, "-c", sys.argv[1]], capture_output=True, text=True, check=True)
    watcher.reap()
    after = watcher.look()
    held = watcher.held_sockets(after.descendants)
    lines = watcher.left_behind(before, after, held, "ep-test", frozenset({"pytest-"}))
    for line in lines:
        print(line)
    for pid in after.descendants - before.descendants:
        os.kill(pid, 9)
    """
)


def left(plant: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", WATCH, textwrap.dedent(plant)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout.splitlines()


ESCAPED = """
import os, sys
def escape(work):
    if os.fork():
        return
    os.setsid()
    if os.fork():
        os._exit(0)
    os.closerange(0, 3)
    ready()
    work()
    import signal
    signal.pause()
r, w = os.pipe()
def ready():
    pass
"""


def test_a_double_forked_sleeper_is_counted() -> None:
    lines = left(ESCAPED + "escape(lambda: os.close(w))\nos.close(w)\nos.read(r, 1)\n")
    assert [line.split()[0] for line in lines] == ["process"]


def test_a_listening_socket_is_counted() -> None:
    plant = """
def listen():
    import socket
    global kept
    kept = socket.socket()
    kept.bind(("127.0.0.1", 0))
    kept.listen()
    os.close(w)
escape(listen)
os.close(w)
os.read(r, 1)
"""
    lines = left(ESCAPED + plant)
    assert sorted(line.split()[0] for line in lines) == ["listening", "process"]


def test_a_file_is_counted() -> None:
    name = "/dev/shm/ep-test-planted"
    try:
        assert left(f"open({name!r}, 'w').close()") == [f"file {name}"]
    finally:
        Path(name).unlink(missing_ok=True)


def test_a_clean_run_leaves_nothing() -> None:
    assert left("pass") == []
