"""A real server with two nodes: commands over the wire, ranks, a node that dies, and an end that leaves nothing."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from simulators.torque import control
from simulators.torque.control import ControlError, kill_node, list_nodes, read_events, start_server
from simulators.torque.sweep import descendants, read_row

LIMIT_S = 20.0
SITE = {"nodes": 2, "slots": 4, "keep_completed_s": 60, "scheduler_interval_s": 0.05, "kill_delay_s": 0.3}


class Site:
    """A running server and a user's shell on it."""

    def __init__(self, directory: Path, **changes) -> None:
        self.directory, self.runtime = directory, str(directory / "runtime")
        self.config = directory / "site.json"
        self.config.write_text(json.dumps({**SITE, **changes}))
        self.server = start_server(str(self.config), self.runtime)
        self.environment = {
            "PATH": f"{self.server.ready['bin']}:/usr/bin:/bin",
            "HOME": str(directory),
            "LANG": "C.UTF-8",
        }

    def run(self, *argv: str, **more) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            argv,
            env=self.environment,
            cwd=self.directory,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            **more,
        )

    def qsub(self, body: str, *words: str, nodes: int = 1) -> str:
        script = self.directory / "job.sh"
        out = self.directory / "out"
        script.write_text(
            f"#!/bin/sh\n#PBS -N job -l nodes={nodes}:ppn=4,walltime=600 -j oe -r n\n#PBS -o {out}\n{body}\n"
        )
        done = self.run("qsub", *words, "job.sh")
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def attribute(self, batch_id: str, name: str) -> str | None:
        found = re.search(
            rf"^    {name} = (.*)$", self.run("qstat", "-f", "-1", batch_id).stdout, re.MULTILINE
        )
        return found[1] if found else None

    def until(self, holds, what: str = ""):
        end_s = time.monotonic() + LIMIT_S
        while not (answer := holds()):
            assert time.monotonic() < end_s, what or f"never: {read_events(self.runtime)[-5:]}"
            time.sleep(0.005)  # between two questions: the machine has two cores
        return answer

    def event(self, kind: str, **fields):
        def found():
            rows = [row for row in read_events(self.runtime) if row["event"] == kind]
            return [row for row in rows if all(row.get(k) == v for k, v in fields.items())]

        return self.until(found, f"no event {kind} {fields}")[-1]

    def over(self, batch_id: str) -> str | None:
        self.event("job_over", batch_id=batch_id)
        assert self.attribute(batch_id, "job_state") == "C"
        return self.attribute(batch_id, "exit_status")

    def output(self) -> str:
        return (self.directory / "out").read_text()


def alive(pid: int) -> bool:
    row = read_row(pid)
    return row is not None and row.state not in "ZX"


def pids(directory: Path) -> list[int]:
    return [int(path.read_text()) for path in sorted(directory.glob("pid.*")) if path.read_text().strip()]


@pytest.fixture
def site(tmp_path):
    running = Site(tmp_path)
    yield running
    if running.server.process.poll() is None:
        running.server.stop()


SLEEPERS = (
    "echo $$ > {d}/pid.$NODE_NAME.rank; "
    "setsid sh -c 'echo $$ > {d}/pid.$NODE_NAME.orphan; exec sleep 600' & "
    "touch $NODE_LOCAL_DIR/file; exec sleep 600"
)


def test_batch_script_runs_as_torque_would_run_it(site):
    batch_id = site.qsub("pwd; umask; env; cat $PBS_NODEFILE; exit 7", "-v", "A=1", nodes=2)
    assert site.over(batch_id) == "7"
    lines = site.output().splitlines()
    assert lines[:2] == [str(site.directory), "0077"]
    variables = dict(line.split("=", 1) for line in lines if "=" in line)
    assert variables["PBS_JOBID"] == batch_id and variables["PBS_ENVIRONMENT"] == "PBS_BATCH"
    assert (variables["PBS_NP"], variables["PBS_NUM_NODES"], variables["PBS_NUM_PPN"]) == ("8", "2", "4")
    assert (variables["PBS_WALLTIME"], variables["A"]) == ("600", "1")
    assert "LANG" not in variables and variables["PBS_O_LANG"] == "C.UTF-8"
    assert lines[-8:] == ["1"] * 4 + ["2"] * 4


