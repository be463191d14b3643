"""Several agents of one batch job on a node: one calibration server, until the last of them has let go of it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from nodekit import Bundle, await_true, keepers, processes_with
from snapkit import PROBE, no_server, write_dump

from pilot.caldb.sharing import clear, join, remove_unused
from pilot.caldb.snapshot import build_snapshot, manifest_caldb
from pilot.multijob.node.entry import database_name

needs_server = pytest.mark.skipif(no_server, reason="mariadbd is not installed")

QUERY = """
import mysql.connector, os, sys, time
go = sys.argv[1]
while not os.path.exists(go):
    time.sleep(0.02)
c = mysql.connector.connect(option_files=os.environ["CDB_OPTION_FILE"], database=os.environ["CDB_DATABASE"])
k = c.cursor()
k.execute("SELECT data FROM calib_payload ORDER BY payload_id")
print(len(k.fetchall()), "rows")
print("End of Job")
"""


class Pair:
    """A bundle of two nodes that are one machine: node 0 has the job `first`, node 1 `second`; both wait for a file."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self.go = [bundle.root / "go.0", bundle.root / "go.1"]
        jobs = []
        for go in self.go:
            self.bundle.jobs = []
            self.bundle.job("", kind="calib", argv=[sys.executable, "-c", QUERY, str(go)])
            jobs.append(self.bundle.jobs)
        jobs[1][0]["panda_id"] = 2001
        bundle.extra["nodes"] = [{"index": node, "jobs": items} for node, items in enumerate(jobs)]
        bundle.extra["launch"] = [[], []]
        self.agents: list[subprocess.Popen[str]] = []

    def start(self) -> None:
        """The agent of node 0 has its server before that of node 1 begins."""
        self.agents = [self.bundle.start_agent()]
        await_true(lambda: self.bundle.of_kind("caldb_ready"))
        self.agents.append(self.bundle.start_agent(node=1))
        await_true(lambda: len(self.bundle.of_kind("job_started")) == 2)

    def ended(self) -> set[int]:
        return {line["panda_id"] for line in self.bundle.of_kind("job_ended")}

    def pid(self, node: int) -> int:
        [pid] = [line["pid"] for line in self.bundle.of_kind("agent_started") if line["node"] == node]
        return int(pid)

    def keeper(self, node: int) -> int:
        [pid] = [pid for pid in keepers(self.bundle.local) if parent(pid) == self.pid(node)]
        return pid

    def finish(self) -> None:
        for agent in self.agents:
            agent.communicate(timeout=30)
            assert agent.returncode == 0
        assert list(self.bundle.local.iterdir()) == []
        assert processes_with(str(self.bundle.local)) == []


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def good(end: dict[str, Any]) -> bool:
    return end["exit_code"] == 0 and end["marker"] is True


@pytest.fixture(scope="session")
def caldb(tmp_path_factory):
    directory = tmp_path_factory.mktemp("snapshot")
    dump = write_dump(directory)
    return manifest_caldb(build_snapshot(dump, directory / "calib", identity="c", probe_sql=PROBE))


@pytest.fixture
def local():
    made = Path("/dev/shm") / f"t{os.getpid()}-{os.urandom(3).hex()}"
    made.mkdir()
    yield made
    shutil.rmtree(made)


@pytest.fixture
def pair(bundle, caldb, local):
    bundle.local, bundle.extra["caldb"] = local, caldb
    yield Pair(bundle)
    bundle.end_agents()


@needs_server
def test_agents_of_one_batch_job_share_a_server_that_stays_for_the_last_of_them(pair):
    pair.start()
    assert len({line["pid"] for line in pair.bundle.of_kind("caldb_ready")}) == 1
    pair.go[0].touch()
    await_true(lambda: pair.bundle.of_kind("agent_ended"))
    [end] = pair.bundle.of_kind("agent_ended")
    assert (end["reason"], end["left_behind"]) == ("list worked", 0)
    pair.go[1].touch()
    pair.finish()
    assert not pair.bundle.of_kind("caldb_restarted")
    assert pair.ended() == {1001, 2001}
    assert all(good(pair.bundle.end_of(job)) for job in pair.ended())


