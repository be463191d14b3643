"""`pilot bundle --dry-run`: the bundle that a queue would submit next. Pure; nothing is recorded."""

from __future__ import annotations

import json
from dataclasses import replace

from pilot.multijob.apply import apply
from pilot.multijob.events import BundlePlanned, JobFetched
from pilot.multijob.fitness import NAMED_MAX, judged_misfit, misfit
from pilot.multijob.jobkeys import panda_id_of
from pilot.multijob.model import Limits, QueueSpec, State
from pilot.multijob.recognise import Now
from pilot.multijob.script import render_files
from pilot.ports import BundleId, Job, PandaId, Refused
from pilot.rotation.policy import next_packing
from pilot.rotation.tasks import choose_jobs

# Stands where the tag would: no bundle of a daemon has it (tags have a letter and 8 more characters).
TAG = BundleId("dry-run")
# An example job where the pool is empty: about an hour with the default seconds per event.
EXAMPLE_EVENTS = 3600


def preview(state: State, limits: Limits, queue: QueueSpec, now: Now) -> str:
    """Text: nodes, jobs, predicted use, walltime, environment, script. `state` is used up: give a copy."""
    ended = _end_misfits(state, limits, queue, now)
    waiting = len(state.pools.get(queue.name, {}))
    if not waiting:
        _fill_with_examples(state, limits, queue, now)
    choice = choose_jobs(state, None, queue, now.utc, limits)
    if not choice.jobs:
        return _none(queue, choice.reason(), ended)
    packing = next_packing(state, queue, choice.jobs)
    nodes = tuple(tuple(panda_id_of(item.job) for item in node) for node in packing.nodes)
    apply(state, BundlePlanned(now.utc, TAG, queue.name, nodes, packing.walltime_s, server=queue.server))
    # Nothing that is shown has to do with the set-up script, and examples have none of its variables.
    shown = replace(limits, site=replace(limits.site, setup=None))
    files = render_files(state, state.bundles[TAG], shown)
    if isinstance(files, Refused):
        return _none(queue, files.reason, ended)
    environment = json.loads(files.manifest)["environment"]
    work_s = sum(job.predicted_s for node in packing.nodes for job in node)
    longest_s = max(job.predicted_s for node in packing.nodes for job in node)
    slots = len(nodes) * queue.slots
    count = sum(len(node) for node in nodes)
    source = (
        f"{waiting} wait in the pool"
        if waiting
        else f"examples of {EXAMPLE_EVENTS} events: the pool is empty"
    )
    lines = [
        f"queue {queue.name}: PanDA queue {queue.panda_queue}, batch queue {queue.batch_queue}",
        f"jobs: {count} of {queue.bundle_jobs} for a full bundle ({source})",
        *ended,
        f"nodes: {len(nodes)} with {queue.slots} slots; jobs on each: {', '.join(str(len(node)) for node in nodes)}",
        f"predicted: {work_s / 3600:.2f} core-hours of work, longest job {longest_s:.0f} s",
        f"walltime: {packing.walltime_s} s; at most {len(nodes) * packing.walltime_s / 3600:.2f} node-hours",
        f"predicted use of the slots: {100 * work_s / (slots * packing.walltime_s):.0f} %",
        *(f"environment: {name}={value!a}" for name, value in sorted(environment.items())),
        "script:",
    ]
    return "\n".join(lines) + "\n" + files.scripts[1]


def _none(queue: QueueSpec, reason: str, ended: list[str]) -> str:
    return "\n".join([f"queue {queue.name}: no bundle can be made now: {reason}", *ended]) + "\n"


def _end_misfits(state: State, limits: Limits, queue: QueueSpec, now: Now) -> list[str]:
    """Jobs of the pool that this configuration ends, or holds if those of all pools are too many, leave it.

    A line about each; about those that are held their number and a few of them.
    """
    others = (
        state.jobs[key] for name in limits.queues if name != queue.name for key in state.pools.get(name, {})
    )
    total, found = sum(misfit(record, limits) is not None for record in others), []
    for key in list(state.pools.get(queue.name, {})):
        record = state.jobs[key]
        reason = misfit(record, limits)
        if reason is not None:
            apply(state, judged_misfit(record, reason, now.utc, limits))
            found.append(f"job {record.panda_id} does not fit this configuration: {reason}")
    total += len(found)
    if total <= limits.misfits_max:
        return [f"ends: {text}" for text in found]
    count = f"holds: {len(found)} jobs, with those of all queues {total}: rotation.misfits_max is {limits.misfits_max}"
    return [count, *(f"holds: {text}" for text in found[:NAMED_MAX])]


def _fill_with_examples(state: State, limits: Limits, queue: QueueSpec, now: Now) -> None:
    kind = next(iter(limits.experiment.kinds))
    taken = max(map(panda_id_of, state.jobs), default=0)
    for number in range(taken + 1, taken + 1 + queue.bundle_jobs):
        text = f"PRODSYS_NEVENTS={EXAMPLE_EVENTS} true"
        job = Job(PandaId(number), 1, queue.panda_queue, f"example-{number}", kind, text, (), None)
        apply(state, JobFetched(now.utc, queue.name, job, server=queue.server))
