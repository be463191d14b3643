"""The node's rows of the fault matrix, with real agents: only the job or the node that is hit pays."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from nodekit import Bundle, await_true, processes_with
from snapkit import PROBE, no_server, write_dump

from pilot.caldb.snapshot import build_snapshot, manifest_caldb
from pilot.multijob.node.binding import numa_domains

# What a killed agent leaves to its warden is gone within this time on an idle machine.
GONE_S = 2.0
needs_server = pytest.mark.skipif(no_server, reason="mariadbd is not installed")


def possible(*argv: str) -> bool:
    """Whether this user may make such a namespace."""
    try:
        return subprocess.run(["unshare", *argv, "true"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


needs_mounts = pytest.mark.skipif(not possible("-rm"), reason="no mount namespaces for this user")
# As itself: a server that believes itself root would look for the user nobody.
OWN_NETWORK = ("-n",) if os.getuid() == 0 else ("-c", "-n", "--keep-caps")
needs_networks = pytest.mark.skipif(not possible(*OWN_NETWORK), reason="no network namespaces for this user")
needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")


def patience_s() -> float:
    """`GONE_S`, longer where other work takes the cores."""
    return GONE_S * max(1.0, 2 * os.getloadavg()[0] / (os.cpu_count() or 1))


def good(bundle: Bundle, panda_id: int) -> bool:
    """Whether this job has everything that a success needs."""
    end = bundle.end_of(panda_id)
    return end["exit_code"] == 0 and end["marker"] is True and all(item["placed"] for item in end["files"])


GOOD = "sleep 0.3; echo x > o; echo End of Job"


def neighbours(bundle: Bundle, count: int = 3) -> list[int]:
    """Jobs beside the one that is hit, each with an output."""
    names = [f"n{len(bundle.jobs)}.{number}" for number in range(count)]
    return [bundle.job(GOOD.replace("> o", f"> {name}"), (name,)) for name in names]


# --- payloads ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "fact", "value"),
    [
        ("echo End of Job", "exit_code", 0),
        ("echo x > o; echo End of Job; exit 3", "exit_code", 3),
        (": > o; echo End of Job", "exit_code", 0),
        ("kill -KILL $$", "signal", 9),
        ("kill -KILL 0", "signal", 9),
        ("chmod 000 .; exit 1", "exit_code", 1),
    ],
)
def test_a_payload_that_fails_in_its_own_way_costs_no_neighbour(bundle, script, fact, value):
    bundle.slots = 4
    first = neighbours(bundle)
    bad = bundle.job(script, ("o",))
    rest = neighbours(bundle)
    bundle.run_agent()
    end = bundle.end_of(bad)
    assert end[fact] == value
    assert end["ended_by"] is None
    assert not end["files"][0]["placed"] or end["files"][0]["size"] == 0
    assert [good(bundle, job) for job in first + rest] == [True] * 6
    assert list(bundle.local.iterdir()) == []


def test_a_dump_into_which_nothing_was_selected_is_placed_as_it_is(bundle):
    job = bundle.job("echo 'PanDA message: the file is empty' > o; echo End of Job", ("o",))
    bundle.run_agent()
    assert good(bundle, job)
    assert bundle.end_of(job)["files"][0]["size"] == 33


def test_a_payload_beyond_its_memory_is_ended_alone(bundle):
    bundle.limits.update(rss_max_mib=200, sample_s=0.1)
    bundle.slots = 4
    first = neighbours(bundle)
    hog = "x = []\nwhile True: x.append(bytearray(1 << 24))"
    bad = bundle.job("", argv=[sys.executable, "-c", hog])
    rest = neighbours(bundle)
    bundle.run_agent()
    assert bundle.end_of(bad)["ended_by"] == "limit-rss"
    assert bundle.end_of(bad)["rss_mib"] > 200
    assert all(good(bundle, job) for job in first + rest)


def test_the_memory_of_a_payload_is_that_of_all_its_processes(bundle):
    bundle.limits.update(rss_max_mib=200, sample_s=0.1)
    first = neighbours(bundle, 1)
    hold = "import time; x = bytearray(100 << 20); x[::4096] = b'x' * len(x[::4096]); time.sleep(77.5)"
    both = f"import subprocess; p = [subprocess.Popen(['{sys.executable}', '-c', {hold!r}]) for _ in 'ab']; p[0].wait()"
    bad = bundle.job("", argv=[sys.executable, "-c", both])
    bundle.run_agent()
    end = bundle.end_of(bad)
    assert end["ended_by"] == "limit-rss"
    assert end["rss_mib"] > 200
    assert all(good(bundle, job) for job in first)
    assert not processes_with("77.5")


def test_a_payload_that_prints_too_much_is_ended_alone(bundle):
    bundle.limits.update(stdout_max_mib=2, sample_s=0.1)
    bundle.slots = 4
    first = neighbours(bundle)
    bad = bundle.job("yes | head -c 9000000; exec sleep 75.5")
    rest = neighbours(bundle)
    bundle.run_agent()
    assert bundle.end_of(bad)["ended_by"] == "limit-stdout"
    assert all(good(bundle, job) for job in first + rest)


def test_a_payload_that_writes_a_file_without_end_is_ended_alone(bundle):
    bundle.limits["file_max_mib"] = 2
    bundle.slots = 4
    first = neighbours(bundle)
    bad = bundle.job("sleep 0.1; exec head -c 9000000 /dev/zero > o", ("o",))
    rest = neighbours(bundle)
    bundle.run_agent()
    end = bundle.end_of(bad)
    assert (end["signal"], end["files"][0]["size"]) == (signal.SIGXFSZ, 2 << 20)
    assert not end["files"][0]["placed"]
    assert all(good(bundle, job) for job in first + rest)


@pytest.mark.parametrize(("limit", "why"), [("quiet_max_s", "limit-quiet"), ("wall_max_s", "limit-wall")])
def test_a_payload_that_hangs_gives_its_slot_back_and_one_that_talks_does_not(bundle, limit, why):
    bundle.limits.update({limit: 1.0, "sample_s": 0.1})
    bundle.slots = 2
    bad = bundle.job("echo begun; exec sleep 76.5")
    talking = "i=0; while [ $i -lt 8 ]; do echo $i; sleep 0.2; i=$((i+1)); done; echo End of Job"
    other = bundle.job(talking if limit == "quiet_max_s" else "sleep 0.3; echo End of Job")
    bundle.run_agent()
    assert bundle.end_of(bad)["ended_by"] == why
    assert good(bundle, other)


def test_the_end_of_a_job_is_told_while_others_run(bundle):
    go = bundle.root / "go"
    first = bundle.job("echo End of Job")
    bundle.job(f"while [ ! -e {go} ]; do sleep 0.02; done; echo End of Job")
    agent = bundle.start_agent()
    await_true(lambda: [line["panda_id"] for line in bundle.of_kind("job_ended")] == [first])
    go.touch()
    agent.communicate(timeout=30)
    assert len(bundle.of_kind("job_ended")) == 2


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="there is one core only")
def test_each_slot_keeps_to_its_own_cores_where_that_is_asked_for(bundle):
    bundle.extra["bind"] = "cores"
    code = "import os; print(sorted(os.sched_getaffinity(0)), file=open('o', 'w')); print('End of Job')"
    wait = "import time; time.sleep(0.2);"
    for name in ("a", "b"):
        argv = [sys.executable, "-c", wait + code.replace("'o'", repr(name))]
        bundle.job("", (name,), argv=argv)
    bundle.run_agent()
    first, second = (json.loads((bundle.out / name).read_text()) for name in ("a", "b"))
    assert not set(first) & set(second)
    assert set(first) | set(second) == os.sched_getaffinity(0)


def test_a_slot_keeps_to_the_cores_of_its_numa_domain_where_that_is_asked_for(bundle):
    bundle.extra["bind"] = "numa"
    code = "import os; print(sorted(os.sched_getaffinity(0)), file=open('o', 'w')); print('End of Job')"
    bundle.slots = 1000
    bundle.job("", ("o",), argv=[sys.executable, "-c", code])
    bundle.run_agent()
    first = numa_domains(sorted(os.sched_getaffinity(0)))[0]
    assert set(json.loads((bundle.out / "o").read_text())) == first


def test_two_hundred_orphans_are_swept_and_reaped(bundle):
    bundle.slots = 2
    bad = bundle.job("i=0; while [ $i -lt 200 ]; do (setsid sleep 71.5 &); i=$((i+1)); done; echo End of Job")
    rest = neighbours(bundle)
    lines = bundle.run_agent()
    assert bundle.end_of(bad)["exit_code"] == 0
    assert all(good(bundle, job) for job in rest)
    assert lines[-1]["left_behind"] == 0
    assert processes_with("71.5") == []


# --- disks ------------------------------------------------------------------------------------------------------


def run_with_disk(bundle: Bundle, place: Path, size: str) -> None:
    """Run the agent where `place` is a small filesystem of its own. Its content is gone afterwards."""
    bundle.write()
    script = f'mount -t tmpfs -o size={size} none "$0" && exec "$@"'
    argv = ["unshare", "-rm", "sh", "-c", script, str(place), *bundle.agent_argv()]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


@needs_mounts
def test_a_payload_that_fills_the_local_disk_leaves_room_for_the_next(bundle):
    bundle.slots = 1
    bad = bundle.job("head -c 9000000 /dev/zero > big || exit 7; echo End of Job", ("big",))
    rest = neighbours(bundle)
    run_with_disk(bundle, bundle.local, "4m")
    assert bundle.end_of(bad)["exit_code"] == 7
    assert not bundle.end_of(bad)["files"][0]["placed"]
    assert all(good(bundle, job) for job in rest)


@needs_mounts
def test_a_local_disk_without_room_gives_everything_back(bundle):
    jobs = [bundle.job("echo End of Job"), bundle.job("echo End of Job")]
    run_with_disk(bundle, bundle.local, "4m,nr_inodes=1")
    [line] = bundle.of_kind("given_back")
    assert line["jobs"] == [[job, 1] for job in jobs]
    assert "No space left" in line["reason"]


@needs_mounts
def test_a_full_output_directory_fails_only_its_own_jobs(bundle):
    bundle.slots = 2
    full = bundle.root / "full"
    full.mkdir()
    bad = bundle.job("head -c 4000000 /dev/zero > o; echo End of Job", ())
    bundle.jobs[-1]["outputs"] = [{"lfn": "o", "target": f"{full}/o"}]
    rest = neighbours(bundle)
    run_with_disk(bundle, full, "1m")
    entry = bundle.end_of(bad)["files"][0]
    assert (entry["placed"], entry["size"]) == (False, 4000000)
    assert "No space left" in entry["reason"]
    assert all(good(bundle, job) for job in rest)


# --- agents -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", range(1, 9))
def test_an_agent_killed_at_any_line_leaves_a_whole_journal_and_nothing_else(bundle, number):
    bundle.slots = 2
    for item in range(3):
        bundle.job(f"setsid sleep 72.5 & echo x > o{item}; echo End of Job", (f"o{item}",))
    bundle.job("setsid sleep 72.5 & exec sleep 72.5")
    agent = bundle.start_agent()
    await_true(lambda: len(bundle.lines()) >= min(number, 8) or bundle.of_kind("agent_ended"))
    os.kill(bundle.of_kind("agent_started")[0]["pid"], signal.SIGKILL)
    begun = time.monotonic()
    agent.communicate(timeout=30)
    assert time.monotonic() - begun < patience_s()
    assert agent.returncode == 0
    assert processes_with(str(bundle.local)) == []
    assert list(bundle.local.iterdir()) == []
    started = {line["panda_id"] for line in bundle.of_kind("job_started")}
    ended = {line["panda_id"] for line in bundle.of_kind("job_ended")}
    assert ended <= started
    placed = {path.name for path in bundle.out.glob("[!.]*")} if bundle.out.exists() else set()
    assert placed <= {f"o{panda_id - 1001}" for panda_id in started} | {f"log.{i}.tgz" for i in started}


def test_a_killed_bundle_leaves_the_other_one_on_its_node_alone(bundle, tmp_path, agent_file):
    other_root = tmp_path / "other"
    other_root.mkdir()
    other = Bundle(other_root, agent_file)
    other.local = bundle.local
    go = tmp_path / "go"
    job = other.job(f"while [ ! -e {go} ]; do sleep 0.02; done; echo x > o; echo End of Job", ("o",))
    bundle.job("setsid sleep 73.5 & exec sleep 73.5")
    agents = [bundle.start_agent(), other.start_agent()]
    try:
        await_true(lambda: bundle.of_kind("job_started") and other.of_kind("job_started"))
        os.kill(bundle.of_kind("agent_started")[0]["pid"], signal.SIGKILL)
        agents[0].communicate(timeout=30)
        assert processes_with("73.5") == []
        go.touch()
        agents[1].communicate(timeout=30)
    finally:
        other.end_agents()
    assert good(other, job)
    assert list(bundle.local.iterdir()) == []


# --- calibration server -----------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def snapshot(tmp_path_factory):
    directory = tmp_path_factory.mktemp("snapshot")
    return build_snapshot(write_dump(directory), directory / "calib", identity="cal-1", probe_sql=PROBE)


@pytest.fixture
def calib(bundle, snapshot):
    """A bundle with a calibration server and short local paths."""
    bundle.local = Path("/dev/shm") / f"t{os.getpid()}-{os.urandom(3).hex()}"
    bundle.local.mkdir()
    bundle.extra["caldb"] = manifest_caldb(snapshot)
    yield bundle
    bundle.end_agents()
    shutil.rmtree(bundle.local)


@needs_server
def test_what_a_dead_agent_left_is_in_nobodys_way_and_is_not_touched(calib):
    stale = calib.local / f"ep-{os.getuid()}-0123456789ab.db"
    stale.mkdir(mode=0o700)
    for name in ("s.sock", "users.lock", "keeper.lock", "mariadbd.pid", "notify"):
        (stale / name).write_text("1")
    job = calib.job("echo End of Job", kind="calib")
    calib.run_agent()
    assert calib.end_of(job)["exit_code"] == 0
    assert sorted(path.name for path in calib.local.iterdir()) == [stale.name]
    assert len(list(stale.iterdir())) == 5


@needs_server
def test_two_bundles_on_a_node_have_a_server_each(calib, tmp_path, agent_file, snapshot):
    root = tmp_path / "other"
    root.mkdir()
    other = Bundle(root, agent_file)
    other.local, other.extra["caldb"] = calib.local, manifest_caldb(snapshot)
    other.extra["bundle_id"] = "bother"
    go = tmp_path / "go"
    script = f"while [ ! -e {go} ]; do sleep 0.02; done; test -S $MYSQL_UNIX_PORT && echo End of Job"
    job = other.job(script, kind="calib")
    calib.job("exec sleep 74.5", kind="calib")
    agents = [calib.start_agent(), other.start_agent()]
    try:
        await_true(lambda: calib.of_kind("job_started") and other.of_kind("job_started"))
        pids = {bundle.of_kind("caldb_ready")[0]["pid"] for bundle in (calib, other)}
        assert len(pids) == 2
        os.kill(calib.of_kind("agent_started")[0]["pid"], signal.SIGKILL)
        agents[0].communicate(timeout=30)
        go.touch()
        agents[1].communicate(timeout=30)
    finally:
        other.end_agents()
    assert good(other, job)
    assert list(calib.local.iterdir()) == []


# --- network ----------------------------------------------------------------------------------------------------

LOOPBACK = """
import fcntl, os, socket, struct, sys
with socket.socket() as any_socket:
    fcntl.ioctl(any_socket, 0x8914, struct.pack("16sH14x", b"lo", 1))  # SIOCSIFFLAGS, IFF_UP