@needs_server
def test_one_that_only_follows_ends_without_the_server(pair):
    pair.start()
    pair.go[1].touch()
    pair.agents[1].communicate(timeout=30)
    assert pair.agents[0].poll() is None
    pair.go[0].touch()
    pair.finish()
    assert all(good(pair.bundle.end_of(job)) for job in (1001, 2001))


@needs_server
def test_the_death_of_one_agent_takes_the_server_from_no_other(pair):
    pair.start()
    os.kill(pair.pid(0), signal.SIGKILL)
    pair.go[1].touch()
    await_true(lambda: 2001 in pair.ended())
    pair.finish()
    assert pair.ended() == {2001}
    assert good(pair.bundle.end_of(2001))
    assert not pair.bundle.of_kind("caldb_restarted")


@needs_server
def test_the_death_of_a_keeper_is_followed_by_one_of_another_agent(pair):
    pair.start()
    os.kill(pair.keeper(0), signal.SIGKILL)
    await_true(lambda: len(pair.bundle.of_kind("caldb_ready")) == 3)
    pair.go[1].touch()
    pair.finish()
    assert good(pair.bundle.end_of(2001))
    assert [line["count"] for line in pair.bundle.of_kind("caldb_restarted")] == [1]
    assert pair.bundle.end_of(1001)["ended_by"] == "caldb-lost"


@needs_server
def test_an_agent_that_waits_for_others_ends_when_it_is_asked(pair):
    pair.start()
    pair.go[0].touch()
    await_true(lambda: pair.bundle.of_kind("agent_ended"))
    await_true(lambda: not Path(f"/proc/{pair.pid(0)}").exists())
    pair.agents[0].terminate()
    pair.agents[0].communicate(timeout=30)
    pair.go[1].touch()
    pair.finish()


@needs_server
def test_what_the_same_batch_job_left_when_it_was_killed_is_cleared_and_served_anew(pair):
    stale = pair.bundle.local / database_name(os.getuid(), "btestabcd", 1, os.uname().nodename)
    (stale / "dd" / "calib").mkdir(parents=True)
    stale.chmod(0o700)
    for name in ("s.sock", "k.sock", "users.lock", "keeper.lock", "mariadbd.pid", "notify"):
        (stale / name).write_text("4000000\n")
    pair.start()
    for go in pair.go:
        go.touch()
    pair.finish()
    assert all(good(pair.bundle.end_of(job)) for job in (1001, 2001))


def test_a_directory_that_others_could_enter_is_not_joined(local):
    open_one = local / "x.db"
    open_one.mkdir(mode=0o755)
    with pytest.raises(OSError, match="this user alone"):
        join(str(open_one))
    link = local / "y.db"
    link.symlink_to(local)
    with pytest.raises(OSError, match="this user alone"):
        join(str(link))


def test_a_directory_is_removed_when_nobody_uses_it_and_not_before(local):
    directory = local / "x.db"
    users = [join(str(directory)), join(str(directory))]
    (directory / "file").touch()
    for user in users:
        remove_unused(str(directory))
        assert directory.exists()
        os.close(user)
    remove_unused(str(directory))
    assert not directory.exists()


def test_a_keeper_that_gives_up_leaves_the_locks_of_the_others(local):
    user = join(str(local / "x.db"))
    for name in ("s.sock", "keeper.lock"):
        (local / "x.db" / name).touch()
    (local / "x.db" / "dd").mkdir()
    clear(str(local / "x.db"))
    assert sorted(path.name for path in (local / "x.db").iterdir()) == ["keeper.lock", "users.lock"]
    os.close(user)