def test_ranks_run_on_free_nodes_of_the_reservation_each_with_its_own_directory(site):
    body = (
        "for i in 1 2; do aprun -n 1 -N 1 -d 4 -cc none -b sh -c "
        "'echo $NODE_NAME $NODE_ADDRESS $ALPS_APP_PE; touch $NODE_LOCAL_DIR/f; ls $NODE_LOCAL_DIR; sleep 0.3' & done\n"
        "wait; aprun -n 1 -d 4 sh -c 'exit 5'; exit $?"
    )
    batch_id = site.qsub(body, nodes=2)
    assert site.over(batch_id) == "5"
    text = site.output()
    assert {"nid00001 127.0.1.1 0", "nid00002 127.0.1.2 0"} <= set(text.splitlines())
    assert len(re.findall(r"^Application \d+ resources: utime ~", text, re.MULTILINE)) == 3
    assert "Application 3 exit codes: 5" in text
    assert site.event("node_emptied", node="nid00001")["left_behind"] == ["f"]
    started = [row for row in read_events(site.runtime) if row["event"] == "rank_started"]
    assert {row["node"] for row in started} == {"nid00001", "nid00002"} and all(row["pid"] for row in started)


def test_aprun_without_a_free_node_or_a_reservation_is_refused(site):
    batch_id = site.qsub(
        "aprun -n 1 sleep 5 & sleep 0.2; aprun -n 1 true; echo rc=$?; aprun -n 9 -N 4 true; echo rc=$?"
    )
    site.over(batch_id)
    assert site.output().count("rc=1") == 2
    done = site.run("aprun", "-n", "1", "true")
    assert done.returncode == 1 and "reservation" in done.stderr


def test_node_that_dies_takes_everything_on_it_and_nothing_else(site):
    body = f'for i in 1 2; do aprun -n 1 -N 1 sh -c "{SLEEPERS.format(d=site.directory)}" & done; wait; sleep 600'
    body = body.replace("$NODE", "\\$NODE").replace("$$", "\\$\\$")
    batch_id = site.qsub(body, nodes=2)
    site.until(lambda: len(pids(site.directory)) == 4)
    on_first = [int((site.directory / f"pid.nid00001.{kind}").read_text()) for kind in ("rank", "orphan")]
    on_second = [int((site.directory / f"pid.nid00002.{kind}").read_text()) for kind in ("rank", "orphan")]
    local_root = Path(site.server.ready["local_root"])
    site.until(lambda: (local_root / "nid00001" / "file").exists())
    assert kill_node(site.runtime, "nid00001") == 2
    assert not any(alive(pid) for pid in on_first) and all(alive(pid) for pid in on_second)
    assert not (local_root / "nid00001").exists() and (local_root / "nid00002" / "file").exists()
    assert site.attribute(batch_id, "job_state") == "R"
    assert site.run("pbsnodes", "-l").stdout.split() == ["1", "down,job-exclusive"]
    assert [row["state"] for row in list_nodes(site.runtime)] == ["down,job-exclusive", "job-exclusive"]
    assert site.event("rank_ended", node="nid00001")["reason"] == "its node died"
    with pytest.raises(ControlError):
        kill_node(site.runtime, "nid00001")
    assert site.run("qdel", batch_id).returncode == 0
    assert site.over(batch_id) == "271"
    assert not any(alive(pid) for pid in on_second)
    assert "Application 1 exit signals: Killed" in site.output()


def test_one_application_over_two_nodes_loses_all_ranks_when_one_node_dies(site):
    body = f"aprun -n 2 -N 1 sh -c 'echo $$ > {site.directory}/pid.$NODE_NAME; exec sleep 600'; echo rc=$?"
    batch_id = site.qsub(body, nodes=2)
    site.until(lambda: len(pids(site.directory)) == 2)
    ranks = pids(site.directory)
    kill_node(site.runtime, "nid00002")
    assert site.over(batch_id) == "0"
    assert not any(alive(pid) for pid in ranks) and "rc=137" in site.output()
    assert "initiated application termination" in site.output()


