"""Work keys of jobs: which of them are attempts of the same step."""

from __future__ import annotations

import re

from pilot.multijob.events import JobFetched, JobRecalled
from simulators.world.truth import Who
from simulators.world.world import World

_WORK = re.compile(r"PRODSYS_WORK=(\S+)")


def works_fetched(world: World) -> dict[Who, str]:
    """Work key of every job that a daemon ever fetched: a restored server has forgotten some."""
    events = (event for daemon in world.daemons for _, event in daemon.events)
    fetched = (event for event in events if isinstance(event, JobFetched | JobRecalled))
    found = (((e.server, int(e.job.panda_id)), _WORK.match(e.job.job_pars)) for e in fetched)
    return {who: match.group(1) for who, match in found if match is not None}


def works_known(world: World) -> dict[Who, str]:
    """Work key of the jobs that the servers know."""
    source = world.source
    found = ((source.who(j), _WORK.match(str(j.attributes.get("jobParameters")))) for j in source.jobs())
    return {who: match.group(1) for who, match in found if match is not None}
