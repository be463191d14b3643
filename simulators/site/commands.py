"""`simsite up`, `simsite fault` and `simsite jobs`. Exit codes: 0 done, 1 it could not be done, 2 wrong usage."""

from __future__ import annotations

import argparse
import os
import sys

from simulators.site.control import NoSite, find_runtime, read_site, say_fault
from simulators.site.faults import UnknownFault, plan_fault, render_faults
from simulators.site.workload import Batch, SubmitFailed, render_jobs, submit_jobs

# More than a PanDA server ever held of one submitter; a slip of the finger must not fill the memory.
JOBS_MAX = 1_000_000


def run_site_command(arguments: argparse.Namespace) -> int:
    """Run one of the three."""
    if arguments.command == "up":
        from simulators.site.up import UpOptions, run_site

        return run_site(UpOptions(arguments.file, arguments.runtime, arguments.speed, arguments.spread))
    try:
        return _fault(arguments) if arguments.command == "fault" else _jobs(arguments)
    except UnknownFault as error:
        print(f"simsite: {error}", file=sys.stderr)
        return 2
    except (NoSite, SubmitFailed) as error:
        print(f"simsite: {error}", file=sys.stderr)
        return 1


def _fault(arguments: argparse.Namespace) -> int:
    if arguments.list or arguments.name is None:
        print(render_faults(), end="")
        return 0 if arguments.list else 2
    # Wrong words are told before anybody is asked.
    plan_fault(arguments.name, arguments.target, arguments.amount)
    done, said = say_fault(
        find_runtime(arguments.runtime), arguments.name, arguments.target, arguments.amount
    )
    for line in said:
        print(line, file=sys.stdout if done else sys.stderr)
    return 0 if done else 1


def _jobs(arguments: argparse.Namespace) -> int:
    if not 1 <= arguments.count <= JOBS_MAX:
        raise UnknownFault(f"jobs: found {arguments.count}, expected 1 to {JOBS_MAX}")
    site = read_site(find_runtime(arguments.runtime))
    tag = f"sim{os.urandom(4).hex()}"
    batch = Batch(
        tag, arguments.count, arguments.queue, site["outputs"], arguments.seconds, task=arguments.task
    )
    ids = submit_jobs(site["orders_url"], render_jobs(batch))
    print(
        f"{len(ids)} jobs {ids[0]} to {ids[-1]} in {arguments.queue}; outputs below {site['outputs']}/{tag}"
    )
    return 0
