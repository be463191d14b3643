"""Work keys by PandaID: which jobs are attempts of the same step."""

from __future__ import annotations

import re

from pilot.multijob.events import JobFetched, JobRecalled
from simulators.world.world import World

_WORK = re.compile(r"PRODSYS_WORK=(\S+)")


def works_fetched(world: World) -> dict[int, str]:
    """Work key by PandaID of every job that a daemon ever fetched: a restored server has forgotten some."""
    events = (event for daemon in world.daemons for _, event in daemon.events)
    fetched = (event.job for event in events if isinstance(event, JobFetched | JobRecalled))
    found = ((job.panda_id, _WORK.match(job.job_pars)) for job in fetched)
    return {panda_id: match.group(1) for panda_id, match in found if match is not None}


def works_known(world: World) -> dict[int, str]:
    """Work key by PandaID of the jobs that the servers know."""
    found = ((j.panda_id, _WORK.match(str(j.attributes.get("jobParameters")))) for j in world.source.jobs())
    return {panda_id: match.group(1) for panda_id, match in found if match is not None}
