"""A real agent with a real calibration server."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from pathlib import Path

import pytest
from nodekit import await_true, keepers, processes_with
from snapkit import PROBE, no_server, write_dump

from pilot.caldb.snapshot import build_snapshot, manifest_caldb
from pilot.multijob.node.entry import database_name

needs_server = pytest.mark.skipif(no_server, reason="mariadbd is not installed")

QUERY = """
import mysql.connector, os, sys
c = mysql.connector.connect(option_files=os.environ["CDB_OPTION_FILE"], database=os.environ["CDB_DATABASE"])
k = c.cursor()
k.execute("SELECT data FROM calib_payload ORDER BY payload_id")
print([bytes(row[0]).hex() for row in k])
try:
    k.execute("DELETE FROM calib_payload")
except mysql.connector.Error as error:
    print("refused", error.errno)
print("End of Job")
"""


@pytest.fixture(scope="session", params=["mariadb", "sqlite"])
def any_snapshot(request, tmp_path_factory):
    if request.param == "mariadb" and no_server:
        pytest.skip("mariadbd is not installed")
    return _build(tmp_path_factory.mktemp("snapshot"), request.param)


@pytest.fixture(scope="session")
def snapshot(tmp_path_factory):
    return _build(tmp_path_factory.mktemp("snapshot"), "mariadb")


def _build(directory, backend):
    dump = write_dump(directory)
    return build_snapshot(dump, directory / "calib", identity="cal-1", probe_sql=PROBE, backend=backend)


@pytest.fixture
def calib(bundle, tmp_path):
    """The bundle with short local paths: a unix socket must fit."""
    bundle.local = Path("/dev/shm") / f"t{os.getpid()}-{os.urandom(3).hex()}"
    bundle.local.mkdir()
    yield bundle
    left = list(bundle.local.iterdir())
    for path in left:
        for file in path.iterdir():
            file.unlink()
        path.rmdir()
    bundle.local.rmdir()


def test_payload_reads_calibrations(calib, any_snapshot):
    calib.extra["caldb"] = manifest_caldb(any_snapshot)
    if any_snapshot.backend == "mariadb":
        argv = [sys.executable, "-c", QUERY]
    else:
        script = "import os,sqlite3\nc = sqlite3.connect(os.environ['CDB_SQLITE'])\n"
        script += "print(c.execute('SELECT max(size) FROM calib_payload').fetchall(), 'End of Job')"
        argv = [sys.executable, "-c", script]
    job = calib.job("", kind="calib", argv=argv)
    lines = calib.run_agent()
    assert lines[0]["caldb"] == "cal-1"
    [ready] = calib.of_kind("caldb_ready")
    assert (ready["backend"], ready["identity"]) == (any_snapshot.backend, "cal-1")
    end = calib.end_of(job)
    assert (end["exit_code"], end["marker"]) == (0, True), end
    assert lines[-1]["left_behind"] == 0
    assert list(calib.local.iterdir()) == []


def test_a_snapshot_without_a_server_is_served_below_any_path(calib, tmp_path):
    calib.extra["caldb"] = manifest_caldb(_build(tmp_path, "sqlite"))
    job = calib.job("test -r $CDB_SQLITE && echo End of Job", kind="calib")
    short, calib.local = calib.local, calib.local / ("x" * 100)
    calib.local.mkdir()
    calib.run_agent()
    assert calib.end_of(job)["marker"] is True
    assert list(calib.local.iterdir()) == []
    calib.local.rmdir()
    calib.local = short


@needs_server
def test_a_server_inside_the_snapshot_needs_nothing_of_the_node(calib, tmp_path):
    built = build_snapshot(
        write_dump(tmp_path), tmp_path / "c", identity="c", probe_sql=PROBE, own_server=True
    )
    calib.extra["caldb"] = manifest_caldb(built, server="/nowhere/mariadbd")
    go = calib.root / "go"
    job = calib.job(f"while [ ! -e {go} ]; do sleep 0.02; done; echo End of Job", kind="calib")
    agent = calib.start_agent()
    await_true(lambda: calib.of_kind("job_started"))
    maps = Path(f"/proc/{calib.of_kind('caldb_ready')[0]['pid']}/maps").read_text().splitlines()
    code = {line.split(maxsplit=5)[5] for line in maps if "r-xp" in line and "/" in line}
    go.touch()
    agent.communicate(timeout=30)
    assert len(code) > 5
    # The node's own look-up of accounts is loaded into it when it is started as root, and only then.
    others = [path for path in code if not path.startswith(str(calib.local)) and "/libnss_" not in path]
    assert others == []
    assert calib.end_of(job)["exit_code"] == 0


@needs_server
def test_a_directory_without_room_leaves_the_server_another_one(calib, snapshot):
    spare = calib.local / "spare"
    spare.mkdir()
    too_large = {**manifest_caldb(snapshot), "size": os.statvfs(calib.local).f_blocks * 2**20}
    calib.extra["caldb"] = {**too_large, "directories": ["$NOT_HERE", str(spare)]}
    calib.job("echo End of Job", kind="calib")
    lines = calib.run_agent()
    assert [line["kind"] for line in lines if line["kind"].startswith("caldb")] == ["caldb_ready"]
    calib.extra["caldb"] = {**manifest_caldb(snapshot), "directories": [str(spare)]}
    (spare / database_name(os.getuid(), "btestabcd", 1, os.uname().nodename)).mkdir(mode=0o700)
    calib.run_agent()
    assert len(calib.of_kind("caldb_ready")) == 2
    assert [path.name for path in calib.local.iterdir()] == ["spare"]
    spare.rmdir()


@needs_server
def test_nodes_read_the_copies_of_a_snapshot_in_turn(calib, tmp_path):
    built = build_snapshot(write_dump(tmp_path), tmp_path / "c", identity="c", probe_sql=PROBE, copies=2)
    calib.extra["caldb"] = manifest_caldb(built)
    job = calib.job("echo End of Job", kind="calib")
    calib.extra["nodes"] = [{"index": 3, "jobs": calib.jobs}]
    calib.extra["launch"] = [[]] * 4
    Path(built.path).unlink()
    calib.start_agent(node=3).communicate(timeout=30)
    assert calib.end_of(job)["exit_code"] == 0


# As many connections at a time as asked for; a server that takes no more greets with an error packet (0xff).
CONNECT = """
import os, socket, sys
held = [socket.socket(socket.AF_UNIX) for _ in range(int(sys.argv[1]))]
for connection in held:
    connection.connect(os.environ["MYSQL_UNIX_PORT"])
