"""`pilot start`, `stop` and the orders between, as an operator gives them: real processes, a socket, a journal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pilot.control import ask_daemon
from pilot.journal import FileStore
from pilot.lease import process_start
from pilot.multijob.codec import encode
from pilot.multijob.events import JobFetched
from pilot.ports import Job, PandaId

CONFIG = """
site: here
state_dir: {base}/state
shared_dir: {base}/shared
output_root: {base}/out
tick_s: 0.05
batch: {{server: sim, commands: {{submit: "{base}/qsub", list: "{base}/qstat", cancel: "{base}/qdel"}}}}
servers: [{{name: panda, url: "http://127.0.0.1:9/", dialect: v1}}]
queues:
  - {{name: long, server: panda, panda_queue: Q, batch_queue: normal, nodes: 2, slots: 4}}
  - {{name: short, server: panda, panda_queue: S, batch_queue: short, nodes: 1, slots: 4}}
"""


@pytest.fixture
def config(tmp_path: Path) -> Iterator[Path]:
    """A site whose batch system does not answer: the daemon is blind and starts nothing."""
    for name in ("qsub", "qstat", "qdel"):
        (tmp_path / name).write_text("#!/bin/sh\nexit 1\n")
        (tmp_path / name).chmod(0o755)
    path = tmp_path / "pilot.yaml"
    path.write_text(CONFIG.format(base=tmp_path))
    yield path
    pid = holder(tmp_path / "state")
    if pid is not None:
        os.kill(pid, signal.SIGKILL)


def holder(state_dir: Path) -> int | None:
    """Pid of the daemon of the newest lease if it lives."""
    import json

    leases = sorted(state_dir.glob("lease.*"), key=lambda path: int(path.suffix[1:]))
    if not leases:
        return None
    body = json.loads(leases[-1].read_text())
    return int(body["pid"]) if process_start(body["pid"]) == body["start"] else None


def pilot(config: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """One command of the operator."""
    argv = [sys.executable, "-m", "pilot", *words, "-c", str(config)]
    return subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)


def reload_whole_or_not_at_all(config: Path) -> None:
    state_dir, text = config.parent / "state", config.read_text()

    def wanted() -> list[int]:
        return [queue["wanted"] for queue in ask_daemon(state_dir, "status")["queues"]]

    def wait_for(numbers: list[int]) -> None:
        ends = time.monotonic() + 30
        while wanted() != numbers and time.monotonic() < ends:
            threading.Event().wait(0.05)
        assert wanted() == numbers

    more = text.replace("nodes: 2, slots: 4", "nodes: 2, slots: 4, wanted: 7")
    config.write_text(more.replace("batch: {server: sim,", "batch: {server: other,"))
    refused = pilot(config, "reload")
    assert refused.returncode == 1
    assert "batch.server: 'sim' -> 'other': cannot change while the daemon runs" in refused.stdout
    assert wanted() == [1, 1]
    config.write_text(more.replace("wanted: 7", "wanted: -7"))
    assert pilot(config, "reload").returncode == 2
    config.write_text(more)
    done = pilot(config, "reload")
    assert (done.returncode, done.stdout) == (0, "queues.long.wanted: 1 -> 7\n")
    wait_for([7, 1])
    assert pilot(config, "reload").stdout == "nothing differs\n"
    config.write_text(text)
    assert pilot(config, "reload").returncode == 0
    wait_for([1, 1])


def test_a_daemon_does_not_start_where_a_queues_open_jobs_are_of_another_server(
    config: Path, tmp_path: Path
) -> None:
    assert pilot(config, "start").returncode == 0 and pilot(config, "stop").returncode == 0
    job = Job(PandaId(1), 1, "Q", "name", "mass production", "true", (), None)
    fetched = JobFetched("2026-01-01T00:00:00+00:00", "long", job, server="then")
    FileStore(tmp_path / "state", 1).append(1, [encode(fetched)])
    refused = pilot(config, "start")
    assert refused.returncode == 1
    assert (
        "queues.long.server: found panda, and 1 open jobs of the queue are of server then" in refused.stderr
    )


def test_a_day_of_an_operator(config: Path, tmp_path: Path) -> None:
    state_dir = tmp_path / "state"
    started = pilot(config, "start")
    assert (started.returncode, started.stderr) == (0, "")
    pid = holder(state_dir)
    assert pid is not None
    assert f"daemon {pid} is in charge" in started.stdout
    assert os.getsid(pid) != os.getsid(0)
    assert ask_daemon(state_dir, "status")["epoch"] == 1

    again = pilot(config, "start")
    assert again.returncode == 1
    assert f"daemon {pid} on this host is running" in again.stderr

    paused = pilot(config, "pause", "--queue", "long")
    assert (paused.returncode, paused.stdout.startswith("queue long: paused")) == (0, True)
    assert pilot(config, "pause", "--queue", "none").returncode == 1
    why = pilot(config, "why", "long")
    assert why.returncode == 0
    assert "waits for" in why.stdout
    assert pilot(config, "why", "12345").returncode == 1

    reload_whole_or_not_at_all(config)

    stopped = pilot(config, "stop")
    assert stopped.returncode == 0
    assert "adopts them" in stopped.stdout
    assert process_start(pid) is None

    assert pilot(config, "start").returncode == 0
    resumed = pilot(config, "resume")
    assert "queue long: resumed" in resumed.stdout
    assert "queue short: neither" in resumed.stdout
    assert pilot(config, "stop").returncode == 0


def test_without_a_daemon_orders_fail_in_one_line_and_the_journal_still_tells(config: Path) -> None:
    for words in (("stop",), ("drain",), ("pause",), ("resume",), ("why", "long"), ("status",)):
        done = pilot(config, *words)
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1
        assert "no daemon runs on" in done.stderr
    assert pilot(config, "story", "1").returncode == 1
    shown = pilot(config, "bundle", "--dry-run", "--queue", "short")
    assert shown.returncode == 0, shown.stderr
    assert "#PBS -q short" in shown.stdout
    assert pilot(config, "bundle", "--dry-run", "--queue", "none").returncode == 1


def test_a_daemon_that_cannot_start_says_why_to_the_one_who_starts_it(config: Path, tmp_path: Path) -> None:
    (tmp_path / "shared").write_text("in the way")
    done = pilot(config, "start")
    assert done.returncode == 1
    assert "shared" in done.stderr
    assert holder(tmp_path / "state") is None


def test_a_time_that_is_none_is_wrong_usage(config: Path) -> None:
    done = pilot(config, "drain", "--until", "noon")
    assert done.returncode == 2
    assert "expected 2026" in done.stderr


def test_a_daemon_starts_with_what_precedes_damage_in_its_journal_and_an_alarm_says_so(config: Path) -> None:
    state_dir = config.parent / "state"
    state_dir.mkdir()
    store = FileStore(state_dir, 1)
    for number in (1, 2, 3):
        job = Job(PandaId(number), 1, "Q", f"job-{number}", "mass production", "", (), "")
        store.append(
            number, [encode(JobFetched("2026-01-01T00:00:00+00:00", "long", job, None, server="panda"))]
        )
    path = state_dir / "journal.1/segment.000001"
    path.write_bytes(path.read_bytes().replace(b"job-2", b"job-x"))
    done = pilot(config, "start")
    assert done.returncode == 0, done.stdout + done.stderr
    status = ask_daemon(state_dir, "status")
    alarms = {alarm["name"]: alarm["reason"] for alarm in status["alarms"]}
    assert "segment.000001: line 4 is damaged" in alarms["journal-damaged"]
    assert status["queues"][0]["jobs"]["pooled"] == 1
    assert pilot(config, "stop").returncode == 0
