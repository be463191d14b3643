"""The environment of a batch script and its node file, as Torque sets them. Pure."""

from __future__ import annotations

from simulators.torque.job import BatchJob, Node
from simulators.torque.nodetexts import node_label
from simulators.torque.site import TorqueSite
from simulators.torque.texts import variables


def job_environment(
    job: BatchJob, site: TorqueSite, aux: str, path: str, home: str, cookie: str
) -> dict[str, str]:
    """Variables of the batch script.

    `aux`: path of the node file, `path`: the PATH that a login gives on the MOM node. Without -V nothing of the
    submitting environment comes along but PBS_O_* and the variables of -v.
    """
    slots = sum(len(share.slots) for share in job.placement)
    return {
        "PATH": path,
        "HOME": home,
        "LOGNAME": job.submission.owner,
        "USER": job.submission.owner,
        "SHELL": dict(job.submission.user_variables).get("PBS_O_SHELL", "/bin/sh"),
        **dict(variables(job, site)),
        "ENVIRONMENT": "BATCH",
        "PBS_ENVIRONMENT": "PBS_BATCH",
        "PBS_GPUFILE": f"{aux}gpu",
        "PBS_JOBCOOKIE": cookie,
        "PBS_JOBID": job.batch_id,
        "PBS_JOBNAME": job.name,
        "PBS_MICFILE": f"{aux}mic",
        "PBS_MOMPORT": "15003",
        "PBS_NODEFILE": aux,
        "PBS_NODENUM": "0",
        "PBS_NP": str(slots),
        "PBS_NUM_NODES": str(len(job.placement)),
        "PBS_NUM_PPN": str(job.parts[0].ppn),
        "PBS_QUEUE": job.queue,
        "PBS_TASKNUM": "1",
        "PBS_VERSION": "TORQUE-6.1.3",
        "PBS_VNODENUM": "0",
        "PBS_WALLTIME": str(job.walltime_s),
    }


def node_file(job: BatchJob, site: TorqueSite) -> str:
    """One line for each slot."""
    return "".join(f"{node_label(Node(share.node), site)}\n" * len(share.slots) for share in job.placement)