os.execvp(sys.argv[1], sys.argv[1:])
"""


@needs_server
@needs_networks
@needs_strace
@pytest.mark.parametrize("access", ["socket", "tcp"])
def test_with_loopback_only_everything_works_and_nothing_else_is_tried(calib, snapshot, access):
    calib.extra["caldb"] = manifest_caldb(snapshot, access=access)
    query = (
        "import mysql.connector as m, os\n"
        "c = m.connect(option_files=os.environ['CDB_OPTION_FILE'], database=os.environ['CDB_DATABASE'])\n"
        "k = c.cursor(); k.execute('SELECT COUNT(*) FROM calib_payload'); print(k.fetchall(), 'End of Job')\n"
    )
    job = calib.job("", kind="calib", argv=[sys.executable, "-c", query])
    calib.write()
    trace = calib.root / "trace"
    strace = ["strace", "-f", "-e", "trace=connect,sendto,sendmsg", "-o", str(trace)]
    argv = ["unshare", *OWN_NETWORK, sys.executable, "-c", LOOPBACK, *strace, *calib.agent_argv()]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stderr
    assert calib.end_of(job)["exit_code"] == 0, json.dumps(calib.end_of(job))
    text = trace.read_text(errors="replace")
    families = set(re.findall(r"sa_family=(\w+)", text))
    addresses = set(re.findall(r'inet_(?:addr|pton)\((?:AF_INET6?, )?"([^"]+)"', text))
    assert families <= {"AF_UNIX", "AF_INET", "AF_NETLINK"}, "netlink asks the kernel which addresses it has"
    assert addresses == (set() if access == "socket" else {"127.0.0.1"})