def test_rank_ended_by_a_signal_ends_the_others(site):
    body = "aprun -n 2 -N 1 sh -c 'test $ALPS_APP_PE = 1 && kill -KILL $$; exec sleep 600'; echo rc=$?"
    batch_id = site.qsub(body, nodes=2)
    assert site.over(batch_id) == "0"
    assert "rc=137" in site.output() and "PE RANK 1 exit signal Killed" in site.output()


def test_aprun_that_is_killed_takes_its_ranks_with_it(site):
    body = (
        f"aprun -n 1 sh -c 'echo $$ > {site.directory}/pid.rank; exec sleep 600' &\n"
        f"while [ ! -s {site.directory}/pid.rank ]; do sleep 0.02; done; kill -KILL $!; wait; "
        f"while kill -0 $(cat {site.directory}/pid.rank) 2>/dev/null; do sleep 0.02; done; echo gone"
    )
    batch_id = site.qsub(body)
    assert site.over(batch_id) == "0" and "gone" in site.output()


def test_aprun_passes_sigterm_on_and_waits_for_its_ranks(site):
    body = (
        f'aprun -n 1 sh -c \'trap "echo told; exit 4" TERM; echo $$ > {site.directory}/pid.rank; '
        "while :; do sleep 0.02; done' &\n"
        f"while [ ! -s {site.directory}/pid.rank ]; do sleep 0.02; done; kill -TERM $!; wait $!; echo rc=$?"
    )
    batch_id = site.qsub(body)
    site.over(batch_id)
    assert "told" in site.output() and "rc=4" in site.output()


def test_orphans_on_a_node_are_swept_when_its_last_rank_ends(site):
    body = f"aprun -n 1 sh -c 'setsid sh -c \"echo \\$\\$ > {site.directory}/pid.o; exec sleep 600\" & sleep 0.3'"
    batch_id = site.qsub(body)
    site.over(batch_id)
    (orphan,) = pids(site.directory)
    assert not alive(orphan)
    assert site.event("rank_ended", batch_id=batch_id)["orphans"] == 1


def test_what_a_batch_script_leaves_behind_is_ended_with_it(site):
    batch_id = site.qsub(f"setsid sh -c 'echo $$ > {site.directory}/pid.o; exec sleep 600' & sleep 0.3")
    site.over(batch_id)
    assert not alive(pids(site.directory)[0])


def test_qdel_ends_a_script_that_ignores_sigterm_after_the_delay(site):
    batch_id = site.qsub(f"trap '' TERM; echo $$ > {site.directory}/pid.s; while :; do sleep 0.05; done")
    site.until(lambda: pids(site.directory))
    assert site.run("qdel", batch_id).returncode == 0
    assert site.over(batch_id) == "271" and not alive(pids(site.directory)[0])


def test_walltime_leaves_its_line_in_the_output(site):
    batch_id = site.qsub("sleep 600", "-l", "walltime=1")
    assert site.over(batch_id) == "-11"
    assert re.search(r"=>> PBS: job killed: walltime [12] exceeded limit 1\n", site.output())


def test_ends_of_a_script_by_signal_and_by_a_missing_interpreter(site):
    assert site.over(site.qsub("kill -SEGV $$")) == "139"
    script = site.directory / "bad.sh"
    script.write_text("#!/no/such/interpreter\n")
    assert site.over(site.run("qsub", "bad.sh").stdout.strip()) == "127"
    site.environment["HOME"] = "/no/such/home"
    assert site.over(site.qsub("true")) == "-2"


def test_script_on_standard_input_and_output_that_cannot_be_delivered(site):
    done = site.run("qsub", "-o", "/no/such/directory/x", "-j", "oe", input="echo hi\n")
    batch_id = done.stdout.strip()
    assert site.over(batch_id) == "0"
    assert Path(site.runtime, "undelivered", f"{batch_id}.OU").read_text() == "hi\n"
    assert site.attribute(batch_id, "Job_Name") == "STDIN"


