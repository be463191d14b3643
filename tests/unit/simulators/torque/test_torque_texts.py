"""The simulator's commands against captured answers, to the character (the full replay is a later suite)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from simulators.torque import commands
from simulators.torque.model import TorqueModel
from simulators.torque.request import Reply, Request
from simulators.torque.site import QueueSpec, TorqueSite

FIXTURES = Path(__file__).parents[3] / "data" / "torque-fixtures"
CASES = {
    case["name"]: case
    for case in json.loads((FIXTURES / "index.json").read_text())
    if case["system"] == "torque-6.1.3"
}
T0 = 1795300885.0  # Sat Nov 21 22:41:25 2026
SITE = TorqueSite(
    server_name="bw",
    nodes=16,
    slots=32,
    cray=False,
    first_sequence=8400001,
    scheduler_interval_s=1.0,
    start_delay_s=1.0,
    refuse_root=True,
    queues={
        "normal": QueueSpec(),
        "debug": QueueSpec(walltime_max_s=1800, nodes_max=4),
        "high": QueueSpec(priority=100),
        "low": QueueSpec(),
    },
)
ENVIRONMENT = {
    "HOME": "/home/alice",
    "LOGNAME": "alice",
    "PATH": "/opt/torque/bin:/opt/torque/sbin:/usr/bin:/bin:/usr/sbin",
    "SHELL": "/bin/bash",
    "LANG": "C.UTF-8",
}
HEAD = "#!/bin/bash\n#PBS -l nodes=16:ppn=32:xe -l walltime=00:10:00\n#PBS -l flags=commtransparent\n#PBS -j oe -m n\n"
SCRIPTS = {
    "job.pbs": HEAD + "#PBS -N mjp_512\nsleep 15\nexit 3\n",
    "job40.pbs": HEAD + "sleep 40\n",
    "small.pbs": "#PBS -l nodes=1:ppn=1,walltime=00:05:00\n#PBS -j oe\nsleep 1\n",
    "badopt.pbs": "#PBS -\nsleep 1\n",
    "empty.pbs": "",
}


class Site:
    """A model and a clock; commands as a user types them."""

    def __init__(self) -> None:
        self.model, self.now = TorqueModel(SITE), T0

    def run(self, line: str, uid: int = 1000) -> Reply:
        verb, *words = line.split()
        words = [word.strip("'") for word in words]
        request = Request(tuple(words), "alice", uid, "/home/alice", "bw", ENVIRONMENT)
        script = None
        if verb == "qsub":
            wanted = commands.script_wanted(self.model, request)
            if isinstance(wanted, Reply):
                return wanted
            script = SCRIPTS.get(wanted or "")
            if script is None:
                return commands.unreadable(wanted or "", "No such file or directory")
        reply = commands.answer(self.model, verb, request, self.now, script)
        self.model.advance(self.now)
        return reply

    def at(self, now: float) -> None:
        self.now = now
        self.model.advance(now)


def same(reply: Reply, name: str) -> None:
    case = CASES[name]
    assert (reply.stdout, reply.stderr, reply.exit_code) == (case["stdout"], case["stderr"], case["rc"])


def test_a_job_from_submission_to_its_end():
    site = Site()
    same(site.run("qsub job.pbs"), "001_qsub_ok")
    site.at(T0 + 1)
    same(site.run("qstat"), "002_qstat")
    same(site.run("qstat -f -1"), "004_qstat_f_1")
    same(site.run("qstat -x"), "005_qstat_x")
    site.model.job_started("8400001.bw", 30261)
    site.now = T0 + 16.171395
    site.model.job_ended(site.now, "8400001.bw", 3)
    site.at(site.now)
    same(site.run("qstat 8400001"), "006_qstat_completed")
    same(site.run("qstat -f -1 8400001.bw"), "007_qstat_f_completed")
    same(site.run("qstat -x 8400001.bw"), "008_qstat_x_completed")


def test_exec_host_is_folded_as_qstat_f_does():
    site = Site()
    site.run("qsub job.pbs")
    site.at(T0 + 1)
    # The captured Variable_List was folded before its paths were made neutral: the rest must agree.
    want = CASES["003_qstat_f"]["stdout"].partition("    Variable_List")[0]
    assert site.run("qstat -f").stdout.startswith(want)


def test_queued_and_deleted_jobs():
    site = Site()
    site.run("qsub job.pbs"), site.run("qsub job40.pbs")
    site.now = T0 + 28
    same(site.run("qsub -N waits job40.pbs"), "010_qsub_second_queued")
    site.at(T0 + 29)
    site.now = T0 + 53
    same(site.run("qdel 8400003"), "129_qdel_queued")
    same(site.run("qstat -f -1 8400003"), "130_qstat_f_after_qdel_queued")


def test_held_job():
    site = Site()
    site.model._sequence = 8400035
    site.now = 1795301059.0
    same(site.run("qsub -q high -h -N h1 small.pbs"), "300_maxuserq_1")
    same(site.run("qstat -f -1 8400035"), "309_held_qstat")


ERRORS = [
    "101_qsub_bad_queue",
    "102_qsub_bad_resource",
    "103_qsub_walltime_over",
    "104_qsub_too_many_nodes",
    "105_qsub_too_many_ppn",
    "106_qsub_unknown_feature",
    "107_qsub_missing_script",
    "109_qsub_bad_directive",
    "110_qsub_bad_walltime_fmt",
    "111_qsub_bad_nodes_fmt",
    "112_qsub_unknown_option",
    "115_qsub_bad_server",
    "116_qsub_long_name",
    "120_qstat_unknown",
    "121_qstat_f_unknown",
    "122_qstat_x_unknown",
    "123_qstat_malformed",
    "124_qstat_malformed2",
    "125_qstat_other_server",
    "126_qdel_unknown",
    "128_qdel_malformed",
    "131_qdel_noarg",
    "143_qstat_badopt",
    "307_nodect_over",
    "027_pbsnodes_unknown",
    "024_pbsnodes_l",
    "470_qstat_x_empty_server",
    "471_qstat_f_empty_server",
]


@pytest.mark.parametrize("name", ERRORS)
def test_captured_error_texts(name):
    same(Site().run(CASES[name]["cmd"]), name)


def test_root_is_refused_where_the_site_says_so():
    same(Site().run("qsub small.pbs", uid=0), "113_qsub_as_root")


def test_completed_job_cannot_be_deleted():
    site = Site()
    site.run("qsub small.pbs")
    site.at(T0 + 1)
    site.model.job_ended(T0 + 2, "8400001.bw", 0)
    site.at(T0 + 2)
    same(site.run("qdel 8400001"), "127_qdel_completed")


def test_rejections_burn_ids_and_errors_of_qsub_itself_do_not():
    site = Site()
    for line in ("qsub -q nosuch small.pbs", "qsub nosuchfile.pbs", "qsub -Y small.pbs", "qsub badopt.pbs"):
        site.run(line)
    assert site.run("qsub small.pbs").stdout == "8400002.bw\n"


def test_empty_script_gives_a_ghost_id():
    site = Site()
    assert site.run("qsub empty.pbs").exit_code == 0
    assert site.run("qstat 8400001").exit_code == 153


def test_what_is_not_simulated_is_said_and_not_ignored():
    for line in (
        "qsub -I",
        "qsub -W stagein=x small.pbs",
        "qstat -s",
        "qdel -W 5 1",
    ):
        reply = Site().run(line)
        assert reply.exit_code == 2 and "not simulated" in reply.stderr, line


def test_command_line_wins_over_directives():
    site = Site()
    site.run("qsub -N other -l walltime=60 -r n -v A=1,HOME -o out job.pbs")
    job = site.model.jobs["8400001.bw"]
    assert (job.submission.name, job.walltime_s, job.submission.rerunable) == ("other", 60, False)
    assert job.submission.variables == (("A", "1"), ("HOME", "/home/alice"))
    assert job.submission.stdout == "/home/alice/out"
    assert dict(job.resources)["nodes"] == "16:ppn=32:xe"
