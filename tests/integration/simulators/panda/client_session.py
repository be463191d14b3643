"""A user's session with the real panda-client, run by an interpreter that has it: prints what the client returned."""

import inspect
import json
import sys

from pandaclient import Client
from pandaclient.FileSpec import FileSpec
from pandaclient.JobSpec import JobSpec


def make_job(number):
    job = JobSpec()
    job.jobDefinitionID, job.jediTaskID, job.attemptNr, job.currentPriority = 7, 77, 1, 1000
    job.jobName, job.transformation, job.prodSourceLabel = f"client-{number}", "mass production", "managed"
    job.computingSite, job.jobParameters = "Q", "A=b true"
    log = FileSpec()
    log.lfn, log.type = f"l{number}.job.log.tgz", "log"
    job.addFile(log)
    return job


def seen(jobs):
    return [[job.PandaID, job.jobStatus, job.jobName, [file.lfn for file in job.Files]] for job in jobs]


def main(count, as_json):
    # 1.5.92 reads answers of getJobStatus only as JSON: pickles name classes of the server's own package.
    status = {"no_pickle": True} if "no_pickle" in inspect.signature(Client.getJobStatus).parameters else {}
    submit = status if as_json else {}
    code, stored = Client.submitJobs([make_job(number) for number in range(count)], **submit)
    ids = [row[0] for row in stored]
    told = {
        "submit": [code, [list(row) for row in stored]],
        "before": seen(Client.getJobStatus(ids[:3], **status)[1]),
    }
    told["kill"] = Client.killJobs([ids[0], 999999])
    told["after"] = seen(Client.getJobStatus(ids[:3], **status)[1])
    print("SESSION " + json.dumps(told))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2] == "json")