def test_requeue_is_for_rerunable_jobs_only(site):
    batch_id = site.qsub(f"echo $PBS_JOBID >> {site.directory}/starts; sleep 600", "-r", "y")
    starts = site.directory / "starts"
    site.until(lambda: starts.exists() and starts.read_text().count("\n") == 1)
    control.requeue(site.runtime, batch_id)
    site.until(lambda: starts.read_text().count("\n") == 2)
    assert site.attribute(batch_id, "start_count") == "2"
    site.run("qdel", batch_id)
    fixed = site.qsub("sleep 600")
    site.event("job_started", batch_id=fixed)
    with pytest.raises(ControlError, match="not rerunnable"):
        control.requeue(site.runtime, fixed)


def test_end_of_the_server_leaves_nothing(site):
    body = f'for i in 1 2; do aprun -n 1 -N 1 sh -c "{SLEEPERS.format(d=site.directory)}" & done; wait'
    site.qsub(body.replace("$NODE", "\\$NODE").replace("$$", "\\$\\$"), nodes=2)
    site.until(lambda: len(pids(site.directory)) == 4)
    below = descendants(site.server.process.pid)
    assert len(below) >= 9  # keepers of two nodes and a job, script, apruns, ranks, orphans
    assert site.server.stop() == 0
    assert not [row.pid for row in below if alive(row.pid)]
    assert os.listdir(site.server.ready["local_root"]) == []
    assert not [name for name in os.listdir(site.runtime) if name in ("server.sock", "ready.json")]
    assert read_events(site.runtime)[-1]["strays"] == 0


def test_killed_server_takes_everything_with_it_and_the_next_one_starts(site):
    site.qsub(
        f'aprun -n 1 sh -c "{SLEEPERS.format(d=site.directory)}"'.replace("$NODE", "\\$NODE").replace(
            "$$", "\\$\\$"
        )
    )
    site.until(lambda: len(pids(site.directory)) == 2)
    below = descendants(site.server.process.pid)
    site.server.process.kill()
    site.server.process.wait()
    site.until(lambda: not [row for row in below if alive(row.pid)])
    done = site.run("qstat")
    assert done.returncode == 111 and "Connection refused" in done.stderr
    site.server = start_server(str(site.config), site.runtime)
    assert site.run("qstat", "-x").stdout == '<?xml version="1.0"?>\n<Data></Data>\n'


def test_node_whose_keeper_is_killed_from_outside_counts_as_dead(site):
    batch_id = site.qsub(f"aprun -n 1 sh -c 'echo $$ > {site.directory}/pid.r; exec sleep 600'; sleep 600")
    site.until(lambda: pids(site.directory))
    (rank,) = pids(site.directory)
    os.kill(read_row(rank).parent, signal.SIGKILL)
    site.event("node_died", node="nid00001")
    site.until(lambda: not alive(rank))
    assert site.attribute(batch_id, "job_state") == "R"


def test_nonsense_on_the_socket_harms_nobody(site):
    end = socket.socket(socket.AF_UNIX)
    end.connect(os.path.join(site.runtime, "server.sock"))
    end.sendall(b"\xff\xfe no json\n")
    assert end.recv(10) == b""
    end.close()
    assert site.run("qstat").returncode == 0
    assert "command_dropped" in {row["event"] for row in read_events(site.runtime)}


def test_other_users_cannot_reach_the_server(site):
    assert os.stat(site.runtime).st_mode & 0o077 == 0


def start(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "simulators.torque.server", *words],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )


def test_what_keeps_a_server_from_starting_is_one_clear_line(site, tmp_path):
    second = start("--config", str(site.config), "--runtime", site.runtime)
    assert (second.returncode, second.stderr.count("\n")) == (1, 1) and "another server" in second.stderr
    nowhere = start("--config", str(site.config), "--runtime", "/proc/no")
    assert (nowhere.returncode, nowhere.stderr.count("\n")) == (1, 1)
    bad = tmp_path / "bad.json"
    bad.write_text('{"nodse": 1}')
    assert (
        start("--config", str(bad), "--runtime", str(tmp_path / "r")).stderr == f"{bad}: nodse: unknown key\n"
    )
    assert start("--config", "/no/such", "--runtime", str(tmp_path / "r")).returncode == 2
    assert not (tmp_path / "r").exists()
    with pytest.raises(ControlError, match="unknown key"):
        start_server(str(bad), str(tmp_path / "r"))