sys.exit(sum(connection.recv(5)[4] != 10 for connection in held) and 9)
"""


@needs_server
def test_a_node_of_many_slots_refuses_none_of_its_payloads(calib, snapshot):
    calib.extra["caldb"] = manifest_caldb(snapshot)
    calib.slots = 100
    (calib.root / "connect.py").write_text(CONNECT)
    job = calib.job(f"{sys.executable} {calib.root}/connect.py 200", kind="calib")
    calib.run_agent()
    assert calib.end_of(job)["exit_code"] == 0


@needs_server
def test_server_restarts_after_its_death_and_jobs_go_on(calib, snapshot):
    calib.extra["caldb"] = manifest_caldb(snapshot)
    go = calib.root / "go"
    first = calib.job(f"while [ ! -e {go} ]; do sleep 0.02; done; echo End of Job", kind="calib")
    agent = calib.start_agent()
    await_true(lambda: calib.of_kind("job_started"))
    os.kill(calib.of_kind("caldb_ready")[0]["pid"], signal.SIGKILL)
    await_true(lambda: len(calib.of_kind("caldb_ready")) == 2)
    go.touch()
    agent.communicate(timeout=30)
    assert [line["count"] for line in calib.of_kind("caldb_restarted")] == [1]
    assert calib.end_of(first)["ended_by"] is None
    assert list(calib.local.iterdir()) == []


@needs_server
def test_server_that_keeps_dying_gives_jobs_back(calib, snapshot):
    calib.limits["caldb_restarts"] = 0
    calib.slots = 1
    calib.extra["caldb"] = manifest_caldb(snapshot)
    running = calib.job("exec sleep 60", kind="calib")
    waiting = calib.job("echo End of Job", kind="calib")
    free = calib.job("echo End of Job")
    agent = calib.start_agent()
    await_true(lambda: running in [line["panda_id"] for line in calib.of_kind("job_started")])
    os.kill(calib.of_kind("caldb_ready")[0]["pid"], signal.SIGKILL)
    agent.communicate(timeout=30)
    assert calib.end_of(running)["ended_by"] == "caldb-lost"
    assert [line["jobs"] for line in calib.of_kind("given_back")] == [[[waiting, 1]]]
    assert calib.end_of(free)["exit_code"] == 0
    [failed] = calib.of_kind("caldb_failed")
    assert "ended with -9" in failed["reason"]


@needs_server
@pytest.mark.parametrize("fault", ["checksum", "truncated", "missing", "probe", "no server"])
def test_bad_snapshot_gives_jobs_back_with_the_reason(calib, snapshot, tmp_path, fault):
    caldb = manifest_caldb(snapshot)
    copy = tmp_path / "bad.tar"
    content = Path(snapshot.path).read_bytes()
    if fault == "checksum":
        copy.write_bytes(content[:-1] + b"x")
    elif fault == "truncated":
        copy.write_bytes(content[: len(content) // 2])
    if fault in ("checksum", "truncated", "missing"):
        caldb["snapshot"] = str(copy)
    elif fault == "probe":
        caldb["probe"]["expect"] = "5"
    else:
        caldb["server"] = "/nowhere/mariadbd"
    calib.limits["caldb_restarts"] = 0
    calib.extra["caldb"] = caldb
    job = calib.job("echo End of Job", kind="calib")
    lines = calib.run_agent()
    [failed] = calib.of_kind("caldb_failed")
    words = {
        "checksum": "checksum",
        "truncated": "truncated",
        "missing": "No such file",
        "probe": "answered '4', expected '5'",
        "no server": "no calibration server",
    }
    assert words[fault] in failed["reason"]
    assert calib.of_kind("given_back")[0]["jobs"] == [[job, 1]]
    assert lines[-1]["reason"] == "no calibration server"
    assert list(calib.local.iterdir()) == []


@needs_server
@pytest.mark.parametrize("victims", ["agent", "keeper", "agent and keeper"])
def test_nothing_is_left_when_they_are_killed(calib, snapshot, victims):
    calib.limits["caldb_restarts"] = 0
    calib.extra["caldb"] = manifest_caldb(snapshot)
    calib.job("setsid sleep 61 & exec sleep 61", kind="calib")
    agent = calib.start_agent()
    await_true(lambda: calib.of_kind("job_started"))
    pids = []
    if "agent" in victims:
        pids.append(calib.of_kind("agent_started")[0]["pid"])
    if "keeper" in victims:
        pids += keepers(calib.local)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    agent.communicate(timeout=30)
    assert agent.returncode == 0
    assert list(calib.local.iterdir()) == []
    assert processes_with(str(calib.local)) == []


@needs_server
def test_tcp_access_listens_on_loopback_only(calib, snapshot):
    calib.extra["caldb"] = manifest_caldb(snapshot, access="tcp")
    go = calib.root / "go"
    argv = [sys.executable, "-c", QUERY]
    job = calib.job("", kind="calib", argv=argv)
    calib.job(
        f"echo $CDBSERVER > {go}.tmp; mv {go}.tmp {go}; while [ -e {go} ]; do sleep 0.02; done", kind="calib"
    )
    agent = calib.start_agent()
    await_true(go.exists)
    host, port = go.read_text().split(":")
    assert host == "127.0.0.1"
    socket.create_connection((host, int(port)), 5).close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", int(port)), 5)
    await_true(lambda: calib.of_kind("job_ended"))
    go.unlink()
    agent.communicate(timeout=30)
    assert calib.end_of(job)["exit_code"] == 0, json.dumps(calib.end_of(job))


def test_no_server_for_work_that_needs_none(calib):
    calib.extra["caldb"] = {
        "backend": "mariadb",
        "snapshot": "/nowhere",
        "sha256": "",
        "identity": "x",
        "probe": {"sql": "", "expect": ""},
    }
    job = calib.job("env; echo End of Job")
    lines = calib.run_agent()
    assert lines[0]["caldb"] is None
    assert not calib.of_kind("caldb_failed")
    assert calib.end_of(job)["exit_code"] == 0
