"""Processes that an agent did not start: counted, and ended only where the site says so, in the batch job's cgroup."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from nodekit import await_true

ROOTS = (Path("/sys/fs/cgroup/pids"), Path("/sys/fs/cgroup"))


@pytest.fixture
def cgroup():
    """One that is named after the batch job of the test bundles, below one of the test's own."""
    root = next(root for root in ROOTS if (root / "cgroup.procs").exists() or root == ROOTS[-1])
    top = root / f"ep-test-{os.getpid()}-{os.urandom(3).hex()}"
    try:
        (top / "7.t").mkdir(parents=True)
    except OSError as error:
        pytest.skip(f"no cgroup can be made here: {error}")
    yield top / "7.t"
    for path in (top / "7.t", top):
        await_true(lambda path=path: gone(path))


def gone(path: Path) -> bool:
    try:
        path.rmdir()
    except OSError:
        return False
    return True


def entering(cgroup: Path) -> Callable[[], None]:
    return lambda: (cgroup / "cgroup.procs").write_text(str(os.getpid())) and None


@pytest.mark.parametrize("switch", ["none", "cgroup"])
def test_foreign_processes_of_the_batch_job_are_ended_only_where_the_site_says_so(bundle, cgroup, switch):
    bundle.extra["end_foreign"] = switch
    go = bundle.root / "go"
    bundle.job(f"while [ ! -e {go} ]; do sleep 0.02; done; echo End of Job")
    bundle.write()
    agent = subprocess.Popen(bundle.agent_argv(), preexec_fn=entering(cgroup))
    bundle.started.append(agent)
    await_true(lambda: bundle.of_kind("job_started"))
    enter = entering(cgroup)
    inside = subprocess.Popen(["sleep", "300"], preexec_fn=enter)
    outside = subprocess.Popen(["sleep", "300"])
    gate = subprocess.Popen(["sh", "-c", "sleep 300; :", str(bundle.agent_file)], preexec_fn=enter)
    started = [inside, outside, gate]
    try:
        go.touch()
        agent.wait(30)
        [end] = bundle.of_kind("agent_ended")
        alive = [process.poll() is None for process in started]
        assert alive == [switch == "none", True, True]
        assert end["foreign"] >= 4
        assert end["foreign_ended"] == (switch == "cgroup")
    finally:
        subprocess.run(["pkill", "-KILL", "-P", str(gate.pid)], check=False)
        for process in started:
            process.kill()
            process.wait()