def test_paths_with_blanks_and_long_ones_work(tmp_path):
    directory = tmp_path / "a b" / ("x" * 120)
    directory.mkdir(parents=True)
    site = Site(directory)
    try:
        script = directory / "s.sh"
        script.write_text(
            f'#!/bin/sh\n#PBS -j oe\n#PBS -o "{directory}/out"\necho "$NODE_LOCAL_DIR"; aprun -n 1 true\n'
        )
        batch_id = site.run("qsub", str(script)).stdout.strip()
        assert site.over(batch_id) == "0"
        assert "resources" in site.output()
    finally:
        site.server.stop()


def test_idle_server_uses_no_processor_time(site):
    batch_id = site.qsub("sleep 600")
    site.event("job_started", batch_id=batch_id)
    stat = Path(f"/proc/{site.server.process.pid}/stat")

    def ticks() -> int:
        fields = stat.read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    before = ticks()
    site.run("sleep", "1")
    assert ticks() - before <= 2


def test_a_qsub_whose_answer_is_lost_is_queued_all_the_same(site):
    control.order(site.runtime, {"verb": "lose_answer", "command": "qsub", "count": 1})
    lost = site.run("qsub", "-N", "lost", input="sleep 0\n")
    assert (lost.returncode, lost.stdout) == (67, "")
    assert "lost" in site.run("qstat").stdout


def test_a_hung_qsub_is_worked_when_the_hang_is_over_although_its_command_gave_up(site):
    control.order(site.runtime, {"verb": "hang", "command": "qsub", "seconds": 1e9})
    (site.directory / "late.sh").write_text("sleep 0\n")
    given_up = subprocess.Popen(["qsub", "-N", "late", "late.sh"], env=site.environment, cwd=site.directory)
    site.event("command_held", verb="qsub")
    assert "late" not in site.run("qstat").stdout
    given_up.kill()
    given_up.wait()
    control.order(site.runtime, {"verb": "mend"})
    assert site.event("submitted", name="late")["exit_code"] == 0


def test_during_an_outage_nobody_listens_running_jobs_go_on_and_nothing_starts(site):
    running = site.qsub("sleep 1000")
    site.event("job_started", batch_id=running)
    control.order(site.runtime, {"verb": "go_away", "seconds": 1e9})
    away = site.run("qstat")
    assert (away.returncode, "Connection refused" in away.stderr) == (111, True)
    assert control.list_nodes(site.runtime)[0]["jobs"] == [running]
    control.order(site.runtime, {"verb": "mend"})
    assert site.attribute(running, "job_state") == "R"


def test_a_dead_node_comes_back_empty_and_takes_jobs_again(site):
    kill_node(site.runtime, "nid00001")
    control.order(site.runtime, {"verb": "node_back", "node": "nid00001"})
    assert os.listdir(site.server.ready["local_root"] + "/nid00001") == []
    assert site.over(site.qsub("aprun -n 2 -N 1 true", nodes=2)) == "0"


def test_the_server_that_recorded_its_pid_on_a_node_is_killed_and_nothing_else(site):
    batch_id = site.qsub(
        "exec aprun -n 1 sh -c 'sleep 1000 & echo $! > $NODE_LOCAL_DIR/db.pid; wait; echo gone'"
    )
    site.event("rank_started", batch_id=batch_id)
    site.until(lambda: list(Path(site.server.ready["local_root"]).glob("nid*/db.pid")))
    answer = site.until(lambda: _broken(site))
    assert answer == {"processes": 1}
    assert site.over(batch_id) == "0"
    assert "gone" in site.output()


def _broken(site):
    try:
        return control.order(site.runtime, {"verb": "break_database", "node": "nid00001"})
    except ControlError:
        return None


def test_a_payload_of_the_batch_script_itself_is_a_violation_and_one_through_aprun_is_none(tmp_path):
    site = Site(tmp_path, script_cpu_max_s=0.3)
    try:
        spin = f"{sys.executable} -c 'import time; e = time.process_time() + 0.6\nwhile time.process_time() < e: pass'"
        outside, inside = site.qsub(spin), site.qsub(f"aprun -n 1 {spin}")
        assert (site.over(outside), site.over(inside)) == ("0", "0")
        found = [row["batch_id"] for row in read_events(site.runtime) if row["event"] == "violation"]
        assert found == [outside]
    finally:
        site.server.stop()
