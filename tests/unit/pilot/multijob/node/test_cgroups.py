"""Which processes are the batch job's, as its cgroup tells."""

from __future__ import annotations

import pytest

from pilot.multijob.node.cgroups import is_inside, job_cgroups
from pilot.multijob.node.processes import Name, Seen, without_trees

SLURM = "0::/system.slice/slurmstepd.scope/job_4711/step_0/user/task_0\n"
SLURM_V1 = "5:pids:/slurm/uid_4711/job_815/step_batch\n4:memory:/slurm/uid_4711/job_815/step_batch\n"
TORQUE = "3:cpuset:/torque/4711.nid00001\n0::/user.slice\n"


@pytest.mark.parametrize(
    ("text", "batch_id", "own"),
    [
        (SLURM, "4711", {("", "/system.slice/slurmstepd.scope/job_4711")}),
        (SLURM_V1, "815", {("pids", "/slurm/uid_4711/job_815"), ("memory", "/slurm/uid_4711/job_815")}),
        (SLURM_V1, "4711", set()),
        (TORQUE, "4711.nid00001", {("cpuset", "/torque/4711.nid00001")}),
        (TORQUE, "471", set()),
        ("0::/pbs_jobs.service/jobid/12.srv\n", "12.srv", {("", "/pbs_jobs.service/jobid/12.srv")}),
        ("0::/\n", "4711", set()),
        ("", "4711", set()),
        ("0::/a/b\n", "b", set()),
    ],
)
def test_only_a_cgroup_that_is_named_after_the_batch_job_is_its_own(text, batch_id, own):
    assert job_cgroups(text, batch_id) == own


def test_a_process_is_inside_at_its_cgroup_or_below_it_and_nowhere_else():
    own = frozenset({("", "/jobs/job_47")})
    assert is_inside("0::/jobs/job_47\n", own)
    assert is_inside("0::/jobs/job_47/step_1\n", own)
    assert not is_inside("0::/jobs/job_470\n", own)
    assert not is_inside("3:pids:/jobs/job_47\n", own)
    assert not is_inside("0::/jobs/job_47\n", frozenset())
    assert not is_inside("", own)


def test_trees_of_agents_and_gates_are_spared():
    seen = {pid: Seen(pid, ppid, 1, 10, "S", 1.0) for pid, ppid in ((2, 1), (3, 2), (4, 3), (5, 1))}
    names = frozenset(Name(pid, 10) for pid in seen)
    assert without_trees(names, seen, [2]) == {Name(5, 10)}
    assert without_trees(names, seen, []) == names
